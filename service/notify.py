"""Tell systemd how the daemon is: ready, alive with every beat, stopping (`Type=notify`).

The protocol is a datagram of `NAME=VALUE` lines to the socket that `NOTIFY_SOCKET` names; see
sd_notify(3). The guardian speaks, as systemd started it: `NotifyAccess=main` is enough.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

ALIVE_EVERY_S = 0.1
"""Most beats are not told; systemd's shortest sensible watchdog is ten times as long."""
MORE_TIME_US = 5_000_000
"""Asked for again and again while a start takes long: a decoder is compiled the first time."""


class Supervisor:
    """The service manager that started this process, if one did.

    Args:
        address: of its socket; "" tells nobody. `@` begins an abstract one.
    """

    def __init__(self, address: str) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._is_ready = False
        self._place: object = None
        self._t_next_s = 0.0

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Supervisor:
        """Return the one that the environment names."""
        return cls(environment.get("NOTIFY_SOCKET", ""))

    def alive(self, place: object, t_s: float, *, is_starting: bool) -> None:
        """Note how far the daemon is; called only while it is not overdue.

        Args:
            place: differs once another beat is over.
            t_s: now.
            is_starting: it has not reached its beats, and may take its time.
        """
        if t_s < self._t_next_s or (place == self._place and not is_starting):
            return
        self._place, self._t_next_s = place, t_s + ALIVE_EVERY_S
        if is_starting:
            # Also when a fallback is opened in the place of a backend that hung.
            self._say(f"EXTEND_TIMEOUT_USEC={MORE_TIME_US}\nWATCHDOG=1")
            return
        if not self._is_ready:
            self._is_ready = True
            self._say("READY=1\nSTATUS=decoding")
        self._say("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the end was asked for."""
        self._say("STOPPING=1\nSTATUS=stopping")

    def _say(self, lines: str) -> None:
        if not self._address:
            return
        # A manager that is slow, or gone, must not hold up the guardian.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to_manager,
        ):
            to_manager.setblocking(False)
            to_manager.sendto(lines.encode(), self._address)
