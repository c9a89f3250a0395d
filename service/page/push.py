"""What is pushed to browsers: made once, however many there are."""

from __future__ import annotations

import math
from typing import Any, Protocol

import msgspec

from service.page.room import SLOW_EVERY_S, Room

ROWS_EVERY_S = 1.0


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
        room: tells what they are sent.
    """

    def __init__(self, room: Room) -> None:
        self.connected: set[Browser] = set()
        self._room = room
        self._t_slow_s = self._t_rows_s = -math.inf

    def push(self, now_s: float) -> None:
        """Send each browser what is new; one that is behind misses pictures, no columns."""
        fast = self._room.tick(now_s)
        touched = self._room.raster.touched()
        ready = [one for one in self.connected if not one.is_behind]
        for one in self.connected:
            if one not in ready:
                one.next_column = min(one.next_column, touched)
        if not ready:
            return
        self._push_columns(ready, touched)
        _send_all(ready, fast)
        if now_s - self._t_slow_s > SLOW_EVERY_S:
            self._t_slow_s = now_s
            _send_all(ready, self._room.slow(now_s))

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
