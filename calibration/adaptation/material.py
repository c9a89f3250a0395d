"""What a new session gives to adapt from: the labelled seconds, the test part, and the refusals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from calibration.errors import CalibrationError
from calibration.scoring import scored_intervals
from decoders.config import Lead, TrainConfig, parse_config
from decoders.errors import DecodersError
from decoders.learning.loss import Scored
from decoders.learning.recordings import Recording, record
from decoders.learning.split import Part
from decoders.learning.trainer import scored_outputs
from export.bundle import DecoderBundle
from export.manifest import Manifest
from streams.messages import Float64s, Int64s
from streams.sessions.session import Session, in_intervals

FEWEST_LABELLED_S = 2.0
FEWEST_TRIALS = 4
N_BLOCKS = 8
LEAST_MOVEMENT = 0.02
LEAST_WIDTH = 0.05


@dataclass(frozen=True, slots=True)
class Material:
    """A session, cut for a decoder.

    Attributes:
        session: the recording.
        config: how the decoder was trained, for the present only.
        recording: its bins; `train` are the labelled ones, `test` spans the scored ones.
        outputs: which columns are what.
        offset: (n_dims,) of the decoder's normalisation.
        scale: (n_dims,).
        scored: seconds of the test part.
        block: (n_bins,) which trial or stretch each bin belongs to, for holding out whole ones.
    """

    session: Session
    config: TrainConfig
    recording: Recording
    outputs: Sequence[Scored]
    offset: Float64s
    scale: Float64s
    scored: Sequence[tuple[float, float]]
    block: Int64s

    @property
    def hop_s(self) -> float:
        """Seconds between bins."""
        return self.config.beat.hop_ms / 1000

    @property
    def ends_s(self) -> Float64s:
        """(n_bins,) end of each bin."""
        return np.asarray(np.arange(1, self.recording.n_bins + 1) * self.hop_s, np.float64)

    @property
    def targets(self) -> Float64s:
        """(n_bins, n_columns) physical units, NaN where unknown or where the test part is."""
        targets: Float64s = self.recording.targets[0].astype(np.float64)
        targets[self.tested] = np.nan
        return targets

    @property
    def known(self) -> np.ndarray:
        """(n_bins,) bool, whether a bin has a label outside the test part."""
        return np.asarray(np.isfinite(self.targets).all(axis=1))

    @property
    def labelled(self) -> np.ndarray:
        """(n_bins,) bool, whether a bin may be learnt from."""
        labelled = self.known
        labelled[: self.recording.train.first] = False
        labelled[self.recording.train.last :] = False
        return labelled

    @property
    def tested(self) -> np.ndarray:
        """(n_bins,) bool, whether a bin or its label lies in the test part."""
        lags_s = {0.0, *(output.lag_s for output in self.config.outputs)}
        inside = [in_intervals(self.ends_s + lag_s, self.scored) for lag_s in lags_s]
        return np.asarray(np.logical_or.reduce(inside))


def recipe_of(manifest: Manifest) -> TrainConfig:
    """How a decoder was trained.

    Raises:
        CalibrationError: its manifest does not say.
    """
    recipe: Any = manifest.training.get("recipe", _recipe_by_name(manifest))
    if not isinstance(recipe, dict):
        raise CalibrationError(
            f"decoder {manifest.name!r} does not say what its outputs were trained on "
            "(no `training.recipe` in its manifest): export it again from its run"
        )
    try:
        config = parse_config(recipe, f"`training.recipe` of {manifest.name!r}")
    except DecodersError as error:
        raise CalibrationError(str(error)) from error
    training = config.training.model_copy(update={"cuts": 1})
    return config.model_copy(update={"split": "none", "lead": Lead(), "training": training})


def _recipe_by_name(manifest: Manifest) -> dict[str, Any] | None:
    """Of a POYO that another program trained nothing is told: outputs are named as behaviour."""
    if manifest.family != "poyo":
        return None
    hop_ms = manifest.hop_s * 1000
    outputs = [
        {"name": o.name, "behavior": o.name, "unit": o.unit, "safe": o.safe}
        for o in manifest.outputs
    ]
    return {
        "name": "by-name",
        "sessions": {},
        "beat": {"hop_ms": hop_ms, "bin_ms": hop_ms},
        "outputs": outputs,
    }


def _normalisation(bundle: DecoderBundle) -> tuple[Float64s, Float64s]:
    """(n_dims,) offset and scale."""
    weights, prefix = bundle.weights(), "" if bundle.manifest.family == "poyo" else "decoder."
    offset, scale = (weights[prefix + name].astype(np.float64) for name in ("offset", "scale"))
    return offset, scale


def gather(
    bundle: DecoderBundle,
    session: Session,
    *,
    seconds: float,
    start_s: float | None,
    test: str,
) -> Material:
    """Cut a session, and refuse one that nothing can be learnt from.

    Args:
        bundle: the decoder to adapt.
        session: the new recording.
        seconds: how much of it to learn from; less where the test part or its end comes first.
        start_s: where that begins; the first labelled bin if None.
        test: the part that is scored and never learnt from, as in `scored_intervals`.

    Raises:
        CalibrationError: see the texts below.
        streams.errors.SessionError: the session lacks a behaviour.
    """
    config = recipe_of(bundle.manifest)
    try:
        recording = record(session, config)
    except DecodersError as error:
        raise CalibrationError(str(error)) from error
    _require_dimensions(bundle.manifest, recording)
    outputs = scored_outputs(config, recording)
    offset, scale = _normalisation(bundle)
    material = Material(
        session=session,
        config=config,
        recording=recording,
        outputs=outputs,
        offset=offset,
        scale=scale,
        scored=scored_intervals(test, session),
        block=np.zeros(recording.n_bins, np.int64),
    )
    labelled = _labelled(material, seconds, start_s)
    tested = np.flatnonzero(in_intervals(material.ends_s, material.scored))
    if not len(tested):
        raise CalibrationError(f"session {session.id}: no beat in the test part {test!r}")
    test_part = Part(int(tested[0]), int(tested[-1]) + 1)
    material = replace(
        material,
        recording=replace(recording, train=labelled, test=test_part),
        block=_blocks(session, material.ends_s, labelled),
    )
    _require_labels(material)
    _require_spikes(material)
    return material


def _require_dimensions(manifest: Manifest, recording: Recording) -> None:
    wanted = {output.name: output.dims for output in manifest.outputs}
    found = dict(zip(wanted, recording.dims, strict=True))
    if wanted != found:
        told = ", ".join(f"{name} {found[name]} for {dims}" for name, dims in wanted.items())
        raise CalibrationError(
            f"session {recording.id} has behaviour of other dimensions than the decoder's outputs "
            f"({told}): give a session with the behaviour that it was trained on"
        )


def _labelled(material: Material, seconds: float, start_s: float | None) -> Part:
    """The bins to learn from: up to `seconds`, none of the test part."""
    if not (seconds > 0 and np.isfinite(seconds)):
        raise CalibrationError(f"--seconds {seconds}: give a number above 0")
    free = material.known
    first = 0 if start_s is None else max(0, round(start_s / material.hop_s))
    known = np.flatnonzero(free[first:]) + first
    last = min(first + round(seconds / material.hop_s), len(free))
    if start_s is None and len(known):
        first = int(known[0])
        last = min(first + round(seconds / material.hop_s), len(free))
    tested = np.flatnonzero(material.tested[first:last])
    last = first + int(tested[0]) if len(tested) else last
    n_labelled = np.count_nonzero(free[first:last])
    if n_labelled * material.hop_s < min(FEWEST_LABELLED_S, seconds):
        where = f"the next label is at {known[0] * material.hop_s:.1f} s" if len(known) else "none"
        raise CalibrationError(
            f"session {material.session.id}: {n_labelled * material.hop_s:.1f} s with known "
            f"behaviour between {first * material.hop_s:.1f} and {last * material.hop_s:.1f} s, "
            f"outside the test part; {where}: choose another --start, --seconds or --test"
        )
    return Part(first, last)


def _blocks(session: Session, ends_s: Float64s, labelled: Part) -> Int64s:
    """Trials where the labelled bins hold a few of them, else stretches of equal length."""
    if session.trials is not None:
        starts_s = np.sort(session.trials.start_s[np.isfinite(session.trials.start_s)])
        block = np.searchsorted(starts_s, ends_s, side="left").astype(np.int64)
        if len(np.unique(block[labelled.first : labelled.last])) >= FEWEST_TRIALS:
            return block
    n_each = max(1, (labelled.last - labelled.first) // N_BLOCKS)
    return (np.arange(len(ends_s)) - labelled.first) // n_each


def _require_labels(material: Material) -> None:
    """Refuse behaviour from which a decoder cannot learn what each dimension is."""
    part = material.recording.train
    labels = material.targets[part.first : part.last]
    labels = labels[np.isfinite(labels).all(axis=1)]
    where = (
        f"session {material.session.id}, {part.first * material.hop_s:.1f} to "
        f"{part.last * material.hop_s:.1f} s"
    )
    for out in material.outputs:
        if out.classes:
            _require_classes(labels[:, out.target], out.name, where)
        else:
            _require_movement(labels[:, out.target] / material.scale[out.answer], out.name, where)


def _require_classes(labels: Float64s, name: str, where: str) -> None:
    if len(np.unique(labels)) < 2:
        raise CalibrationError(
            f"{where}: {name} is of one class only: give seconds in which it changes"
        )


def _require_movement(normed: Float64s, name: str, where: str) -> None:
    spread = np.std(normed, axis=0)
    if spread.max() < LEAST_MOVEMENT:
        raise CalibrationError(
            f"{where}: {name} is frozen, it moves by {spread.max():.2g} of what it did in "
            "training: is it the right behaviour, was it recorded, in the same unit?"
        )
    widths = np.linalg.svd(normed - normed.mean(axis=0), compute_uv=False)
    if len(spread) > 1 and widths[-1] < LEAST_WIDTH * widths[0]:
        raise CalibrationError(
            f"{where}: {name} moves along one direction only, the others cannot be learnt: "
            "give seconds with movement in every dimension"
        )


def _require_spikes(material: Material) -> None:
    part, tokens = material.recording.train, material.recording.tokens
    if tokens.offsets[part.last] == tokens.offsets[part.first]:
        raise CalibrationError(
            f"session {material.session.id}: none of its {len(material.session.unit_keys)} units "
            f"fires between {part.first * material.hop_s:.1f} and "
            f"{part.last * material.hop_s:.1f} s: is the array connected?"
        )
