"""FALCON's counts through bundles: which decodes a session, and its bins one after another."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.errors import FalconError
from calibration.evaluate import open_verified
from calibration.falcon.fit import FittedBundle, fit_bundle
from calibration.falcon.names import session_of
from export.backends.table import Backend
from export.bundle import MANIFEST, open_bundle
from streams.messages import Float64s, Int32s, SpikeBatch
from streams.sessions.falcon import BIN_US, FalconTask
from streams.spikes.tokenizer import Tokenizer


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
