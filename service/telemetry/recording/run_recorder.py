"""The daemon's side of the recording: a thread that feeds the recorder process and watches it.

The loop never waits for it. What the recorder does not take waits in a bounded buffer; a recorder
that does nothing for long, ends, or has no room on its disk is replaced, and the record says where
the hole is.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.guard import Guard
from service.telemetry.recording.behavior_recorder import BehaviorRecorder
from service.telemetry.recording.frames import (
    BEGIN_PART,
    FOLLOWED_BY,
    PART_FILE,
    RECORDS,
    RUN_FOLDER,
    record,
)
from service.telemetry.recording.recorder_pipe import RecorderPipe
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
Report = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class RecordingLimits:
    """Limits of what is kept.

    Attributes:
        limit_bytes: of all recordings in the folder; 0 for no limit.
        part_bytes: a part's size, after which the next begins.
    """

    limit_bytes: int
    part_bytes: int


class RunRecorder(threading.Thread):
    """Feeds a recorder, and replaces it where it fails.

    Args:
        journal: what is noted there is recorded.
        folder: of all recordings; made if need be.
        limits: how much is kept.
        facts: about the run, for each part's header; `run_id` and `follows` among them.
        keys: the source's growing key list.
        clock: the daemon's.
        report: called with (event, detail).
        leave_cores: cores that the recorder keeps off, if there are others.
        behavior: streams that are recorded beside the run, as `spikeloop record` takes them.

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
        leave_cores: Collection[int] = (),
        behavior: Sequence[str] = (),
    ) -> None:
        super().__init__(name="recorder", daemon=True)
        began = datetime.now(UTC)
        self.run_folder = folder.absolute() / f"{began:%Y%m%dT%H%M%SZ}-{facts['run_id']}"
        self.failure, self.n_bytes, self.n_lost = "", 0, 0
        self._journal, self._limits = journal, limits
        self._facts = facts | {"began": began.isoformat()}
        self._keys, self._clock, self._report = keys, clock, report
        self._pipe: RecorderPipe | None = None
        self._cores = _cores_beside(set(leave_cores))
        self._behavior = BehaviorRecorder(behavior, self.run_folder, clock, self._cores)
        self._segment = self._part = self._part_bytes = self._bytes_before = self._n_keys = 0
        # What is noted before a checkpoint has lost what came before it.
        self._lacks_checkpoint, self._n_lost_before = True, 0
        self._t_heard_s = self._t_again_s = self._t_began_s = 0.0
        self._again_after_s = AGAIN_AFTER_S
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
        if not self._has_tried.wait(BEGINS_WITHIN_S):  # a disk that hangs must not keep the daemon
            self._tell_failure(f"the disk did not answer within {BEGINS_WITHIN_S:g} s")

    def stop(self) -> None:
        """Hand over what is left and wait until it is on the disk, for some seconds at most."""
        self._stopping.set()
        self._journal.hurry()
        self.join(timeout=2.5 * ENDS_WITHIN_S)

    def run(self) -> None:
        """Feed the recorder until told to stop."""
        self._feed()
        self._has_tried.set()
        while not self._stopping.is_set():
            self._journal.wait(FETCH_EVERY_S)
            with Guard(Exception, self._broke):
                self._look_at_behavior()
            self._feed()
        with Guard(Exception, self._broke):
            if self._pipe is not None:
                self._finish(self._pipe)
            self._behavior.stop(ENDS_WITHIN_S)

    def _look_at_behavior(self) -> None:
        if self._behavior.look():
            detail = {"folder": str(self.run_folder), "warning": self._behavior.failure}
            self._report("behavior_unrecorded", detail)

    def _feed(self) -> None:
        with Guard(Exception, self._broke):  # it is told, and tried again; decodes go on
            if self._pipe is not None:
                self._turn(self._pipe)
            elif self._clock.now() >= self._t_again_s:
                self._try_to_record()

    def _broke(self, err: Exception) -> None:
        self._fail(f"recording failed: {type(err).__name__}: {err}")

    def _turn(self, pipe: RecorderPipe) -> None:
        """Fetch, pack, hand over, and look how the recorder is."""
        self._pack(pipe)
        pipe.hand_over()
        code = pipe.code  # asked first: what it says last is heard then
        if why := self._listen(pipe) or self._complaint(pipe, code):
            self._fail(why)
        elif self._part_bytes >= self._limits.part_bytes or not self._journal.is_open:
            self._journal.wants_checkpoint = True

    def _complaint(self, pipe: RecorderPipe, code: int | None) -> str:
        """Return why a recorder is to be replaced; "" if it is well."""
        if code is not None:
            return f"the recorder ended with code {code}"
        if pipe.n_waiting > WAITING_BYTES:
            return "the disk is too slow"
        if self._clock.now() - self._t_heard_s > STANDS_STILL_S:
            return f"the recorder did nothing for {STANDS_STILL_S:g} s"
        return ""

    def _pack(self, pipe: RecorderPipe) -> None:
        held: list[bytes] = []
        for note in self._journal.fetch():
            if isinstance(note, Checkpoint):
                pipe.put(RECORDS, held)
                pipe.put(BEGIN_PART, [record(encode_record(self._header()))])
                self._note_begun(note)
                held = []
            if self._lacks_checkpoint:
                continue
            if len(self._keys) > self._n_keys:
                new = self._keys[self._n_keys :]
                self._n_keys += len(new)
                held.append(record(encode_record(Keys(new))))
            held.append(record(encode_record(record_of(note))))
        pipe.put(RECORDS, held)

    def _header(self) -> Header:
        keys = list(self._keys)
        self._n_keys = len(keys)
        return Header(self._facts, keys, dict(self._journal.decoders))

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

    def _listen(self, pipe: RecorderPipe) -> str:
        """Take in what the recorder said; return why it failed, "" if it did not."""
        for told in pipe.heard():
            self._t_heard_s = self._clock.now()
            if "error" in told:
                return str(told["error"])
            if "removed" in told:
                limit_gb = self._limits.limit_bytes / 1e9
                removed = {"parts": told["removed"], "limit_gb": limit_gb}
                self._report("recordings_removed", removed)
                continue
            if told["part"] == self._part:  # not of the part before the newest
                self._part_bytes = told["part_bytes"]
            self.n_bytes = self._bytes_before + told["bytes"]
            if self._t_heard_s - self._t_began_s > WELL_AFTER_S:
                self._again_after_s = AGAIN_AFTER_S
        return ""

    def _try_to_record(self) -> None:
        """Start a recorder, and ask the loop for a checkpoint to begin with."""
        try:
            self.run_folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.run_folder.mkdir(mode=0o700, exist_ok=True)
            self._pipe = self._start()
        except OSError as err:
            self._fail(f"cannot write {self.run_folder}: {err.strerror or err}")
            return
        if self._segment == 0:
            self._tell_the_run_before()
        self._lacks_checkpoint = True
        self._t_began_s = self._t_heard_s = self._clock.now()
        self._segment += 1
        self._journal.wants_checkpoint = True

    def _start(self) -> RecorderPipe:
        written = [one.name for one in self.run_folder.iterdir() if PART_FILE.fullmatch(one.name)]
        self._part = max((int(name[5:11]) for name in written), default=0)
        return RecorderPipe(
            [
                str(self.run_folder), self._facts["run_id"], str(self._segment),
                str(self._part + 1), str(self._limits.limit_bytes), ",".join(map(str, self._cores)),
            ]
        )  # fmt: skip

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
        self._tell_failure(why)
        self._journal.leave_out()
        self._lacks_checkpoint = True
        self._bytes_before, self._part_bytes = self.n_bytes, 0
        if self._pipe is not None:
            self._n_lost_before += self._pipe.n_on_the_way
            self._pipe.kill()
            self._pipe = None
        self._t_again_s = self._clock.now() + self._again_after_s
        self._again_after_s = min(2 * self._again_after_s, AGAIN_AT_MOST_S)

    def _tell_failure(self, why: str) -> None:
        is_new, self.failure = not self.failure, why
        if is_new:
            self._report("recording_failed", {"folder": str(self.run_folder), "warning": why})

    def _finish(self, pipe: RecorderPipe) -> None:
        self._pack(pipe)
        t_end_s = self._clock.now() + ENDS_WITHIN_S
        pipe.hand_over()
        while pipe.n_waiting and pipe.code is None and self._clock.now() < t_end_s:
            self._clock.sleep_until(self._clock.now() + 1e-3)
            pipe.hand_over()
        pipe.end(ENDS_WITHIN_S)


def _cores_beside(leave: set[int]) -> set[int]:
    """Return the cores that a process beside the daemon may use; none where all are the same."""
    if sys.platform != "linux":
        return set()
    may_use = os.sched_getaffinity(os.getppid())  # the daemon may be kept on its own by now
    return may_use - leave or may_use
