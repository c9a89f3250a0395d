"""ZeroMQ sockets for decodes and commands.

Beside it `authentication.py`, `connections.py` and the bridges import zmq.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import zmq

from streams.errors import AddressError, UnreachableError
from streams.wire.authentication import end_authentication, guard, only_client, set_own_pair
from streams.wire.authentication import new_pair as new_pair
from streams.wire.clients import ANYBODY, AllowedClients, Client
from streams.wire.connections import Connections
from streams.wire.curve_keys import CurveKeys
from streams.wire.endpoints import parse_endpoint
from streams.wire.packed import MessageReader
from streams.wire.subscribers import Ended, Subscribers

_ADVICE = {
    errno.EADDRINUSE: "Is another spikeloop running? `spikeloop status` asks it, `spikeloop stop` "
    "ends it. `decode` and `control` need a port each",
    errno.EACCES: "Ports below 1024 need rights; take a higher one",
}
_MORE, _LAST = int(zmq.SNDMORE | zmq.NOBLOCK), int(zmq.NOBLOCK)
FRAME_AT_MOST, UNFINISHED_AT_MOST, COMMANDS_WAITING = 4 * 2**20, 16 * 2**20, 16
SUBSCRIPTION_AT_MOST = 4096
"""Bytes of what a subscriber sends: a topic, and in the handshake its keys."""
SUBSCRIBER_BYTES_AT_MOST, SUBSCRIBER_BYTES_PER_S = 2**20, 1024.0
"""What a connection may send without a whole command; and a subscriber, whose heartbeats take
0.2 kB/s, in its life."""
SUBSCRIPTIONS_WAITING, SUBSCRIPTIONS_AT_ONCE = 8, 256
"""libzmq takes in what waits of a connection inside one `send`: with its default of 1000 waiting,
a client that subscribes without end kept the publishing thread there for seconds."""
DESCRIPTORS_NEEDED = 12
"""For a context and a socket; measured with libzmq 4.3.5: it aborts with 6 left, 8 suffice."""
LINK_ASKED_EVERY_MS, LINK_SILENT_MOST_MS = 500, 2000
RECONNECT_MS = 20
"""A subscriber is back within twice this time where a hung daemon's guardian speaks for it."""
_NO_SUCH_HOST = "Has this machine that address? `ip addr` lists those that it has"


def _new_socket(kind: int) -> zmq.Socket[bytes]:
    """Make a socket.

    Raises:
        AddressError: the operating system gives no more.
    """
    try:
        _require_descriptors(DESCRIPTORS_NEEDED)
        return zmq.Context.instance().socket(kind)
    except (OSError, zmq.ZMQError) as err:
        raise AddressError(f"no socket can be made: {err.strerror}; see `ulimit -n`") from err


def _require_descriptors(n: int) -> None:
    """Raise `OSError` if fewer are left: libzmq ends the process where it gets none."""
    held: list[int] = []
    try:
        held.extend(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(n))
    finally:
        for descriptor in held:
            os.close(descriptor)


def _present(socket: zmq.Socket[bytes], curve_keys: CurveKeys | None) -> None:
    """Show the client's keys to the daemon."""
    if curve_keys is not None:
        socket.curve_serverkey = curve_keys.other.encode()
        set_own_pair(socket, curve_keys)


def bind(
    socket: zmq.Socket[bytes],
    address: str,
    curve_keys: CurveKeys | None = None,
    clients: AllowedClients | None = None,
) -> str:
    """Bind to `tcp://HOST:PORT`, loopback unless there are keys; port `*` or 0 picks a free one.

    Args:
        socket: to bind.
        address: to bind it to.
        curve_keys: the daemon's.
        clients: those who may connect; by default the one that the keys name.

    Returns:
        The address with its actual port.

    Raises:
        AddressError: not loopback and no keys, malformed, or in use.
    """
    endpoint = parse_endpoint(address)
    if not endpoint.is_loopback and curve_keys is None:
        raise AddressError(
            f"{address} is not a loopback address; without keys anybody on the network could read "
            "and steer the daemon. `spikeloop keys FOLDER` makes some, and `keys` under [output] "
            "names them; or bind tcp://127.0.0.1:PORT"
        )
    if curve_keys is not None and (allowed := clients or only_client(curve_keys)):
        guard(socket, curve_keys, allowed)
    socket.ipv6 = endpoint.is_ipv6
    try:
        socket.bind(str(endpoint))
    except zmq.ZMQError as err:
        advice = _ADVICE.get(err.errno or 0, _NO_SUCH_HOST)
        raise AddressError(f"cannot bind {address}: {err.strerror}. {advice}") from err
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def _connect(socket: zmq.Socket[bytes], address: str) -> None:
    """Connect to `tcp://HOST:PORT`; a name is looked up as IPv4.

    Raises:
        UnreachableError: malformed, or without a host and a port to connect to.
    """
    try:
        endpoint = parse_endpoint(address)
    except AddressError as err:
        raise UnreachableError(
            f"{err}. It is the one that `spikeloop serve CONFIG.toml` was given under [output]"
        ) from err
    if "*" in (endpoint.host, endpoint.port):
        raise UnreachableError(f"{address} binds, but cannot be reached: name a host and a port")
    socket.ipv6 = endpoint.is_ipv6
    try:
        socket.connect(str(endpoint))
    except zmq.ZMQError as err:
        raise UnreachableError(f"cannot reach {address}: {err.strerror}") from err


