"""Socket addresses, read before they are used: `tcp://HOST:PORT`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from streams.errors import AddressError

EXAMPLE = "tcp://127.0.0.1:5570"
HIGHEST_PORT = 65_535
_FREE = ("*", "0")
_SHAPE = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:/\s]+):(?P<port>[^\s/:]+)")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address in its parts.

    Attributes:
        host: a name, a number, or `*` for every interface; IPv6 without its brackets.
        port: a number, or `*` for any free one.
    """

    host: str
    port: str

    @property
    def is_ipv6(self) -> bool:
        """Return True for an IPv6 number, which ZeroMQ reads only when told to."""
        return ":" in self.host

    @property
    def is_loopback(self) -> bool:
        """Return True if nobody on another machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        """Give the text that ZeroMQ reads; it binds numbers only, so that localhost becomes one."""
        host = "127.0.0.1" if self.host == "localhost" else self.host
        return f"tcp://[{host}]:{self.port}" if self.is_ipv6 else f"tcp://{host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """Read `tcp://HOST:PORT`.

    Raises:
        AddressError: it is none; the text says which part is wrong, and how it is written.
    """
    scheme, found, rest = text.partition("://")
    if not found:
        raise _malformed(text, "it does not begin with tcp://")
    if scheme != "tcp":
        raise _malformed(text, f"{scheme}:// is not spoken, only tcp://")
    match = _SHAPE.fullmatch(rest)
    if match is None:
        raise _malformed(text, _what_is_wrong(rest))
    return Endpoint(_host(text, match["host"]), _port(text, match["port"]))


def _host(text: str, host: str) -> str:
    if not host.startswith("["):
        return host
    try:
        return str(IPv6Address(host[1:-1]))
    except ValueError:
        raise _malformed(text, f"{host} holds no IPv6 address") from None


def _port(text: str, port: str) -> str:
    if port in _FREE:
        return "*"
    if not (port.isascii() and port.isdigit()):
        raise _malformed(text, f"port {port!r} is no number")
    if int(port) > HIGHEST_PORT:
        raise _malformed(text, f"there is no port {port}; they end at {HIGHEST_PORT}")
    return str(int(port))


def _what_is_wrong(rest: str) -> str:
    host = rest.rstrip("/")
    if host.count(":") > 1 and "[" not in host:
        return "an IPv6 address stands in brackets, as in tcp://[::1]:5570"
    if host != rest or "/" in rest:
        return "nothing may follow the port"
    if host.startswith(":") or not host:
        return "it names no host"
    if ":" not in host.rpartition("]")[2] or host.endswith(":"):
        return "it names no port"
    return "it is not HOST:PORT"


def _malformed(text: str, why: str) -> AddressError:
    return AddressError(
        f"{text!r} is no address: {why}. Write one like {EXAMPLE}, or with port * for a free one"
    )
