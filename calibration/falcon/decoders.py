"""FALCON's counts through bundles: which fits a task and decodes a session, bin after bin."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibration.choices import rows_in, training_recipe
from calibration.errors import FalconError
from calibration.evaluate import open_verified
from calibration.falcon.names import session_of
from export.backends.table import Backend
from export.bundle import MANIFEST, DecoderBundle, open_bundle
from streams.messages import Float32s, Float64s, Int32s, SpikeBatch
from streams.sessions.falcon import BIN_S, BIN_US, FalconTask, channel_keys
from streams.spikes.tokenizer import Tokenizer

NEAR_S = 1e-6
MOST_UNKNOWN = 0.2
"""With more unknown units than this a live decode is `fault`."""


@dataclass(frozen=True, slots=True)
class FittedBundle:
    """A bundle that decodes a task.

    Attributes:
        bundle: the decoder.
        task: which task.
        outputs: the outputs that hold the task's dimensions, in the task's order.
        lead_s: what it is asked for, so that it estimates the sample that the benchmark scores.
    """

    bundle: DecoderBundle
    task: FalconTask
    outputs: tuple[str, ...]
    lead_s: float

    @property
    def bin_us(self) -> int:
        """The decoder's bin length."""
        return round(self.bundle.manifest.bin_s * 1e6)

    def value(self, answer: Any) -> Float64s:
        """(dims,) from a step's answer, in the task's order."""
        parts: list[Float32s] = [answer[name] for name in self.outputs]
        return np.concatenate(parts).astype(np.float64)

    def rows(self, n_channels: int) -> Int32s:
        """(n_channels,) each channel's row in the decoder, -1 where it does not know one.

        Raises:
            FalconError: it knows units that are no channel, or too few channels.
        """
        keys = channel_keys(n_channels)
        strange = [key for key in self.bundle.row_of_key if key not in keys]
        if strange:
            raise FalconError(
                f"decoder {self.bundle.manifest.name} reads unit {strange[0]} "
                f"({len(strange)} such), but FALCON's {n_channels} channels are {keys[0]} to "
                f'{keys[-1]}: train it with [sessions] falcon = "{self.task.name}"'
            )
        rows = rows_in(self.bundle.row_of_key, keys)
        if np.mean(rows < 0) > MOST_UNKNOWN:
            raise FalconError(
                f"decoder {self.bundle.manifest.name} knows {np.count_nonzero(rows >= 0)} of "
                f'{n_channels} channels: train it with [sessions] falcon = "{self.task.name}"'
            )
        return rows


def fit_bundle(bundle: DecoderBundle, task: FalconTask) -> FittedBundle:
    """Hold a bundle against a task.

    Raises:
        FalconError: its hop, bin, outputs or lead are not the task's; the text says what to train.
    """
    manifest = bundle.manifest
    _require_beat(bundle)
    names, lag_s = _outputs(bundle, task)
    wanted_s = 0.0 if _read_as(bundle) == task.name else task.lag_s
    lead_s = wanted_s - lag_s
    if not manifest.lead_s.min - NEAR_S <= lead_s <= manifest.lead_s.max + NEAR_S:
        raise FalconError(
            f"decoder {manifest.name} estimates the behaviour {lag_s * 1e3:+g} ms from its bin's "
            f"end, FALCON scores it at {wanted_s * 1e3:+g} ms: train it with lag_s = {wanted_s:g}"
        )
    return FittedBundle(bundle, task, names, float(np.clip(lead_s, *manifest.lead_s.ends)))


def reads_spike_times(bundle: DecoderBundle) -> bool:
    """Return True for a decoder trained on spike times, where counts tell less."""
    if _read_as(bundle):
        return False
    beat: Any = training_recipe(bundle).get("beat", {})
    shape: Any = bundle.manifest.training.get("config", {})
    return bool(beat.get("rotary", shape.get("n_frequencies", 1)))


def _read_as(bundle: DecoderBundle) -> str:
    """The task as whose files its recordings were read; "" for none."""
    read_as: str = training_recipe(bundle).get("sessions", {}).get("falcon", "")
    return read_as


def _require_beat(bundle: DecoderBundle) -> None:
    manifest = bundle.manifest
    if abs(manifest.hop_s - BIN_S) > NEAR_S:
        raise FalconError(
            f"decoder {manifest.name} has a hop of {manifest.hop_s * 1e3:g} ms, FALCON asks for a "
            "value every 20 ms: train it with [beat] hop_ms = 20"
        )
    if round(manifest.bin_s * 1e6) % BIN_US:
        raise FalconError(
            f"decoder {manifest.name} has bins of {manifest.bin_s * 1e3:g} ms, which FALCON's "
            "counts of 20 ms do not fill: train it with [beat] bin_ms = 20"
        )


def _outputs(bundle: DecoderBundle, task: FalconTask) -> tuple[tuple[str, ...], float]:
    """The task's outputs in its order, and their lag.

    A container's series are ordered by name, as HDF5 lists them.
    """
    manifest = bundle.manifest
    dims = {output.name: output.dims for output in manifest.outputs}
    choices = training_recipe(bundle).get("outputs") or [
        {"name": name, "behavior": task.behavior, "lag_s": task.lag_s} for name in dims
    ]
    found = sorted(
        (place, choice["name"], float(choice["lag_s"]))
        for choice in choices
        if not choice.get("classes")
        and (place := _place(choice["behavior"], task)) is not None
        and choice["name"] in dims
    )
    n_dims = sum(dims[name] for _, name, _ in found)
    if n_dims != task.dims or len({place for place, _, _ in found}) < len(found):
        told = ", ".join(f"{name} ({n})" for name, n in dims.items())
        raise FalconError(
            f"decoder {manifest.name} gives {told}; FALCON's task {task.name} asks for the "
            f"{task.dims} dimensions of {task.behavior}: train it with [[outputs]] "
            f'behavior = "{task.behavior}"'
        )
    if len({lag_s for _, _, lag_s in found}) > 1:
        raise FalconError(
            f"the outputs of decoder {manifest.name} have different lags, FALCON scores all at one "
            f"time: train them with lag_s = {task.lag_s:g}"
        )
    return tuple(name for _, name, _ in found), found[0][2]


