"""A peer of a ZeroMQ socket that sends one message whose frames never end."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

MOST_BYTES = 2**30


def send_without_end(endpoint: str, kind: str, is_over: Callable[[], bool], within_s: float) -> int:
    """Send until it is over or the other side ends it; return how many bytes were sent."""
    host, n_sent = urlsplit(endpoint), 0
    with socket.create_connection((host.hostname, host.port)) as raw:
        raw.settimeout(within_s)
        raw.sendall(b"\xff" + b"\0" * 8 + b"\x7f\x03\x00NULL".ljust(55, b"\0"))
        ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind.encode()
        raw.sendall(b"\x04" + bytes([len(ready)]) + ready)
        heard = b""
        while b"READY" not in heard:
            heard += raw.recv(1000)
        frame = b"\x03" + struct.pack(">Q", 4000) + b"x" * 4000  # more follow
        raw.settimeout(1.0)
        with suppress(ConnectionError, TimeoutError):  # an ended one may just not be read any more
            while not is_over() and n_sent < MOST_BYTES:
                raw.sendall(frame * 100)
                n_sent += len(frame) * 100
    return n_sent