class Publisher:
    """A socket for SUB sockets; one thread owns it.

    An XPUB, not a PUB: it tells who subscribes, so that those who ask too much can be ended.

    Args:
        endpoint: to bind; see `bind`.
        curve_keys: the daemon's, where it listens beyond loopback.
        queue: messages kept for a slow subscriber before its copy is dropped.
        clients: those who may subscribe; by default the one that the keys name.
    """

    def __init__(
        self,
        endpoint: str,
        curve_keys: CurveKeys | None = None,
        queue: int = 10_000,
        clients: AllowedClients | None = None,
    ) -> None:
        self._socket: zmq.Socket[bytes] = _new_socket(zmq.XPUB)
        self._socket.setsockopt(zmq.XPUB_VERBOSER, 1)
        self._socket.setsockopt(zmq.RCVHWM, SUBSCRIPTIONS_WAITING)
        self._socket.setsockopt(zmq.SNDHWM, queue)
        self._socket.setsockopt(zmq.MAXMSGSIZE, SUBSCRIPTION_AT_MOST)
        # Nothing old waits for a dead link: the system ends it, or the silence that the client
        # allowed. No HEARTBEAT_IVL here: libzmq 4.3.5 aborts where a client goes while
        # its subscriptions wait.
        self._socket.setsockopt(zmq.TCP_MAXRT, LINK_SILENT_MOST_MS)
        self._socket.setsockopt(zmq.LINGER, 500)
        self.connections = Connections(
            self._socket, SUBSCRIBER_BYTES_AT_MOST, SUBSCRIBER_BYTES_PER_S
        )
        try:
            clients = clients or only_client(curve_keys)
            self.endpoint = bind(self._socket, endpoint, curve_keys, clients)
        except AddressError:
            self.connections.close()
            self._socket.close(0)
            raise
        may = (lambda key: True) if clients is None else lambda key: clients.of_key(key) is not None
        self.subscribers = Subscribers(may)

    def send(self, topic: bytes, payload: bytes) -> None:
        """Publish; never waits."""
        # `send_multipart` combines flags as enumerations, twice a message: half of its time.
        self._socket.send(topic, _MORE)
        self._socket.send(payload, _LAST)

    def watch_subscribers(self, t_s: float) -> list[Ended]:
        """End those who ask too much, and whose key was taken; at each beat, `t_s`; waits never."""
        ended: list[Ended] = []
        for _ in range(SUBSCRIPTIONS_AT_ONCE):
            try:
                frame = self._socket.recv(_LAST, copy=False)
            except zmq.Again:
                break
            key, descriptor = _sender_of(frame)
            if descriptor is None:  # told for one that has gone
                continue
            subscribes = frame.bytes[:1] != b"\0"
            if one := self.subscribers.note(descriptor, key, subscribes=subscribes):
                ended.append(one)
        return ended + self.subscribers.look(t_s)

    def close(self) -> None:
        """Send what is queued, for at most half a second, and close."""
        self.connections.close()
        self._socket.close()


def _sender_of(frame: zmq.Frame) -> tuple[str, int | None]:
    """Return a message's public key, "" without keys, and the descriptor that it came through."""
    try:
        descriptor = int(frame.get(zmq.SRCFD))
    except zmq.ZMQError:
        return "", None
    try:
        return str(frame.get("User-Id")), descriptor
    except zmq.ZMQError:
        return "", descriptor


