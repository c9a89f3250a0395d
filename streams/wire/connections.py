"""Connections of a bound socket, and the end of those that send without end.

libzmq hands a message over once its last frame is there. Until then it keeps the frames, however
many come, and tells nobody. The operating system knows how many bytes a connection has received.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from itertools import count

import zmq
from zmq.utils.monitor import recv_monitor_message

from streams.wire.subscribers import Ended, Peer, ask_descriptor, peer_of, shut_down

_BYTES_RECEIVED = struct.Struct("<Q")
_OFFSET, _INFO_BYTES = 128, 256
"""Of `tcpi_bytes_received` in Linux's `struct tcp_info`, from 4.1 on."""
ACCEPTED_AT_ONCE = 10_000
_NUMBERS = count()
"""Of monitors: libzmq gives an address free some time after it was closed."""


@dataclass(slots=True)
class _Connection:
    peer: Peer
    t_s: float
    n_before: int = 0


class Connections:
    """Watches how much each connection sends; one thread owns it.

    Args:
        bound: the socket, before it is bound, so that no connection is missed; its own thread may
            be another.
        most_bytes: received without a whole message.
        bytes_per_s: received besides, as long as the connection lasts.
    """

    def __init__(self, bound: zmq.Socket[bytes], most_bytes: int, bytes_per_s: float = 0.0) -> None:
        address = f"inproc://accepted-{next(_NUMBERS)}"
        bound.monitor(address, zmq.EVENT_ACCEPTED)
        self._bound = bound
        self._events: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
        # By default libzmq keeps 2,000 events; then its own thread waits, and no decode leaves.
        self._events.setsockopt(zmq.RCVHWM, 0)
        self._events.connect(address)
        self._most_bytes, self._bytes_per_s = most_bytes, bytes_per_s
        self._held: dict[int, _Connection] = {}

    @property
    def n_watched(self) -> int:
        """Connections that are watched."""
        return len(self._held)

    def note_message(self, descriptor: int) -> None:
        """Begin to count anew: a whole message has come through this descriptor."""
        if (held := self._held.get(descriptor)) is not None:
            held.n_before = _received(descriptor)

    def look(self, t_s: float) -> list[Ended]:
        """End the connections that sent too much.

        Args:
            t_s: now.
        """
        self._take_new(t_s)
        ended = []
        for descriptor, held in list(self._held.items()):
            if peer_of(descriptor) != held.peer:
                del self._held[descriptor]
                continue
            allowed = self._most_bytes + self._bytes_per_s * (t_s - held.t_s)
            if _received(descriptor) - held.n_before > allowed:
                del self._held[descriptor]
                shut_down(descriptor)
                ended.append(Ended("", "it sends a message without end"))
        return ended

    def _take_new(self, t_s: float) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                event = recv_monitor_message(self._events, zmq.NOBLOCK)
            except zmq.ZMQError:
                return
            descriptor = int(event["value"])
            if (peer := peer_of(descriptor)) is not None:
                self._held[descriptor] = _Connection(peer, t_s)

    def close(self) -> None:
        """Stop watching; the socket is still open."""
        self._bound.disable_monitor()
        self._events.close(0)


def _received(descriptor: int) -> int:
    """Return how many bytes came through a descriptor; 0 where the system does not tell."""

    def ask(one: socket.socket) -> bytes:
        return one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)

    try:
        info = ask_descriptor(descriptor, ask)
    except (OSError, AttributeError):  # another system than Linux
        return 0
    if len(info) < _OFFSET + _BYTES_RECEIVED.size:
        return 0
    return int(_BYTES_RECEIVED.unpack_from(info, _OFFSET)[0])
