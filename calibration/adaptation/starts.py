"""Where adaptation begins: what each unit's activity tells of it, without any gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from calibration.adaptation.learning import Start
from calibration.adaptation.material import Material
from calibration.errors import CalibrationError
from decoders.streaming.decoder import StreamingConfig, StreamingDecoder
from decoders.streaming.identity import CAUTION, Identity
from decoders.streaming.tuning import Evidence, counts_matrix, evidence, profiles_given, regressors
from export.bundle import DecoderBundle
from streams.messages import Float64s

DRIFT = 0.1
"""Variance of a unit's slopes from day to day, as a share of their variance between units."""


@dataclass(frozen=True, slots=True)
class Base:
    """The decoder to adapt, as torch needs it.

    Attributes:
        decoder: with the bundle's weights.
        identity: from profile to embedding.
        row_of_key: row of `embedding` and `profile`.
        embedding: (R, d_unit) of the bundle's units.
        profile: (R, P) of the bundle's units.
        session: (d_readout,) of the bundle.
        usual_session: (d_readout,) mean of those that it was trained on.
    """

    decoder: StreamingDecoder
    identity: Identity
    row_of_key: dict[str, int]
    embedding: Tensor
    profile: Tensor
    session: Tensor
    usual_session: Tensor


def load_base(bundle: DecoderBundle) -> Base:
    """The bundle's network, and what it knows of units.

    Raises:
        CalibrationError: a family that cannot be adapted, or no embeddings in the bundle.
    """
    manifest = bundle.manifest
    config = manifest.training.get("config")
    if manifest.family != "streaming" or not isinstance(config, dict):
        raise CalibrationError(
            f"decoder {manifest.name!r} of family {manifest.family!r} cannot be adapted: "
            "give a bundle of a `streaming` decoder, as `spikeloop export` writes it"
        )
    weights = {name: torch.from_numpy(value) for name, value in bundle.weights().items()}
    if "units.embedding" not in weights:
        raise CalibrationError(
            f"{bundle.path} holds no unit embeddings: export it again from its run"
        )
    shape = StreamingConfig.from_dict(config)
    decoder = StreamingDecoder(shape)
    identity = Identity(weights["units.profile"].shape[1], shape.d_unit, 1.0)
    for prefix, module in (("decoder.", decoder), ("identity.", identity)):
        own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        module.load_state_dict(own)
    return Base(
        decoder=decoder.eval().requires_grad_(False),
        identity=identity.requires_grad_(False),
        row_of_key=dict(bundle.row_of_key),
        embedding=weights["units.embedding"],
        profile=weights["units.profile"],
        session=torch.from_numpy(bundle.tables["session"].copy()),
        usual_session=weights["units.session"],
    )


class Starts:
    """Starting points from any subset of a session's labelled bins.

    Args:
        base: the decoder.
        material: the session.
        same_array: whether a unit key names the same channel as it did for the decoder.

    Raises:
        CalibrationError: the array is said to be the same, and no key is known.
    """

    def __init__(self, base: Base, material: Material, same_array: bool) -> None:
        self.base = base
        keys = material.recording.unit_keys
        self.counts = counts_matrix(material.recording.tokens, len(keys))
        self.behavior = regressors(
            material.targets, material.outputs, material.offset, material.scale, material.hop_s
        )
        self.row = np.array([base.row_of_key.get(key, -1) for key in keys])
        self.same_array = same_array
        if same_array and (self.row < 0).all():
            raise CalibrationError(
                f"--same-array, but the decoder knows none of the units {', '.join(keys[:3])}, "
                "...: adapt without it"
            )

    def from_bins(self, chosen: np.ndarray) -> list[Start]:
        """The starting points that some bins tell; the first is of units never seen before.

        Args:
            chosen: (n_bins,) bool.
        """
        found = evidence(self.counts[chosen], self.behavior[chosen])
        told = self.base.identity(_tensor(self.base.identity.profiles_from(found)))
        starts = [Start("activity", told, self.base.usual_session)]
        if self.same_array:
            starts.append(Start("last day", self._known(told, found, 0.0), self.base.session))
            starts.append(Start("drifted", self._known(told, found, DRIFT), self.base.session))
        return starts

    def _known(self, told: Tensor, found: Evidence, drift: float) -> Tensor:
        """Last day's embeddings, moved by what `drift` lets activity tell; `told` for others."""
        embedding = told.clone()
        known = np.flatnonzero(self.row >= 0)
        rows = torch.from_numpy(self.row[known])
        last = self.base.embedding[rows]
        if drift > 0.0:
            was = self.base.profile[rows]
            now = _tensor(self._profiles_near(was.double().numpy(), found, known, drift))
            last = last + self.base.identity(now) - self.base.identity(was)
        embedding[torch.from_numpy(known)] = last
        return embedding

    def _profiles_near(
        self, was: Float64s, found: Evidence, known: np.ndarray, drift: float
    ) -> Float64s:
        part = Evidence(
            found.n_bins,
            found.gram,
            found.cross[:, known],
            found.power[known],
            found.mean_count[known],
        )
        spread = self.base.identity.spread.double().numpy() * drift
        return profiles_given(part, was[:, :-1], spread, CAUTION)


def profiles_of(base: Base, material: Material) -> Tensor:
    """(U, P) what the labelled bins tell of each unit."""
    starts = Starts(base, material, same_array=False)
    part = slice(material.recording.train.first, material.recording.train.last)
    found = evidence(starts.counts[part], starts.behavior[part])
    return _tensor(base.identity.profiles_from(found))


def _tensor(values: Float64s) -> Tensor:
    return torch.from_numpy(values).float()