def _place(behavior: str, task: FalconTask) -> str | None:
    """An output's place in the task's behaviour: "" for all; None if nowhere."""
    if task.behavior == behavior or task.behavior.endswith("/" + behavior):
        return ""
    holder, _, name = behavior.rpartition("/")
    if holder and (task.behavior == holder or task.behavior.endswith("/" + holder)):
        return name
    return None


class Stepper:
    """Decode one file's bins.

    Counts become tokens as in a count stream: one for each channel that fired, stamped
    at the end of its 20 ms.

    Args:
        fitted: the decoder.
        backend: runs it; its memory is zeroed here.
    """

    def __init__(self, fitted: FittedBundle, backend: Backend) -> None:
        self._fitted = fitted
        self._backend = backend
        self._tokenizer: Tokenizer | None = None
        self._n_channels = 0
        self._end_us = 0
        self._bins: deque[tuple[Int32s, Int32s]] = deque(maxlen=fitted.bin_us // BIN_US)
        backend.reset()

    def step(self, counts: np.ndarray) -> Float64s:
        """Decode the next bin.

        Args:
            counts: (n_channels,) whole numbers from 0.

        Returns:
            (dims,), the task's.

        Raises:
            FalconError: they are no counts, or not the decoder's channels.
            export.errors.BackendError: the graph failed.
        """
        self._require_counts(counts)
        if self._tokenizer is None:
            rows = self._fitted.rows(len(counts))
            self._tokenizer = Tokenizer(self._fitted.bin_us, rows)
            self._n_channels = len(counts)
        fired = np.flatnonzero(counts).astype(np.int32)
        self._bins.append((fired, counts[fired].astype(np.int32)))
        self._end_us += BIN_US
        window, _ = self._tokenizer.cut(self._spikes(), self._end_us, self._end_us * 1e-6)
        return self._fitted.value(self._backend.step(window, self._fitted.lead_s))

    def _spikes(self) -> SpikeBatch:
        n_held = [len(fired) for fired, _ in self._bins]
        ages = np.repeat(np.arange(len(n_held))[::-1], n_held)
        channel, count = (np.concatenate(parts) for parts in zip(*self._bins, strict=True))
        return SpikeBatch(self._end_us - ages.astype(np.int64) * BIN_US, channel, count)

    def _require_counts(self, counts: np.ndarray) -> None:
        if self._tokenizer is not None and len(counts) != self._n_channels:
            raise FalconError(
                f"a bin has {len(counts)} channels, those before it had {self._n_channels}"
            )
        if not np.issubdtype(counts.dtype, np.integer) and (counts != np.floor(counts)).any():
            raise FalconError("the observations are no counts: hand over whole numbers of spikes")
        if not (counts >= 0).all():
            raise FalconError("an observation is below 0: hand over whole numbers of spikes")


@dataclass(frozen=True, slots=True)
class Decoders:
    """Each session's decoder.

    Attributes:
        task: which task.
        by_session: by FALCON's file tag, or its session; the only decoder under "".
    """

    task: FalconTask
    by_session: Mapping[str, FittedBundle]

    def of(self, tag: str) -> FittedBundle:
        """Decoder for the file with that tag (`20121004`, `Run1_20201030`, `S6_set_1`).

        Raises:
            FalconError: there is none.
        """
        for name in (tag, session_of(tag), ""):
            if name in self.by_session:
                return self.by_session[name]
        raise FalconError(
            f"no decoder for FALCON's session {tag!r}; the folder has: "
            f"{', '.join(sorted(self.by_session))}; adapt one to its calibration file, or give one "
            "bundle for all sessions"
        )


def open_decoders(path: Path, task: FalconTask) -> Decoders:
    """Open the decoder for all sessions, or one for each.

    Args:
        path: a bundle, or a folder with bundles that are named by FALCON's sessions.
        task: what they are to decode.

    Raises:
        FalconError: it is neither, or one does not fit the task.
        export.errors.ExportError: one is refused.
    """
    if (path / MANIFEST).is_file():
        return Decoders(task, {"": fit_bundle(open_bundle(path), task)})
    inside = sorted(one.parent for one in path.glob(f"*/{MANIFEST}"))
    if not inside:
        raise FalconError(
            f"{path} is no bundle and holds none: name the directory that `spikeloop export` "
            "wrote, or a folder of such directories named by FALCON's sessions"
        )
    return Decoders(task, {one.name: fit_bundle(open_bundle(one), task) for one in inside})


class SteppersOfBatch:
    """Gives each place in a batch its stepper; a place's backends are kept for the next file."""

    def __init__(self, decoders: Decoders) -> None:
        self._decoders = decoders
        self._backends: dict[tuple[int, Path], Backend] = {}

    def begin(self, tags: list[str]) -> list[Stepper]:
        """Steppers for the files with these tags, each from zero memory."""
        return [self._begin(place, tag) for place, tag in enumerate(tags)]

    def _begin(self, place: int, tag: str) -> Stepper:
        fitted = self._decoders.of(tag)
        key = place, fitted.bundle.path
        if key not in self._backends:
            # Scores of a backend that decodes otherwise would be worthless.
            self._backends[key] = open_verified(fitted.bundle)
        return Stepper(fitted, self._backends[key])
