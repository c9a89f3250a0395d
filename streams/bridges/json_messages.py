"""Spikes as JSON, over ZeroMQ or UDP: what a lab's own program can send with few lines."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import zmq

from streams.bridges.blocks import Block
from streams.clock import Clock
from streams.errors import AddressError

MESSAGES_MOST = 2_000
DATAGRAM_BYTES = 1 << 16
A_MOMENT_S = 1e-6
"""A spike at `now` itself may come with the next message."""


@dataclass(frozen=True, slots=True)
class Names:
    """Places of the fields in a message; a dot goes into an object.

    Attributes:
        time: of a spike, one number or a list.
        channel: of a spike, likewise.
        unit: likewise; 0 where a message has none.
        spikes: the list of spikes; "" where a message is a spike itself, or a list of them.
        now: the device's time when the message was sent: all spikes before it are sent.
        number: counts messages, so that holes are seen.
    """

    time: str = "t"
    channel: str = "channel"
    unit: str = "unit"
    spikes: str = ""
    now: str = "now"
    number: str = "seq"


class _Receiver(Protocol):
    def receive(self, timeout_s: float) -> bytes | None: ...

    def close(self) -> None: ...


class _ZmqReceiver:
    def __init__(self, endpoint: str) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        self._socket.connect(endpoint)
        self._socket.subscribe("")

    def receive(self, timeout_s: float) -> bytes | None:
        return (
            self._socket.recv_multipart()[-1] if self._socket.poll(int(timeout_s * 1e3)) else None
        )

    def close(self) -> None:
        self._socket.close(0)


class _UdpReceiver:
    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind((host, port))
        except OSError:
            self._socket.close()
            raise

    def receive(self, timeout_s: float) -> bytes | None:
        self._socket.settimeout(timeout_s or 1e-6)
        try:
            return self._socket.recv(DATAGRAM_BYTES)
        except (TimeoutError, BlockingIOError):
            return None

    def close(self) -> None:
        self._socket.close()


class JsonSource:
    """Reads JSON messages.

    Args:
        clock: LSL's.
        address: `tcp://HOST:PORT` of a ZeroMQ publisher, or `udp://HOST:PORT` to listen at.
        names: where the fields lie.
        rate_hz: samples a second, where times are sample numbers; 1 where they are seconds.

    Raises:
        AddressError: of another form, or in use.
    """

    def __init__(
        self, clock: Clock, address: str, names: Names | None = None, rate_hz: float = 1.0
    ) -> None:
        self._clock, self._names, self._rate_hz = clock, names or Names(), rate_hz
        self._receiver = _open(address)
        self._number: int | None = None
        self.warnings: list[str] = []

    def read(self, timeout_s: float) -> Sequence[Block]:
        """Wait for messages, and return a block for each."""
        blocks: list[Block] = []
        message = self._receiver.receive(timeout_s)
        while message is not None:
            blocks.append(self._block(message, self._clock.now()))
            message = self._receiver.receive(0.0) if len(blocks) < MESSAGES_MOST else None
        return blocks

    def close(self) -> None:
        """Hang up."""
        self._receiver.close()

    def _block(self, message: bytes, arrived_s: float) -> Block:
        spikes: list[tuple[float, int, int]] = []
        now_s = None
        n_lost = n_refused = 0
        is_restart = False
        try:
            said = json.loads(message)
            n_lost, is_restart = self._count(_at(said, self._names.number))
            now_s = _at(said, self._names.now)
            now_s = None if now_s is None else float(now_s) / self._rate_hz
            for one in self._each(said):
                spikes += self._spikes(one)
        except (KeyError, TypeError, ValueError, RecursionError):
            n_refused = 1
        told = np.array(spikes, np.float64).reshape(-1, 3)
        newest = [*told[:, 0], *([] if now_s is None else [now_s])]
        return Block(
            t_s=told[:, 0],
            ids=told[:, 1:].astype(np.int32),
            device_s=max(newest, default=None),
            arrived_s=arrived_s,
            complete_until_s=None if now_s is None else now_s - A_MOMENT_S,
            n_lost=n_lost,
            n_refused=n_refused,
            is_restart=is_restart,
        )

    def _each(self, said: Any) -> Sequence[Any]:
        found = _at(said, self._names.spikes) if self._names.spikes else said
        return found if isinstance(found, list) else [found]

    def _spikes(self, one: Any) -> list[tuple[float, int, int]]:
        names = self._names
        t = _at(one, names.time)
        if t is None and _at(one, names.now) is not None:
            return []  # it tells the time alone
        channels, units = _at(one, names.channel), _at(one, names.unit) or 0
        if not isinstance(t, list):
            t, channels = [t], [channels]
        if not isinstance(units, list):
            units = [units] * len(t)
        return [
            (float(time) / self._rate_hz, int(channel), int(unit))
            for time, channel, unit in zip(t, channels, units, strict=True)
        ]

    def _count(self, number: Any) -> tuple[int, bool]:
        """Return how many messages are missing, and whether the numbers began anew."""
        if number is None:
            return 0, False
        before, self._number = self._number, int(number)
        if before is None:
            return 0, False
        return max(0, self._number - before - 1), self._number <= before


def _open(address: str) -> _Receiver:
    parts = urlsplit(address)
    try:
        if parts.scheme == "tcp" and parts.port:
            return _ZmqReceiver(address)
        if parts.scheme == "udp" and parts.port is not None:
            return _UdpReceiver(parts.hostname or "127.0.0.1", parts.port)
    except (OSError, ValueError, zmq.ZMQError) as err:
        raise AddressError(f"cannot listen at {address}: {err}") from err
    raise AddressError(
        f"{address!r} is neither tcp://HOST:PORT of a ZeroMQ publisher nor udp://HOST:PORT"
    )


def _at(said: Any, path: str) -> Any:
    """Return what lies at a path; None where there is nothing."""
    for name in path.split(".") if path else ():
        if not isinstance(said, dict):
            return None
        said = said.get(name)
    return said
