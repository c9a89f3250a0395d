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
path, ahead_s = (*sys.argv[3:], "", "0")[:2]
t_spike_s = None
while True:
    n = source.n_sent
    source.send_due()
    if path and source.n_sent > n:
        t_s = clock.now() - float(ahead_s)
        if t_spike_s is not None and t_s - t_spike_s > 0.018:
            with open(path, "a") as file:
                file.write(f"{t_spike_s} {t_s}\\n")
        t_spike_s = t_s
    clock.sleep_until(clock.now() + 2e-3)
"""
"""Arguments: the stream, its units; a file for silences of nearly a hop, and by what its clock is
ahead. A machine that stands still stops this amplifier, too, and leaves bins empty."""


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
