"""Starts for adaptation: embeddings from each unit's activity, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from calibration.adaptation.calibration_data import CalibrationData, known_rows
from calibration.adaptation.gradient.batched_fits import Start
from calibration.errors import CalibrationError
from decoders.streaming.decoder import StreamingDecoder
from decoders.streaming.profile_encoder import ProfileEncoder
from decoders.streaming.shape import StreamingConfig
from decoders.streaming.tuning import (
    CAUTION,
    DRIFT,
    TuningSums,
    counts_matrix,
    profiles_given,
    regressors,
    tuning_sums,
)
from export.bundle import DecoderBundle
from streams.messages import Float64s


@dataclass(frozen=True, slots=True)
class Base:
    """Decoder to adapt, as torch needs it.

    Attributes:
        decoder: with the bundle's weights.
        encoder: from profile to embedding.
        row_of_key: row in `embedding` and `profile`.
        embedding: (R, d_unit), the bundle's units.
        profile: (R, P), the bundle's units.
        session: (d_readout,), the bundle's.
        usual_session: (d_readout,) mean over the training's sessions.
    """

    decoder: StreamingDecoder
    encoder: ProfileEncoder
    row_of_key: dict[str, int]
    embedding: Tensor
    profile: Tensor
    session: Tensor
    usual_session: Tensor


def load_base(bundle: DecoderBundle) -> Base:
    """Load the bundle's network and its units.

    Raises:
        CalibrationError: the bundle has no network shape, or no embeddings.
    """
    manifest = bundle.manifest
    config = manifest.training.get("config")
    if not isinstance(config, dict):
        raise CalibrationError(
            f"decoder {manifest.name!r} cannot be adapted, its manifest has no `training.config`: "
            "give a bundle as `spikeloop export` writes it"
        )
    weights = {name: torch.from_numpy(value) for name, value in bundle.weights().items()}
    if "units.embedding" not in weights:
        raise CalibrationError(
            f"{bundle.path} holds no unit embeddings: export it again from its run"
        )
    shape = StreamingConfig.from_dict(config)
    decoder = StreamingDecoder(shape)
    encoder = ProfileEncoder(weights["units.profile"].shape[1], shape.d_unit, 1.0)
    for prefix, module in (("decoder.", decoder), ("identity.", encoder)):
        own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        module.load_state_dict(own)
    return Base(
        decoder=decoder.eval().requires_grad_(False),
        encoder=encoder.requires_grad_(False),
        row_of_key=dict(bundle.row_of_key),
        embedding=weights["units.embedding"],
        profile=weights["units.profile"],
        session=torch.from_numpy(bundle.tables["session"].copy()),
        usual_session=weights["units.session"],
    )


class Starts:
    """Starting points from any subset of the labelled bins.

    Args:
        base: the decoder.
        data: the session.
        same_array: whether a unit key names the same channel as it did for the decoder.

    Raises:
        CalibrationError: the array is said to be the same, and no key is known.
    """

    def __init__(self, base: Base, data: CalibrationData, same_array: bool) -> None:
        self.base = base
        keys = data.recording.unit_keys
        self.counts = counts_matrix(data.recording.tokens, len(keys))
        self.behavior = regressors(data.targets, data.outputs, data.offset, data.scale, data.hop_s)
        self.same_array = same_array
        self.row = known_rows(base.row_of_key, keys) if same_array else np.full(len(keys), -1)

    def from_bins(self, chosen: np.ndarray) -> list[Start]:
        """Give starting points from some bins; the first treats all units as unseen.

        Args:
            chosen: (n_bins,) bool.
        """
        sums = tuning_sums(self.counts[chosen], self.behavior[chosen])
        told = self.base.encoder(_tensor(self.base.encoder.profiles_from(sums)))
        starts = [Start("activity", told, self.base.usual_session)]
        if self.same_array:
            starts.append(Start("last day", self._known(told, sums, 0.0), self.base.session))
            starts.append(Start("drifted", self._known(told, sums, DRIFT), self.base.session))
        return starts

    def _known(self, told: Tensor, sums: TuningSums, drift: float) -> Tensor:
        """Last day's embeddings, moved by activity as far as `drift` allows; `told` for others."""
        embedding = told.clone()
        known = np.flatnonzero(self.row >= 0)
        rows = torch.from_numpy(self.row[known])
        last = self.base.embedding[rows]
        if drift > 0.0:
            was = self.base.profile[rows]
            now = _tensor(self._profiles_near(was.double().numpy(), sums, known, drift))
            last = last + self.base.encoder(now) - self.base.encoder(was)
        embedding[torch.from_numpy(known)] = last
        return embedding

    def _profiles_near(
        self, was: Float64s, sums: TuningSums, known: np.ndarray, drift: float
    ) -> Float64s:
        spread = self.base.encoder.spread.double().numpy() * drift
        return profiles_given(sums.of_units(known), was[:, :-1], spread, CAUTION)


def profiles_of(base: Base, data: CalibrationData) -> Tensor:
    """(U, P) the units' profiles in the labelled bins."""
    starts = Starts(base, data, same_array=False)
    part = slice(data.recording.train.first, data.recording.train.last)
    sums = tuning_sums(starts.counts[part], starts.behavior[part])
    return _tensor(base.encoder.profiles_from(sums))


def _tensor(values: Float64s) -> Tensor:
    return torch.from_numpy(values).float()
