"""The recorder: a process that writes what the daemon hands over, until the daemon is gone.

It reads messages from its standard input and says on its standard output, a JSON object a line, how
far it is. It ends when its input ends, however the daemon ended, once everything is on the disk.
Only the standard library is imported: it starts in hundredths of a second and stays small.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from service.telemetry.recording.frames import (
    BEGIN_PART,
    BEHAVIOR_FILE,
    FOLLOWED_BY,
    PartHead,
    frame,
    part_name,
    parts_of,
    runs_in,
    take_message,
)

WRITE_EVERY_S, SYNC_EVERY_S, TELL_EVERY_S, LOOK_EVERY_S = 0.1, 0.25, 0.5, 10.0
FRAME_BYTES = 2**20
"""A frame is written once it holds so many bytes, or after `WRITE_EVERY_S`."""
READ_BYTES = 2**18
NAMED_AT_ONCE = 50
"""Removed parts that a line names: a pipe takes up to 4 KiB whole or not at all."""
NICENESS = 5
TRIES = 10


class Recorder:
    """Writes one segment of a run.

    Args:
        run: the run's folder, which exists.
        run_id: the run's.
        segment: number of this recorder in the run.
        first_part: number of its first part.
        limit_bytes: of all recordings beside this one and itself; 0 for no limit.
    """

    def __init__(
        self, run: Path, run_id: str, segment: int, first_part: int, limit_bytes: int
    ) -> None:
        self._run, self._run_id, self._segment = run, run_id, segment
        self._next_part, self._limit_bytes = first_part, limit_bytes
        self._file = -1
        self._records = bytearray()
        self._frame = self._part_bytes = self._bytes = 0
        self._n_taken = self._n_written = 0
        self._is_dirty = False
        self._t_written_s = self._t_synced_s = self._t_told_s = self._t_looked_s = 0.0
        self._path, self._has_frame = run, False
        self._removed: list[str] = []

    def take(self, kind: bytes, content: bytes) -> None:
        """Take a message of the daemon's."""
        if kind == BEGIN_PART:
            self._begin_part()
        self._records += content
        self._n_taken += 1
        if len(self._records) >= FRAME_BYTES:
            self._write()

    def turn(self, t_s: float) -> None:
        """Write, sync, tell and look at the disk where it is time."""
        if self._records and t_s - self._t_written_s >= WRITE_EVERY_S:
            self._write()
            self._t_written_s = t_s
        if self._is_dirty and t_s - self._t_synced_s >= SYNC_EVERY_S:
            os.fsync(self._file)
            self._is_dirty, self._t_synced_s = False, t_s
        if t_s - self._t_looked_s >= LOOK_EVERY_S:
            self._t_looked_s = t_s
            self._keep_limit()
        while self._removed and self.tell(removed=self._removed[:NAMED_AT_ONCE]):
            del self._removed[:NAMED_AT_ONCE]
        if t_s - self._t_told_s >= TELL_EVERY_S:
            self._t_told_s = t_s
            self.tell(
                part=self._next_part - 1, part_bytes=self._part_bytes, bytes=self._bytes,
                messages=self._n_written,
            )  # fmt: skip

    def end(self) -> None:
        """Put everything on the disk."""
        self._close_part()

    def drop_torn_frame(self) -> None:
        """After a failure: take back a frame that was not written whole."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                if not self._has_frame:
                    os.unlink(self._path)
                os.ftruncate(self._file, self._part_bytes)
                os.fsync(self._file)

    def tell(self, **told: Any) -> bool:
        """Say something to the daemon; return False if it does not listen now."""
        with contextlib.suppress(OSError):
            return os.write(1, json.dumps(told).encode() + b"\n") > 0
        return False

    def _begin_part(self) -> None:
        self._close_part()
        self._keep_limit()
        self._path, self._has_frame = self._run / part_name(self._next_part), False
        self._file = _made(self._path)
        head = PartHead(self._segment, self._next_part, self._frame, self._run_id)
        self._next_part += 1
        self._part_bytes = 0
        self._append(head.packed())
        for folder in (self._run, self._run.parent):
            _sync_folder(folder)

    def _close_part(self) -> None:
        if self._file < 0:
            return
        if self._records:
            self._write()
        os.fsync(self._file)
        os.close(self._file)
        self._file, self._is_dirty = -1, False

    def _write(self) -> None:
        self._append(frame(self._frame, bytes(self._records)))
        self._frame += 1
        self._n_written = self._n_taken
        self._has_frame = True
        self._records.clear()

    def _append(self, content: bytes) -> None:
        left = memoryview(content)
        while left:
            left = left[os.write(self._file, left) :]
        self._part_bytes += len(content)
        self._bytes += len(content)
        self._is_dirty = True

    def _keep_limit(self) -> None:
        """Remove the oldest parts while all recordings together exceed the limit."""
        if not self._limit_bytes:
            return
        held = [(one, _size(one)) for run in runs_in(self._run.parent) for one in _parts(run)]
        over = sum(size for _, size in held) - self._limit_bytes
        for path, size in held:
            if over <= 0:
                break
            if _remove(path):
                over -= size
                self._removed.append(f"{path.parent.name}/{path.name}")


def _made(path: Path) -> int:
    """Make a part and lock it: nobody removes one that is being written.

    Before the lock is taken another recorder may remove the part, or the folder with the last one.
    """
    for _ in range(TRIES):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        fcntl.flock(file, fcntl.LOCK_EX)
        if _is_at(path, file):
            return file
        os.close(file)
    raise FileNotFoundError(errno.ENOENT, "removed by somebody again and again", str(path))


def _is_at(path: Path, file: int) -> bool:
    """Return True if what is open is still what its path leads to."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.lstat(path), os.fstat(file))
    return False


def _parts(run: Path) -> list[Path]:
    try:
        return parts_of(run)
    except OSError:
        return []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _remove(path: Path) -> bool:
    """Remove a part that nobody writes, and its folder with the last one."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(path, file):  # removed, and perhaps made anew, before the lock was taken
            return False
        path.unlink()
    except OSError:
        return False
    finally:
        os.close(file)
    # What somebody else laid beside the parts stays, and the folder with it.
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        left = [one.name for one in entries]
        if all(one == FOLLOWED_BY or BEHAVIOR_FILE.fullmatch(one) for one in left):
            for one in left:
                (path.parent / one).unlink(missing_ok=True)
            path.parent.rmdir()
    return True


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _stand_aside(cores: str) -> None:
    """Give way to the daemon, whatever priority and cores it has."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    with contextlib.suppress(OSError, ValueError):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})


def record(recorder: Recorder) -> None:
    """Write what standard input brings until it ends."""
    held = bytearray()
    os.set_blocking(1, False)
    while True:
        ready, _, _ = select.select([0], [], [], WRITE_EVERY_S / 2)
        if ready:
            received = os.read(0, READ_BYTES)
            if not received:
                break
            held += received
            while (taken := take_message(held)) is not None:
                recorder.take(*taken)
        recorder.turn(time.monotonic())
    recorder.end()


def main() -> int:
    """Be the recorder: arguments are the run's folder, its id, segment, part, limit and cores."""
    # It must outlive the daemon by the moment that writing takes, whoever is asked to end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    folder, run_id, segment, part, limit, cores = sys.argv[1:]
    _stand_aside(cores)
    recorder = Recorder(Path(folder), run_id, int(segment), int(part), int(limit))
    try:
        record(recorder)
    except OSError as err:
        recorder.drop_torn_frame()
        recorder.tell(error=err.strerror or str(err))
        return 1
    return 0