class DecodeSubscriber:
    """A SUB socket for decodes, heartbeats, events and shadows.

    Args:
        endpoint: the daemon's `[output] decode`.
        topics: which to receive.
        curve_keys: the client's, where the daemon asks for them.

    Raises:
        UnreachableError: the endpoint is none.
    """

    def __init__(
        self,
        endpoint: str,
        topics: Sequence[str] = ("decode",),
        curve_keys: CurveKeys | None = None,
    ) -> None:
        self._socket: zmq.Socket[bytes] = _new_socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 100_000)
        self._socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        # The daemon's own asking closes its side alone: what it had sent into a dead link would
        # still come, seconds old, once the link is mended.
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, LINK_ASKED_EVERY_MS)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, LINK_SILENT_MOST_MS)
        self._socket.setsockopt(zmq.HEARTBEAT_TTL, LINK_SILENT_MOST_MS)
        self._socket.setsockopt(zmq.LINGER, 0)
        for topic in topics:
            self._socket.setsockopt_string(zmq.SUBSCRIBE, topic)
        self._timeout_ms, self._reader = -1, MessageReader()
        _present(self._socket, curve_keys)
        try:
            _connect(self._socket, endpoint)
        except UnreachableError:
            self._socket.close(0)
            raise

    def receive(self, timeout_s: float) -> tuple[str, dict[str, Any]] | None:
        """Wait for a message: its topic and its fields; None when none came.

        Raises:
            WireError: it can not be read here.
        """
        frames = self.receive_frames(timeout_s)
        if frames is None:
            return None
        topic, payload = frames
        return topic.decode(), self._reader.read(payload)

    def receive_frames(self, timeout_s: float) -> list[bytes] | None:
        """Wait for a message: its topic and its content, unread; None when none came."""
        timeout_ms = max(0, round(timeout_s * 1e3))
        if timeout_ms != self._timeout_ms:  # waiting in `recv` itself wakes sooner than a poll
            self._socket.setsockopt(zmq.RCVTIMEO, timeout_ms)
            self._timeout_ms = timeout_ms
        try:
            return self._socket.recv_multipart()
        except zmq.Again:
            return None

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class ControlServer:
    """A socket for commands from REQ sockets; one thread owns it.

    A ROUTER, not a REP: bytes that are no request must not keep the next one from its answer.

    Args:
        endpoint: to bind; see `bind`.
        curve_keys: the daemon's, where it listens beyond loopback.
        clients: those who may connect; by default the one that the keys name.
    """

    def __init__(
        self,
        endpoint: str,
        curve_keys: CurveKeys | None = None,
        clients: AllowedClients | None = None,
    ) -> None:
        self._clients = clients or only_client(curve_keys)
        self._socket: zmq.Socket[bytes] = _new_socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 500)
        self._socket.setsockopt(zmq.MAXMSGSIZE, FRAME_AT_MOST)
        self._socket.setsockopt(zmq.RCVHWM, COMMANDS_WAITING)
        self._sender, self._key = b"", ""
        self.connections = Connections(self._socket, UNFINISHED_AT_MOST)
        try:
            self.endpoint = bind(self._socket, endpoint, curve_keys, self._clients)
        except AddressError:
            self.connections.close()
            self._socket.close(0)
            raise

    def receive(self, timeout_s: float) -> list[bytes] | None:
        """Wait for a command, a JSON frame and perhaps one with bytes; None when none came.

        Each must be answered by `reply`.
        """
        if not self._socket.poll(max(0, round(timeout_s * 1e3))):
            return None
        sender, *frames = self._socket.recv_multipart(copy=False)
        if len(frames) not in (2, 3) or frames[0].bytes:
            return None
        self._sender, (self._key, descriptor) = sender.bytes, _sender_of(frames[-1])
        if descriptor is not None:
            self.connections.note_message(descriptor)
        return [frame.bytes for frame in frames[1:]]

    @property
    def has_waiting(self) -> bool:
        """True if another command has come."""
        return bool(self._socket.poll(0))

    @property
    def client(self) -> Client | None:
        """The sender of the command just received; None for one who is not in the list any more."""
        return ANYBODY if self._clients is None else self._clients.of_key(self._key)

    def reply(self, payload: bytes) -> None:
        """Answer the command just received."""
        with suppress(zmq.ZMQError):  # it has gone meanwhile
            self._socket.send_multipart([self._sender, b"", payload], zmq.NOBLOCK)

    def close(self) -> None:
        """Close the socket."""
        self.connections.close()
        self._socket.close()


def end_sockets(within_s: float = 1.0) -> None:
    """Send what closed sockets still hold, before the process ends at once.

    Args:
        within_s: longest wait; a socket that was left open would keep it waiting for ever.
    """
    end_authentication()
    ending = threading.Thread(target=zmq.Context.instance().term, daemon=True)
    ending.start()
    ending.join(within_s)


def request(
    endpoint: str,
    payload: bytes,
    timeout_s: float = 2.0,
    curve_keys: CurveKeys | None = None,
    attached: bytes | None = None,
) -> bytes:
    """Send one command and wait for its reply.

    Args:
        endpoint: the daemon's `[output] control`.
        payload: the command as JSON.
        timeout_s: how long to wait.
        curve_keys: the client's, where the daemon asks for them.
        attached: bytes that belong to the command.

    Raises:
        UnreachableError: no reply came in time, or the endpoint is none.
    """
    socket: zmq.Socket[bytes] = _new_socket(zmq.REQ)
    socket.setsockopt(zmq.LINGER, 0)
    try:
        _present(socket, curve_keys)
        _connect(socket, endpoint)
        socket.send_multipart([payload] if attached is None else [payload, attached])
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
