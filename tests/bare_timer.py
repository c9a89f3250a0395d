"""A bare timer beside the tests: it tells a machine that stood still from a program that did.

Live tests need their processes to run when they should. If the machine holds a process back for
longer than a hop, a right answer is late, and its test fails. Such a test is run again if the timer
was late meanwhile, or if processes queued for the cores most of the time: a timer that only sleeps
is let in before those that work. One that failed on a machine that kept time has failed.
"""

from __future__ import annotations

import mmap
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MOST_LATE_S = 0.01
"""Half a hop of the tests' daemons: sender and daemon may both be held back for so long."""
MOST_QUEUED = 0.5
"""Share of the time in which some process waited for a core."""
PRESSURE = Path("/proc/pressure/cpu")
_TIMER = """
import mmap, os, struct, sys, time
place = mmap.mmap(int(sys.argv[1]), 8)
parent = os.getppid()
while os.getppid() == parent:
    due = time.monotonic() + 0.004
    time.sleep(0.004)
    late = time.monotonic() - due
    if late > struct.unpack("d", place)[0]:
        place[:] = struct.pack("d", late)
"""


class BareTimer:
    """A process that sleeps 4 ms again and again, and keeps by how much it woke too late."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(8))
            file.flush()
            number = file.fileno()
            self._latest = mmap.mmap(number, 8)
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-E", "-c", _TIMER, str(number)], pass_fds=[number]
            )

        self.start()

    def start(self) -> None:
        """Forget what was before."""
        self._latest[:] = bytes(8)
        self._t_s, self._waited_s = time.monotonic(), _waited_s()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def latest_s(self) -> float:
        """By how much it was late at most since `start`, seconds."""
        return float(struct.unpack("d", self._latest)[0])

    @property
    def queued(self) -> float:
        """Share of the time since `start` in which processes queued for the cores; 0 if unknown."""
        return (_waited_s() - self._waited_s) / max(time.monotonic() - self._t_s, 1e-3)

    @property
    def was_late(self) -> bool:
        """True if the machine held processes back for longer than live tests can bear."""
        return self.latest_s > MOST_LATE_S or self.queued > MOST_QUEUED

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._latest.close()


def _waited_s() -> float:
    """Seconds since the machine's start in which some process waited for a core, as Linux tells."""
    try:
        some = PRESSURE.read_text().splitlines()[0]
    except OSError:  # not Linux, or a kernel that does not measure it
        return 0.0
    return int(some.rpartition("total=")[2]) * 1e-6
