"""A bare timer beside the tests: it tells a machine that stood still from a program that did.

Live tests need their processes to run when they should. If the machine holds a process back for
longer than a hop, a right answer is late, and its test fails. Such a test is run again if the timer
was late meanwhile; one that failed on a machine that kept time has failed.
"""

from __future__ import annotations

import mmap
import struct
import subprocess
import sys
import tempfile

MOST_LATE_S = 0.01
"""Half a hop of the tests' daemons: sender and daemon may both be held back for so long."""
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

    def start(self) -> None:
        """Forget what was before."""
        self._latest[:] = bytes(8)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def latest_s(self) -> float:
        """By how much it was late at most since `start`, seconds."""
        return float(struct.unpack("d", self._latest)[0])

    @property
    def was_late(self) -> bool:
        """True if the machine held a process back for longer than live tests can bear."""
        return self.latest_s > MOST_LATE_S

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._latest.close()
