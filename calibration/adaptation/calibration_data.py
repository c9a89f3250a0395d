"""A session prepared for adaptation: labelled seconds, test part, and checks that refuse it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from calibration.choices import rows_in
from calibration.errors import CalibrationError
from calibration.scoring import scored_intervals
from decoders.config import Lead, TrainConfig, parse_config
from decoders.errors import DecodersError
from decoders.training.output_columns import OutputColumns, output_columns
from decoders.training.recordings import Recording, record
from decoders.training.split import Part
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
class CalibrationData:
    """A session, cut for a decoder.

    Attributes:
        session: the recording.
        config: the decoder's training, with the present as the only lead.
        recording: its bins; `train` are the labelled bins, `test` spans the scored ones.
        outputs: target columns.
        offset: (n_dims,), the decoder's normalisation.
        scale: (n_dims,).
        scored: the test part, seconds.
    """

    session: Session
    config: TrainConfig
    recording: Recording
    outputs: Sequence[OutputColumns]
    offset: Float64s
    scale: Float64s
    scored: Sequence[tuple[float, float]]

    @property
    def hop_s(self) -> float:
        """Seconds between bins."""
        return self.config.beat.hop_ms / 1000

    @property
    def ends_s(self) -> Float64s:
        """(n_bins,) each bin's end."""
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

    @property
    def block(self) -> Int64s:
        """(n_bins,) each bin's trial, or its stretch of equal length where trials are few."""
        part, trials = self.recording.train, self.session.trials
        if trials is not None:
            starts_s = np.sort(trials.start_s[np.isfinite(trials.start_s)])
            block = np.searchsorted(starts_s, self.ends_s, side="left").astype(np.int64)
            if len(np.unique(block[part.first : part.last])) >= FEWEST_TRIALS:
                return block
        n_each = max(1, (part.last - part.first) // N_BLOCKS)
        return (np.arange(self.recording.n_bins) - part.first) // n_each

    @property
    def where(self) -> str:
        """Name the labelled part, for errors."""
        part, hop_s = self.recording.train, self.hop_s
        return f"session {self.session.id}, {part.first * hop_s:.1f} to {part.last * hop_s:.1f} s"


def recipe_of(manifest: Manifest, *, by_name: bool) -> TrainConfig:
    """Read how a decoder was trained.

    Args:
        manifest: the decoder's.
        by_name: read outputs as behaviour with the same name where the manifest does not say.

    Raises:
        CalibrationError: the manifest does not say.
    """
    recipe: Any = manifest.training.get("recipe", _recipe_by_name(manifest) if by_name else None)
    if not isinstance(recipe, dict):
        raise CalibrationError(
            f"decoder {manifest.name!r} does not say what its outputs were trained on "
            "(no `training.recipe` in its manifest): export it again from its run"
        )
    try:
        config = parse_config(recipe, f"`training.recipe` of {manifest.name!r}")
    except DecodersError as error:
        raise CalibrationError(str(error)) from error
    # Shifted cuts and leads serve training only.
    training = config.training.model_copy(update={"cuts": 1})
    return config.model_copy(update={"split": "none", "lead": Lead(), "training": training})


def _recipe_by_name(manifest: Manifest) -> dict[str, Any]:
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
    weights = bundle.weights()
    prefix = "" if "offset" in weights else "decoder."
    offset, scale = (weights[prefix + name].astype(np.float64) for name in ("offset", "scale"))
    return offset, scale


def prepare(
    bundle: DecoderBundle,
    session: Session,
    seconds: float,
    start_s: float | None,
    test: str | None,
    *,
    by_name: bool = False,
) -> CalibrationData:
    """Cut a session, and refuse one that nothing can be learnt from.

    Args:
        bundle: the decoder to adapt.
        session: the new recording.
        seconds: how much to learn from; less where the test part or the end comes first.
        start_s: its begin; the first labelled bin if None.
        test: the part that is scored and never learnt from, as in `scored_intervals`; None: there
            is none, as while trials are still collected.
        by_name: see `recipe_of`.

    Raises:
        CalibrationError: see the texts below.
        streams.errors.SessionError: the session lacks a behaviour.
    """
    config = recipe_of(bundle.manifest, by_name=by_name)
    try:
        recording = record(session, config)
    except DecodersError as error:
        raise CalibrationError(str(error)) from error
    _require_dimensions(bundle.manifest, recording)
    outputs = output_columns(config, recording)
    offset, scale = _normalisation(bundle)
    data = CalibrationData(
        session=session,
        config=config,
        recording=recording,
        outputs=outputs,
        offset=offset,
        scale=scale,
        scored=[] if test is None else scored_intervals(test, session),
    )
    labelled = _labelled(data, seconds, start_s)
    tested = np.flatnonzero(in_intervals(data.ends_s, data.scored))
    if not len(tested) and test is not None:
        raise CalibrationError(f"session {session.id}: no beat in the test part {test!r}")
    end = recording.n_bins
    test_part = Part(int(tested[0]), int(tested[-1]) + 1) if len(tested) else Part(end, end)
    data = replace(data, recording=replace(recording, train=labelled, test=test_part))
    _require_labels(data)
    _require_spikes(data)
    return data


def known_rows(row_of_key: Mapping[str, int], keys: Sequence[str]) -> np.ndarray:
    """(U,) each key's row on the same array, -1 for an unknown one.

    Raises:
        CalibrationError: no key is known.
    """
    rows = rows_in(row_of_key, keys)
    if (rows < 0).all():
        raise CalibrationError(
            f"--same-array, but the decoder knows none of the units {', '.join(keys[:3])}, "
            "...: adapt without it"
        )
    return rows


def _require_dimensions(manifest: Manifest, recording: Recording) -> None:
    wanted = {output.name: output.dims for output in manifest.outputs}
    found = dict(zip(wanted, recording.dims, strict=True))
    if wanted != found:
        told = ", ".join(f"{name} {found[name]} for {dims}" for name, dims in wanted.items())
        raise CalibrationError(
            f"session {recording.id} has behaviour of other dimensions than the decoder's outputs "
            f"({told}): give a session with the behaviour that it was trained on"
        )


def _labelled(data: CalibrationData, seconds: float, start_s: float | None) -> Part:
    """Bins to learn from: up to `seconds`, none in the test part."""
    if not (seconds > 0 and np.isfinite(seconds)):
        raise CalibrationError(f"--seconds {seconds}: give a number above 0")
    free = data.known
    first = 0 if start_s is None else max(0, round(start_s / data.hop_s))
    known = np.flatnonzero(free[first:]) + first
    last = min(first + round(seconds / data.hop_s), len(free))
    if start_s is None and len(known):
        first = int(known[0])
        last = min(first + round(seconds / data.hop_s), len(free))
    tested = np.flatnonzero(data.tested[first:last])
    last = first + int(tested[0]) if len(tested) else last
    n_labelled = np.count_nonzero(free[first:last])
    if n_labelled * data.hop_s < min(FEWEST_LABELLED_S, seconds):
        where = f"the next label is at {known[0] * data.hop_s:.1f} s" if len(known) else "none"
        raise CalibrationError(
            f"session {data.session.id}: {n_labelled * data.hop_s:.1f} s with known "
            f"behaviour between {first * data.hop_s:.1f} and {last * data.hop_s:.1f} s, "
            f"outside the test part; {where}: choose another --start, --seconds or --test"
        )
    return Part(first, last)


def _require_labels(data: CalibrationData) -> None:
    """Refuse behaviour from which a decoder cannot learn every dimension."""
    part = data.recording.train
    labels = data.targets[part.first : part.last]
    labels = labels[np.isfinite(labels).all(axis=1)]
    for out in data.outputs:
        if out.classes:
            _require_classes(labels[:, out.target], out.name, data.where)
        else:
            _require_movement(labels[:, out.target] / data.scale[out.answer], out.name, data.where)


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


def _require_spikes(data: CalibrationData) -> None:
    part, tokens = data.recording.train, data.recording.tokens
    if tokens.offsets[part.last] == tokens.offsets[part.first]:
        raise CalibrationError(
            f"session {data.session.id}: none of its {len(data.session.unit_keys)} units "
            f"fires between {part.first * data.hop_s:.1f} and "
            f"{part.last * data.hop_s:.1f} s: is the array connected?"
        )
