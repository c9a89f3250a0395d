"""Subscribers of a PUB socket: how much each asks for, and the end of those who ask too much.

libzmq bounds neither subscriptions nor their number, and it ends no connection on demand. It does
tell which descriptor a subscription came through, so that the connection is shut down there.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

EACH_AT_MOST, ALL_AT_MOST = 100, 10_000
"""Subscriptions of a connection, and of all; a topic each is what a client needs."""
CHANGES_AT_MOST = 10_000
"""Subscriptions and their ends that a connection may ask for in its life."""
PASS_S, AT_ONCE = 1.0, 200
"""All connections are looked at in so many seconds, but never more than so many in a call."""

Peer = tuple[object, ...]
T = TypeVar("T")


@dataclass(slots=True)
class _Connection:
    peer: Peer
    key: str
    n: int = 0
    n_changes: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """A connection that was ended: whose, by its public key ("" without keys), and why."""

    key: str
    why: str


class Subscribers:
    """The connections of one socket; its thread owns this.

    Args:
        may: tells whether a public key may still subscribe.
    """

    def __init__(self, may: Callable[[str], bool]) -> None:
        self._may = may
        self._held: dict[int, _Connection] = {}
        self._ended: dict[int, Peer] = {}
        self._n = 0
        self._round: list[int] = []
        self._n_round = 0
        self._t_looked_s, self._due = float("inf"), 0.0

    def __len__(self) -> int:
        """Connections that have subscribed."""
        return len(self._held)

    def note(self, descriptor: int, key: str, *, subscribes: bool) -> Ended | None:
        """Count a subscription or the end of one; end its connection if it is one too many.

        Args:
            descriptor: the connection's.
            key: the client's public key; "" without keys.
            subscribes: False where a subscription is given up.
        """
        peer = peer_of(descriptor)
        held = self._held.get(descriptor)
        if held is not None and held.peer != peer:
            self._forget(descriptor)
            held = None
        if peer is None:  # gone meanwhile
            return None
        if self._ended.get(descriptor) == peer:  # asked for before it was ended
            return None
        self._ended.pop(descriptor, None)
        if held is None:
            held = self._held[descriptor] = _Connection(peer, key)
        n_before, held.n = held.n, max(0, held.n + (1 if subscribes else -1))
        self._n += held.n - n_before
        held.n_changes += 1
        if not self._may(key):
            return self._end(descriptor, "its key is not in the list")
        if held.n > EACH_AT_MOST or held.n_changes > CHANGES_AT_MOST:
            return self._end(descriptor, f"over {EACH_AT_MOST} subscriptions")
        if subscribes and self._n > ALL_AT_MOST:
            return self._end(descriptor, f"over {ALL_AT_MOST} subscriptions of all clients")
        return None

    def look(self, t_s: float) -> list[Ended]:
        """Forget those who have gone, and end those whose key may not subscribe any more.

        A share of them a call, all within `PASS_S`: the system is asked about each, 5 us a time.

        Args:
            t_s: now.
        """
        if not self._round:
            self._round = list(self._held)
            self._n_round = len(self._round)
        self._due += self._n_round * max(0.0, t_s - self._t_looked_s) / PASS_S
        self._t_looked_s, n = t_s, int(self._due)
        self._due -= n
        ended = []
        for _ in range(min(n, AT_ONCE, len(self._round))):
            descriptor = self._round.pop()
            held = self._held.get(descriptor)
            if held is None:
                continue
            if peer_of(descriptor) != held.peer:
                self._forget(descriptor)
            elif not self._may(held.key):
                ended.append(self._end(descriptor, "its key is not in the list any more"))
        return ended

    def _forget(self, descriptor: int) -> _Connection:
        held = self._held.pop(descriptor)
        self._n -= held.n
        return held

    def _end(self, descriptor: int, why: str) -> Ended:
        held = self._forget(descriptor)
        # Looked at again: the number may be another connection's by now.
        if peer_of(descriptor) == held.peer:
            self._ended[descriptor] = held.peer
            shut_down(descriptor)
        return Ended(held.key, why)


def ask_descriptor(descriptor: int, ask: Callable[[socket.socket], T]) -> T:
    """Ask the operating system about a connection.

    Raises:
        OSError: it is none any more.
    """
    # The descriptor stays libzmq's: what closes here is a copy.
    copy = os.dup(descriptor)
    try:
        one = socket.socket(fileno=copy)
    except OSError:  # it is a file's by now
        os.close(copy)
        raise
    with one:
        return ask(one)


def peer_of(descriptor: int) -> Peer | None:
    """Return the address at the other end; None where there is no connection any more."""
    try:
        return ask_descriptor(descriptor, lambda one: tuple(one.getpeername()))
    except OSError:
        return None


def shut_down(descriptor: int) -> None:
    """End a connection; its owner sees that the other side has gone."""
    with suppress(OSError):
        ask_descriptor(descriptor, lambda one: one.shutdown(socket.SHUT_RDWR))
