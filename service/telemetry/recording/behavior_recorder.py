"""Behaviour beside a recorded run: `spikeloop record` in a process of its own, into its folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from service.telemetry.recording.frames import BEHAVIOR, BEHAVIOR_FILE
from streams.clock import Clock

RECORD = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from service.cli import main; sys.exit(main(sys.argv[1:]))"
)
WAITS_S = 1e6
"""Streams of a task may come hours after the daemon: waiting costs nothing."""
AGAIN_AFTER_S = 10.0
POLITELY = 10


class BehaviorRecorder:
    """Keeps a process that records streams into a run's folder; one thread owns it.

    The daemon itself never pulls these streams. A process that ends is replaced, and its successor
    begins a file of its own.

    Args:
        streams: as `spikeloop record` takes them; none for no recorder.
        folder: the run's.
        clock: the daemon's.
        cores: that it may use; none for any.

    Attributes:
        failure: what the last one that ended said; "" while all is well.
    """

    def __init__(
        self, streams: Sequence[str], folder: Path, clock: Clock, cores: Collection[int] = ()
    ) -> None:
        self.failure = ""
        self._streams, self._folder, self._clock = list(streams), folder, clock
        self._cores = set(cores)
        self._process: subprocess.Popen[bytes] | None = None
        self._t_again_s = 0.0

    def look(self) -> bool:
        """Start the process, or another where it ended; return True where it failed just now."""
        if not self._streams or self._clock.now() < self._t_again_s:
            return False
        if self._process is None:
            return self._folder.is_dir() and not self._start()
        code = self._process.poll()
        if code is None:
            return False
        self._fail(f"`spikeloop record` ended with code {code}")
        return True

    def _fail(self, why: str) -> None:
        self.failure, self._process = why, None
        self._t_again_s = self._clock.now() + AGAIN_AFTER_S

    def _start(self) -> bool:
        chosen = [argument for stream in self._streams for argument in ("--stream", stream)]
        try:
            held = [one for one in self._folder.iterdir() if BEHAVIOR_FILE.fullmatch(one.name)]
            path = self._folder / BEHAVIOR.format(len(held) + 1)
            command = [
                sys.executable, "-c", RECORD, str(Path(__file__).parents[3]), "record", str(path),
                *chosen, "--wait", str(WAITS_S), "--until-stdin-ends",
            ]  # fmt: skip
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # ends with the daemon, however that ends
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal is not for it
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        except OSError as err:
            self._fail(f"no process for `spikeloop record`: {err.strerror or err}")
            return False
        self.failure = ""
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, POLITELY)
            if self._cores:
                os.sched_setaffinity(self._process.pid, self._cores)
        return True

    def stop(self, within_s: float) -> None:
        """Let it write what it has, and end."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
