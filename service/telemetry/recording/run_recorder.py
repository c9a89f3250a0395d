"""The daemon's side of the recording: a thread that feeds the recorder process and watches it.

The loop never waits for it. What the recorder does not take waits in a bounded buffer; a recorder
that takes nothing for long, ends, or has no room on its disk is replaced, and the record says where
the hole is.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.telemetry.recording.frames import (
    BEGIN_PART,
    FOLLOWED_BY,
    PART_FILE,
    RECORDS,
    RUN_FOLDER,
    message,
    record,
)
from service.telemetry.recording.records import Checkpoint, Header, Keys, encode_record
from service.telemetry.recording.run_journal import RunJournal, record_of
from streams.clock import Clock

FETCH_EVERY_S = 0.1
WAITING_BYTES = 2**24
"""What may wait for the recorder: 40 s of 1,000 units at 20 Hz."""
STANDS_STILL_S = 5.0
"""A recorder that says nothing for so long is replaced; a disk may well take a second or two."""
AGAIN_AFTER_S, AGAIN_AT_MOST_S, WELL_AFTER_S = 1.0, 60.0, 30.0
BEGINS_WITHIN_S, ENDS_WITHIN_S = 5.0, 2.0
KILLED_WITHIN_S = 1.0
PIPE_BYTES = 2**20
_F_SETPIPE_SZ = 1031
_RUN = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from service.telemetry.recording.recorder_process import main; sys.exit(main())"
)
Report = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class RecordingLimits:
    """How much is kept.

    Attributes:
        limit_bytes: of all recordings in the folder; 0 for no limit.
        part_bytes: a part's size, after which the next begins.
    """

    limit_bytes: int
    part_bytes: int


class RunRecorder(threading.Thread):
    """Feeds the recorder process.

    Args:
        journal: what is noted there is recorded.
        folder: of all recordings; made if need be.
        limits: how much is kept.
        facts: about the run, for each part's header; `run_id` and `follows` among them.
        keys: the source's growing key list.
        clock: the daemon's.
        report: called with (event, detail).

    Attributes:
        run_folder: the run's folder.
        failure: why nothing is recorded now; "" while all is well.
        n_bytes: written in this run.
        n_lost: records that were lost in holes.
    """

    def __init__(
        self,
        journal: RunJournal,
        folder: Path,
        limits: RecordingLimits,
        facts: dict[str, Any],
        keys: list[str],
        clock: Clock,
        report: Report,
    ) -> None:
        super().__init__(name="recorder", daemon=True)
        self._journal = journal
        began = datetime.now(UTC)
        self.run_folder = folder.absolute() / f"{began:%Y%m%dT%H%M%SZ}-{facts['run_id']}"
        self.failure, self.n_bytes, self.n_lost = "", 0, 0
        self._limits, self._keys, self._clock, self._report = limits, keys, clock, report
        self._facts = facts | {"began": began.isoformat()}
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: deque[memoryview] = deque()
        self._n_waiting = self._n_keys = self._part = self._part_bytes = 0
        self._segment = 0
        self._lacks_checkpoint = True
        self._bytes_before = 0
        self._said = b""
        self._on_the_way: deque[int] = deque()
        self._n_written = self._n_lost_before = 0
        self._t_heard_s = self._t_again_s = self._t_began_s = 0.0
        self._again_after_s = AGAIN_AFTER_S
        self._cores = ""
        if sys.platform == "linux":
            self._cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        self._stopping, self._has_tried = threading.Event(), threading.Event()

    @property
    def status(self) -> dict[str, Any]:
        """The recording's state, for `status`."""
        return {
            "folder": str(self.run_folder),
            "bytes": self.n_bytes,
            "lost": self.n_lost,
            "failure": self.failure,
        }

    def begin(self) -> None:
        """Start the thread and the first recorder; returns when it runs, while no beat is near."""
        self.start()
        self._has_tried.wait(BEGINS_WITHIN_S)  # a disk that hangs must not keep the daemon

    def run(self) -> None:
        """Feed the recorder until told to stop."""
        try:
            self._try_to_record()
            self._has_tried.set()
            while not self._stopping.is_set():
                self._journal.wait(FETCH_EVERY_S)
                if self._process is not None:
                    self._turn()
                elif self._clock.now() >= self._t_again_s:
                    self._try_to_record()
            self._finish()
        except Exception as err:  # noqa: BLE001 - the thread's one guard: a lost record is told
            self._fail(f"recording failed: {type(err).__name__}: {err}")

    def stop(self) -> None:
        """Hand over what is left and wait until it is on the disk, for some seconds at most."""
        self._stopping.set()
        self._journal.hurry()
        self.join(timeout=2.5 * ENDS_WITHIN_S)

    def _turn(self) -> None:
        """Fetch, encode, hand over, and look how the recorder is."""
        self._encode()
        self._hand_over()
        self._listen()
        process, t_s = self._process, self._clock.now()
        if process is None:
            return
        if process.poll() is not None:
            self._listen()  # to its last words
            self._fail(f"the recorder ended with code {process.returncode}")
        elif self._n_waiting > WAITING_BYTES:
            self._fail("the disk is too slow")
        elif t_s - self._t_heard_s > STANDS_STILL_S:
            self._fail(f"the recorder did nothing for {STANDS_STILL_S:g} s")
        elif self._part_bytes >= self._limits.part_bytes or not self._journal.is_open:
            self._journal.wants_checkpoint = True

    def _encode(self) -> None:
        held: list[bytes] = []
        for note in self._journal.fetch():
            if isinstance(note, Checkpoint):
                self._put(RECORDS, held)
                self._put(BEGIN_PART, [record(encode_record(self._header()))])
                self._note_begun(note)
                held = []
            # What was noted while the recorder was replaced has lost what came before it.
            if self._lacks_checkpoint:
                continue
            if len(self._keys) > self._n_keys:
                new = self._keys[self._n_keys :]
                self._n_keys += len(new)
                held.append(record(encode_record(Keys(new))))
            held.append(record(encode_record(record_of(note))))
        self._put(RECORDS, held)

    def _note_begun(self, checkpoint: Checkpoint) -> None:
        """Note that a part begins, and tell it if the record was interrupted."""
        n_lost, self._n_lost_before = checkpoint.n_lost + self._n_lost_before, 0
        self.n_lost += n_lost
        self._part, self._part_bytes = self._part + 1, 0
        if not self._lacks_checkpoint and not checkpoint.n_lost:
            return
        detail: dict[str, Any] = {"folder": str(self.run_folder), "beat": checkpoint.k}
        if self.failure or n_lost:
            detail |= {"after": self.failure or "the disk is too slow", "lost": n_lost}
        self.failure, self._lacks_checkpoint = "", False
        self._report("recording", detail)

    def _header(self) -> Header:
        keys = list(self._keys)
        self._n_keys = len(keys)
        return Header(self._facts, keys, dict(self._journal.decoders))

    def _put(self, kind: bytes, held: list[bytes]) -> None:
        if held:
            packed = message(kind, b"".join(held))
            self._on_the_way.append(len(held))
            self._waiting.append(memoryview(packed))
            self._n_waiting += len(packed)

    def _hand_over(self) -> None:
        """Write as much as the recorder takes now."""
        process = self._process
        if process is None or process.stdin is None:
            return
        try:
            while self._waiting:
                n = os.write(process.stdin.fileno(), self._waiting[0])
                self._n_waiting -= n
                left = self._waiting.popleft()[n:]
                if left:
                    self._waiting.appendleft(left)
        except BlockingIOError:
            return
        except OSError:
            return  # it has ended; what it said tells why

    def _listen(self) -> None:
        """Take in what the recorder said."""
        if self._process is None or self._process.stdout is None:
            return
        with contextlib.suppress(BlockingIOError):
            self._said += os.read(self._process.stdout.fileno(), 2**16)
        *lines, self._said = self._said.split(b"\n")
        for line in lines:
            self._t_heard_s = self._clock.now()
            self._heard(json.loads(line))

    def _heard(self, told: dict[str, Any]) -> None:
        if "error" in told:
            self._fail(told["error"])
        elif "removed" in told:
            limit_gb = self._limits.limit_bytes / 1e9
            self._report("recordings_removed", {"parts": told["removed"], "limit_gb": limit_gb})
        elif "bytes" in told:
            if told["part"] == self._part:  # not of the part before the newest
                self._part_bytes = told["part_bytes"]
            self.n_bytes = self._bytes_before + told["bytes"]
            while self._n_written < told["messages"]:
                self._n_written += 1
                self._on_the_way.popleft()
            if self._clock.now() - self._t_began_s > WELL_AFTER_S:
                self._again_after_s = AGAIN_AFTER_S

    def _try_to_record(self) -> None:
        """Start a recorder; the journal is told once it may go on."""
        try:
            self.run_folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.run_folder.mkdir(mode=0o700, exist_ok=True)
            self._process = self._start()
        except OSError as err:
            self._fail(f"cannot write {self.run_folder}: {err.strerror or err}")
            return
        if self._segment == 0:
            self._tell_the_run_before()
        self._lacks_checkpoint = True
        self._t_began_s = self._t_heard_s = self._clock.now()
        self._segment += 1
        self._journal.wants_checkpoint = True

    def _start(self) -> subprocess.Popen[bytes]:
        written = [one.name for one in self.run_folder.iterdir() if PART_FILE.fullmatch(one.name)]
        self._part = max((int(name[5:11]) for name in written), default=0)
        root = Path(__file__).parents[3]
        process = subprocess.Popen(
            [
                sys.executable, "-I", "-S", "-c", _RUN, str(root), str(self.run_folder),
                self._facts["run_id"], str(self._segment), str(self._part + 1),
                str(self._limits.limit_bytes), self._cores,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
        )  # fmt: skip
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
        if process.stdin is not None and sys.platform == "linux":
            import fcntl

            with contextlib.suppress(OSError):
                fcntl.fcntl(process.stdin.fileno(), _F_SETPIPE_SZ, PIPE_BYTES)
        return process

    def _tell_the_run_before(self) -> None:
        """Let the run that this one follows name it, as this one names that."""
        follows = self._facts.get("follows") or "?"
        for run in self.run_folder.parent.iterdir():
            if RUN_FOLDER.fullmatch(run.name) and run.name.endswith(f"-{follows}"):
                with contextlib.suppress(OSError):
                    path = run / FOLLOWED_BY
                    path.touch(mode=0o600)
                    path.write_text(self.run_folder.name + "\n")

    def _fail(self, why: str) -> None:
        """Give the recorder up; another one is started later, and later the more often it fails."""
        is_new = not self.failure
        self.failure = why
        self._journal.leave_out()
        self._lacks_checkpoint = True
        self._n_lost_before += sum(self._on_the_way)
        self._on_the_way.clear()
        self._waiting.clear()
        self._n_waiting, self._n_written, self._said = 0, 0, b""
        self._bytes_before, self._part_bytes = self.n_bytes, 0
        if self._process is not None:
            _kill(self._process)
            self._process = None
        self._t_again_s = self._clock.now() + self._again_after_s
        self._again_after_s = min(2 * self._again_after_s, AGAIN_AT_MOST_S)
        if is_new:
            self._report("recording_failed", {"folder": str(self.run_folder), "warning": why})

    def _finish(self) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        self._encode()
        t_end_s = self._clock.now() + ENDS_WITHIN_S
        while self._waiting and process.poll() is None and self._clock.now() < t_end_s:
            self._hand_over()
            self._clock.sleep_until(self._clock.now() + 1e-3)
        with contextlib.suppress(OSError):
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ENDS_WITHIN_S)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(KILLED_WITHIN_S)  # one that waits for a disk that hangs does not even die
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
