"""`spikeloop record`: streams into a file, in a process of its own, safe against its sudden end."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from streams.clock import Clock, MonotonicClock
from streams.lsl import Inlet, StreamLostError, find_inlet
from streams.messages import Float64s
from streams.recording.xdf import (
    BOUNDARY,
    BOUNDARY_MARK,
    CLOCK_OFFSET,
    SAMPLES,
    STREAM_FOOTER,
    STREAM_HEADER,
    RecordingError,
    append,
    clock_offset,
    file_header,
    footer,
    frame,
    samples,
)

PULL_EVERY_S = 0.05
SYNC_EVERY_S = 0.5
OFFSET_EVERY_S = 5.0
OFFSET_WITHIN_S = 0.5
FIRST_OFFSET_WITHIN_S = 3.0
LATE_S = 1.0
"""Waited for what is still under way when the recording ends."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A stream to record; "" matches any name or source_id."""

    type: str
    name: str = ""
    source_id: str = ""
    budget_per_s: float = 50_000.0


@dataclass(slots=True)
class _Line:
    """One stream being recorded."""

    inlet: Inlet
    number: int
    n_samples: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    uncertainty_s: float | None = None
    offset_s: float | None = None


@dataclass(slots=True)
class Recorder:
    """Appends what its inlets bring.

    Attributes:
        path: of the file, which must not exist.
        clock: LSL's.
        n_bytes: written.
    """

    path: Path
    clock: Clock
    n_bytes: int = 0
    _handle: int = -1
    _lines: list[_Line] = field(default_factory=list)
    _t_sync_s: float = 0.0
    _t_offset_s: float = 0.0

    def open(self, inlets: Sequence[Inlet]) -> None:
        """Begin the file and the transmissions.

        Raises:
            RecordingError: the file exists, or cannot be written.
            StreamAbsentError: a sender did not answer.
        """
        for inlet in inlets:
            inlet.open()
        try:
            self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            raise RecordingError(
                f"{self.path} exists, and a recording is never written over; choose another name"
            ) from None
        except OSError as err:
            raise RecordingError(f"cannot record to {self.path}: {err.strerror}") from err
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._write(file_header(socket.gethostname(), created))
        for number, inlet in enumerate(inlets, start=1):
            self._lines.append(_Line(inlet, number))
            self._write(frame(STREAM_HEADER, inlet.xml.encode(), number))
        self._measure_clocks(FIRST_OFFSET_WITHIN_S)
        self._sync()

    def step(self) -> None:
        """Take what there is, and flush it to the disk every half second.

        Raises:
            RecordingError: the disk refuses: what was recorded so far is kept.
        """
        for line in self._lines:
            self._pull(line)
        now_s = self.clock.now()
        if now_s >= self._t_offset_s + OFFSET_EVERY_S:
            self._measure_clocks(OFFSET_WITHIN_S)
        if now_s >= self._t_sync_s + SYNC_EVERY_S:
            self._sync()

    def close(self) -> None:
        """End the file in order."""
        if self._handle < 0:
            return
        for line in self._lines:
            held = footer(line.n_samples, line.first_s, line.last_s)
            self._write(frame(STREAM_FOOTER, held, line.number))
            line.inlet.close()
        self._sync()
        os.close(self._handle)
        self._handle = -1

    def status(self) -> dict[str, Any]:
        """How it stands: bytes, and of each stream its samples, newest stamp and clock."""
        return {
            "t_s": self.clock.now(),
            "bytes": self.n_bytes,
            "streams": {
                line.inlet.description.name: {
                    "type": line.inlet.description.type,
                    "samples": line.n_samples,
                    "newest_s": line.last_s,
                    "clock_offset_s": line.offset_s,
                    "clock_uncertainty_s": line.uncertainty_s,
                }
                for line in self._lines
            },
        }

    def _pull(self, line: _Line) -> None:
        values, stamps = _pulled(line.inlet)
        while len(stamps):
            content = samples(values, stamps, line.inlet.description.format)
            self._write(frame(SAMPLES, content, line.number))
            line.first_s = line.first_s or float(stamps[0])
            line.last_s = max(line.last_s, float(stamps[-1]))
            line.n_samples += len(stamps)
            values, stamps = _pulled(line.inlet)

    def _measure_clocks(self, within_s: float) -> None:
        self._t_offset_s = self.clock.now()
        inlets = [line.inlet for line in self._lines]
        with ThreadPoolExecutor(len(inlets)) as together:
            found = list(together.map(lambda inlet: inlet.clock_offset(within_s), inlets))
        for line, measured in zip(self._lines, found, strict=True):
            if measured is not None:
                line.offset_s, line.uncertainty_s = measured.offset_s, measured.uncertainty_s
                content = clock_offset(measured.t_s, measured.offset_s)
                self._write(frame(CLOCK_OFFSET, content, line.number))

    def _sync(self) -> None:
        self._write(frame(BOUNDARY, BOUNDARY_MARK))
        try:
            os.fsync(self._handle)
        except OSError as err:
            raise self._refused(err) from err
        self._t_sync_s = self.clock.now()

    def _write(self, held: bytes) -> None:
        try:
            append(self._handle, held)
        except OSError as err:
            raise self._refused(err) from err
        self.n_bytes += len(held)

    def _refused(self, err: OSError) -> RecordingError:
        os.ftruncate(self._handle, self.n_bytes)
        full = err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "free some space there" if full else "look at the disk"
        return RecordingError(
            f"the disk refused more of {self.path} after {self.n_bytes} bytes "
            f"({os.strerror(err.errno or 0)}); what was recorded so far is kept: {advice}"
        )


