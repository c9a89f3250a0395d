"""Messages to browsers: made once, however many there are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from service.page.room import SLOW_EVERY_S, Room
from streams.wire.client import DaemonClient


class Inputs(Protocol):
    """A running daemon, or a recording, as it is shown."""

    @property
    def room(self) -> Room:
        """All that is known; another one once a recording was wound to another time."""

    @property
    def client(self) -> DaemonClient | None:
        """The daemon's; None where nothing can be commanded."""

    def drain(self) -> float:
        """Take in all that came; return the time now."""

    def recorded(self) -> Mapping[str, Any] | None:
        """Return where the recording stands; None for a running daemon."""

    def obey(self, said: Mapping[str, Any]) -> None:
        """Wind a recording, or stop it; what is no such thing is ignored."""

    def close(self) -> None:
        """End all threads."""


class Browser(Protocol):
    """One browser that is connected."""

    order: str
    next_column: int
    version: int

    @property
    def is_behind(self) -> bool:
        """True while what was sent before is still on its way."""

    def send(self, payload: bytes, *, binary: bool = False) -> None:
        """Send a message."""

    def close(self) -> None:
        """Close the connection."""


class Browsers:
    """Browsers that are connected; one thread owns it.

    Args:
        inputs: what they are shown.
    """

    def __init__(self, inputs: Inputs) -> None:
        self.connected: set[Browser] = set()
        self._inputs, self._room = inputs, inputs.room
        self._t_slow_s, self._is_anew = -math.inf, False

    def push(self, now_s: float) -> None:
        """Send each browser what is new; one that is behind misses pictures, no columns."""
        if self._inputs.room is not self._room:
            self._begin_anew()
            return
        ready = [one for one in self.connected if not one.is_behind]
        if self._is_anew and self.connected and not ready:
            return  # what led up to the moment is told once: to browsers that can take it
        self._is_anew = False
        fast = self._room.tick(now_s)
        touched = self._room.raster.touched()
        for one in self.connected:
            if one not in ready:
                one.next_column = min(one.next_column, touched)
        if not ready:
            return
        self._push_columns(ready, touched)
        _send_all(ready, fast)
        if now_s - self._t_slow_s > SLOW_EVERY_S:
            self._t_slow_s = now_s
            _send_all(ready, self._room.slow(now_s) | {"recorded": self._inputs.recorded()})

    def _begin_anew(self) -> None:
        """Forget what was sent: a recording was wound to another time."""
        self._room, self._t_slow_s, self._is_anew = self._inputs.room, -math.inf, True
        for one in self.connected:
            one.version, one.next_column = -1, 0
            one.send(_encoded({"kind": "anew"}))

    def obey(self, said: Mapping[str, Any]) -> None:
        """Pass on what a browser asked of a recording."""
        self._inputs.obey(said)

    def _push_columns(self, ready: list[Browser], touched: int) -> None:
        made: dict[tuple[str, int], bytes] = {}
        for one in ready:
            if one.version != self._room.version:
                one.version, one.next_column = self._room.version, 0
                one.send(_encoded(self._room.rows_told(one.order)))
            rows = self._room.rows.get(one.order)
            if rows is None or not len(rows.order):
                continue
            wanted = (one.order, min(one.next_column, touched))
            if wanted not in made:
                made[wanted] = self._room.raster.columns(wanted[1], rows)
            one.send(made[wanted], binary=True)
            one.next_column = self._room.raster.head

    def close(self) -> None:
        """Close every connection."""
        for one in list(self.connected):
            one.close()


def _send_all(ready: list[Browser], message: dict[str, Any]) -> None:
    payload = _encoded(message)
    for one in ready:
        one.send(payload)


def _encoded(message: dict[str, Any]) -> bytes:
    return msgspec.json.encode(message)
