"""`spikeloop record`: streams into a file, in its own process, safe against a sudden end."""

from __future__ import annotations

import errno
import itertools
import json
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from streams.clock import Clock, MonotonicClock
from streams.errors import RecordingError, StreamUnfitError
from streams.files import PRIVATE, write_whole
from streams.lsl.inlets import Inlet
from streams.sessions.record.search import Wanted, find_all
from streams.sessions.record.tracks import Track
from streams.sessions.xdf import chunks as xdf

STEP_EVERY_S = 0.05
SYNC_EVERY_S = 0.5
LATE_S = 1.0
"""Waited for what is still under way when the recording ends."""
BY_ARRIVAL = (
    "samples are stamped with their arrival here: the blocks of their sender and the delay of the "
    "network are in the stamps, and samples of one block share one"
)


@dataclass(slots=True)
class Recorder:
    """Appends what its inlets bring.

    Attributes:
        path: the file's; it must not exist.
        clock: LSL's.
        say: tells the user something now.
        by_arrival: whether samples are stamped with their arrival.
        n_bytes: written.
    """

    path: Path
    clock: Clock
    say: Callable[[str], None] = lambda text: None
    by_arrival: bool = False
    n_bytes: int = 0
    _handle: int = -1
    _tracks: list[Track] = field(default_factory=list)
    _pool: ThreadPoolExecutor = field(default_factory=ThreadPoolExecutor)
    _t_sync_s: float = 0.0

    def open(self, inlets: Sequence[Inlet], wanted: Sequence[Wanted]) -> None:
        """Begin the file and the transmissions; clocks are measured while it records.

        Args:
            inlets: the opened streams.
            wanted: what each was asked for by.

        Raises:
            RecordingError: the file exists, or cannot be written.
            StreamAbsentError: a sender did not answer.
        """
        for inlet in inlets:
            inlet.open()
        try:
            self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
        except FileExistsError:
            raise RecordingError(
                f"{self.path} exists, and a recording is never written over; choose another name"
            ) from None
        except OSError as err:
            raise RecordingError(f"cannot record to {self.path}: {err.strerror}") from err
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        stamps = "arrival" if self.by_arrival else "lsl"
        self._write(xdf.file_header(socket.gethostname(), created, stamps))
        numbers, t_start_s = itertools.count(1), self.clock.now()
        for inlet, one in zip(inlets, wanted, strict=True):
            track = Track(
                one,
                inlet.description.name,
                self.clock,
                self._write,
                numbers.__next__,
                self.say,
                self._pool,
                self.by_arrival,
                t_start_s,
            )
            track.begin(inlet)
            self._tracks.append(track)
        self._sync()

    def step(self) -> None:
        """Take what there is, and flush it to the disk every half second.

        Raises:
            RecordingError: the disk refuses: what was recorded so far is kept.
            StreamUnfitError: a stream has another clock's stamps from the start.
        """
        for track in self._tracks:
            track.step()
        if self.clock.now() >= self._t_sync_s + SYNC_EVERY_S:
            self._sync()

    def close(self) -> None:
        """End the file in order."""
        if self._handle < 0:
            return
        for track in self._tracks:
            track.end()
        self._sync()
        self.release()

    def release(self) -> None:
        """Release the file and the streams, whether or not the recording has ended in order."""
        for track in self._tracks:
            track.release()
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = -1
        self._pool.shutdown(wait=False, cancel_futures=True)

    def status(self) -> dict[str, Any]:
        """Return the state: bytes, each stream's samples, newest stamp and clock, and losses."""
        return {
            "t_s": self.clock.now(),
            "bytes": self.n_bytes,
            "stamps": "arrival" if self.by_arrival else "lsl",
            "streams": {track.name: track.status() for track in self._tracks},
            "outages": [one.as_json() for track in self._tracks for one in track.outages],
            "lost": [text for track in self._tracks for text in track.lost()],
        }

    def _sync(self) -> None:
        self._write(xdf.frame(xdf.BOUNDARY, xdf.BOUNDARY_MARK))
        try:
            os.fsync(self._handle)
        except OSError as err:
            raise self._refused(err) from err
        self._t_sync_s = self.clock.now()

    def _write(self, held: bytes) -> None:
        try:
            xdf.append(self._handle, held)
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
    stamps: Literal["lsl", "arrival"] = "lsl",
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Record until told to stop, or for so long.

    A stream that goes away is looked for by its type, name and host, and recorded on as a further
    stream of the file.

    Args:
        wanted: the streams; each must match exactly one.
        path: XDF to write; must not exist.
        seconds: how long; None for until `is_stopped`.
        wait_s: how long to look for each stream.
        is_stopped: asked 20 times a second.
        status_path: where to say how it stands, twice a second (JSON, replaced as a whole).
        stamps: "lsl" for the senders' own, or "arrival".
        say: tells the user something now.

    Returns:
        As `Recorder.status`; under `lost` what is missing, a sentence each.

    Raises:
        RecordingError: the disk refuses.
        StreamAbsentError, StreamAmbiguousError: a stream is not there, or there several times.
        StreamUnfitError: a stream has another clock's stamps; nothing is recorded then.
    """
    clock = MonotonicClock()
    recorder = Recorder(path, clock, say, stamps == "arrival")
    if recorder.by_arrival:
        say(BY_ARRIVAL)
    recorder.open(find_all(wanted, wait_s), wanted)
    t_start_s = t_next_s = clock.now()
    t_end_s = float("inf") if seconds is None else t_start_s + seconds
    try:
        while clock.now() < t_end_s and not is_stopped():
            recorder.step()
            t_next_s = _write_status(recorder, status_path, t_next_s)
            clock.sleep_until(clock.now() + STEP_EVERY_S)
        clock.sleep_until(clock.now() + LATE_S)
        recorder.step()
        recorder.close()
    except StreamUnfitError:
        path.unlink(missing_ok=True)
        raise
    finally:
        recorder.release()
    _write_status(recorder, status_path, 0.0)
    return recorder.status()


def _write_status(recorder: Recorder, path: Path | None, t_next_s: float) -> float:
    """Say how it stands when it is time; when that is next."""
    now_s = recorder.clock.now()
    if path is None or now_s < t_next_s:
        return t_next_s
    with suppress(OSError):  # the recording itself tells of a full disk
        write_whole(path, json.dumps(recorder.status()))
    return now_s + SYNC_EVERY_S