def record(
    wanted: Sequence[Wanted],
    path: Path,
    *,
    seconds: float | None,
    wait_s: float,
    is_stopped: Callable[[], bool],
    status_path: Path | None = None,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Record until told to stop, or for so long.

    Args:
        wanted: the streams, each of which must match exactly one.
        path: XDF to write; must not exist.
        seconds: how long; None for until `is_stopped`.
        wait_s: how long to look for each stream.
        is_stopped: asked 20 times a second.
        status_path: where to say how it stands, twice a second (JSON, replaced as a whole).
        clock: LSL's; the monotonic clock unless given.

    Returns:
        As `Recorder.status`.

    Raises:
        RecordingError: the disk refuses.
        StreamAbsentError, StreamAmbiguousError: a stream is not there, or there several times.
    """
    clock = clock or MonotonicClock()
    recorder = Recorder(path, clock)
    recorder.open(_found(wanted, wait_s))
    t_start_s = t_next_s = clock.now()
    t_end_s = float("inf") if seconds is None else t_start_s + seconds
    while clock.now() < t_end_s and not is_stopped():
        recorder.step()
        t_next_s = _told(recorder, status_path, t_next_s)
        clock.sleep_until(clock.now() + PULL_EVERY_S)
    clock.sleep_until(clock.now() + LATE_S)
    recorder.step()
    recorder.close()
    _told(recorder, status_path, 0.0)
    return recorder.status()


def _found(wanted: Sequence[Wanted], wait_s: float) -> list[Inlet]:
    """The inlet of each, looked for at the same time."""

    def find(one: Wanted) -> Inlet:
        return find_inlet(
            one.type,
            name=one.name,
            source_id=one.source_id,
            budget_per_s=one.budget_per_s,
            timeout_s=wait_s,
        )

    with ThreadPoolExecutor(len(wanted)) as together:
        return list(together.map(find, wanted))


def _pulled(inlet: Inlet) -> tuple[np.ndarray, Float64s]:
    """What there is; nothing once the source has ended for good: the others go on."""
    try:
        return inlet.pull(0.0)
    except StreamLostError:
        return np.zeros((0, inlet.description.n_channels)), np.zeros(0)


def _told(recorder: Recorder, path: Path | None, t_next_s: float) -> float:
    """Say how it stands when it is time; when that is next."""
    now_s = recorder.clock.now()
    if path is None or now_s < t_next_s:
        return t_next_s
    part = path.with_name(f".{path.name}.part")
    with suppress(OSError):  # the recording itself tells of a full disk
        part.write_text(json.dumps(recorder.status()))
        part.replace(path)
    return now_s + SYNC_EVERY_S
