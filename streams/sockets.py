"""ZeroMQ: the sockets that decodes leave by and commands come in by. The only importer of zmq."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import zmq

from streams.messages import StreamsError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class AddressError(StreamsError):
    """An address is in use, malformed, or not ours to bind."""


class UnreachableError(StreamsError):
    """Nobody answered at the address."""


def bind(socket: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind to a loopback endpoint; port `*` or 0 picks a free one.

    Returns:
        The endpoint with its actual port.

    Raises:
        AddressError: not loopback, malformed, or in use.
    """
    host = urlsplit(endpoint.replace("*", "0")).hostname
    if host not in LOOPBACK:
        raise AddressError(
            f"{endpoint} is not a loopback address; spikeloop binds tcp://127.0.0.1:PORT only, "
            "since without keys anybody on the network could read and steer it"
        )
    try:
        socket.bind(endpoint.replace("localhost", "127.0.0.1"))
    except zmq.ZMQError as err:
        raise AddressError(
            f"cannot bind {endpoint}: {err.strerror}. Is another spikeloop running? "
            "`spikeloop status` asks it; `spikeloop stop` ends it"
        ) from err
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


class Publisher:
    """A PUB socket; one thread owns it.

    Args:
        endpoint: loopback endpoint to bind.
        queue: messages kept for a slow subscriber before its copy is dropped.
    """

    def __init__(self, endpoint: str, queue: int = 10_000) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, queue)
        self._socket.setsockopt(zmq.LINGER, 500)
        try:
            self.endpoint = bind(self._socket, endpoint)
        except AddressError:
            self._socket.close(0)
            raise

    def send(self, topic: bytes, payload: bytes) -> None:
        """Publish; never waits."""
        self._socket.send_multipart((topic, payload), zmq.NOBLOCK)

    def close(self) -> None:
        """Send what is queued, for at most half a second, and close."""
        self._socket.close()


class DecodeSubscriber:
    """A SUB socket for decodes, heartbeats, events and shadows.

    Args:
        endpoint: the daemon's `[output] decode`.
        topics: which to receive.
    """

    def __init__(self, endpoint: str, topics: Sequence[str] = ("decode",)) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 100_000)
        self._socket.setsockopt(zmq.LINGER, 0)
        for topic in topics:
            self._socket.setsockopt_string(zmq.SUBSCRIBE, topic)
        self._socket.connect(endpoint)

    def receive(self, timeout_s: float) -> tuple[str, dict[str, Any]] | None:
        """Wait for a message: its topic and its fields; None when none came."""
        if not self._socket.poll(max(0, round(timeout_s * 1e3))):
            return None
        topic, payload = self._socket.recv_multipart()
        return topic.decode(), json.loads(payload)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class ControlServer:
    """A REP socket for commands; one thread owns it."""

    def __init__(self, endpoint: str) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 500)
        self._socket.setsockopt(zmq.MAXMSGSIZE, 4 * 2**20)
        try:
            self.endpoint = bind(self._socket, endpoint)
        except AddressError:
            self._socket.close(0)
            raise

    def receive(self, timeout_s: float) -> bytes | None:
        """Wait for a command; None when none came. Each must be answered by `reply`."""
        if not self._socket.poll(max(0, round(timeout_s * 1e3))):
            return None
        return b"".join(self._socket.recv_multipart())

    def reply(self, payload: bytes) -> None:
        """Answer the command just received."""
        self._socket.send(payload)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def request(endpoint: str, payload: bytes, timeout_s: float = 2.0) -> bytes:
    """Send one command and wait for its reply.

    Raises:
        UnreachableError: no reply came in time.
    """
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.REQ)
    socket.setsockopt(zmq.LINGER, 0)
    try:
        socket.connect(endpoint)
        socket.send(payload)
        if not socket.poll(round(timeout_s * 1e3)):
            raise UnreachableError(
                f"no spikeloop daemon answered at {endpoint} within {timeout_s:g} s; "
                "start one with `spikeloop serve CONFIG.toml`, or name its address with --control"
            )
        answer: bytes = socket.recv()
        return answer
    except zmq.ZMQError as err:
        raise UnreachableError(f"cannot reach {endpoint}: {err.strerror}") from err
    finally:
        socket.close()
