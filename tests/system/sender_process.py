"""A source in a process of its own, that goes on whatever the test does meanwhile."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

SEND = """
import sys
from service.daemon.realtime import set_priority
from streams.clock import MonotonicClock
from tests.system.sources import Living

set_priority(1)  # an amplifier keeps time, whatever else this machine does
source, clock = Living(sys.argv[1], sys.argv[2].split(",")), MonotonicClock()
while True:
    source.send_due()
    clock.sleep_until(clock.now() + 2e-3)
"""


class SenderProcess:
    """Sends a spike every 10 ms, and keep-alives, until it is closed.

    Args:
        name: of the stream, and its source_id.
        keys: of its units.
        hostname: that LSL shall know its machine by; needs root. None for this one's.

    Attributes:
        pid: its process.
    """

    def __init__(self, name: str, keys: Sequence[str], hostname: str | None = None) -> None:
        command = [sys.executable, "-c", SEND, name, ",".join(keys)]
        if hostname is not None:
            renamed = ["sh", "-c", 'hostname "$0" && exec "$@"', hostname, *command]
            command = ["unshare", "--uts", *renamed]
        self._popen = subprocess.Popen(command)
        self.pid = self._popen.pid

    def close(self) -> None:
        """End it."""
        self._popen.kill()
        self._popen.wait()
