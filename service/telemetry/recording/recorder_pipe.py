"""The recorder process, at the other end of a pipe that never blocks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.telemetry.recording.frames import message

KILLED_WITHIN_S = 1.0
PIPE_BYTES = 2**20
RECORDER = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from service.telemetry.recording.recorder_process import main; sys.exit(main())"
)
_F_SETPIPE_SZ = 1031


class RecorderPipe:
    """Hands messages to a recorder, and hears what it says.

    Attributes:
        n_waiting: bytes that the recorder has not taken yet.

    Args:
        arguments: the recorder's, see `recorder_process.main`.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        root = str(Path(__file__).parents[3])
        # Without site packages: it starts in hundredths of a second, whatever is installed.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", RECORDER, root, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is not for it
            cwd="/",
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        for pipe in (self._to, self._from):
            os.set_blocking(pipe.fileno(), False)
        _enlarge(self._to.fileno())
        self.n_waiting = 0
        self._waiting: deque[memoryview] = deque()
        self._on_the_way: deque[int] = deque()
        self._n_written, self._said = 0, b""

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    @property
    def n_on_the_way(self) -> int:
        """Records that it has not said to have written."""
        return sum(self._on_the_way)

    def put(self, kind: bytes, records: Sequence[bytes]) -> None:
        """Queue a message of these records, if there are any."""
        if records:
            packed = message(kind, b"".join(records))
            self._on_the_way.append(len(records))
            self._waiting.append(memoryview(packed))
            self.n_waiting += len(packed)

    def hand_over(self) -> None:
        """Write as much as it takes now."""
        with contextlib.suppress(OSError):  # it takes no more, or has ended, which `code` tells
            while self._waiting:
                n = os.write(self._to.fileno(), self._waiting[0])
                self.n_waiting -= n
                left = self._waiting.popleft()[n:]
                if left:
                    self._waiting.appendleft(left)

    def heard(self) -> list[dict[str, Any]]:
        """Return what it said since the last time."""
        with contextlib.suppress(BlockingIOError):
            self._said += os.read(self._from.fileno(), 2**16)
        *lines, self._said = self._said.split(b"\n")
        told: list[dict[str, Any]] = [json.loads(line) for line in lines]
        for one in told:
            while self._n_written < one.get("messages", 0):
                self._n_written += 1
                self._on_the_way.popleft()
        return told

    def end(self, within_s: float) -> None:
        """Let it write what it has and end."""
        with contextlib.suppress(OSError):
            self._to.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        self._from.close()

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(KILLED_WITHIN_S)  # one that waits for a hung disk does not even die
        for pipe in (self._to, self._from):
            with contextlib.suppress(OSError):
                pipe.close()


def _enlarge(pipe: int) -> None:
    """Let a pipe hold more, where the system lets it."""
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, _F_SETPIPE_SZ, PIPE_BYTES)
