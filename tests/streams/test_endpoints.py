"""Addresses: which are read, and what is said of those that are none."""

from __future__ import annotations

import pytest

from streams.errors import AddressError
from streams.wire.endpoints import parse_endpoint


@pytest.mark.parametrize(
    ("text", "bound", "is_loopback"),
    [
        ("tcp://127.0.0.1:5570", "tcp://127.0.0.1:5570", True),
        ("tcp://127.0.0.1:*", "tcp://127.0.0.1:*", True),
        ("tcp://127.0.0.1:0", "tcp://127.0.0.1:*", True),
        ("tcp://127.12.0.1:05570", "tcp://127.12.0.1:5570", True),
        ("tcp://localhost:5570", "tcp://127.0.0.1:5570", True),
        ("tcp://[::1]:5590", "tcp://[::1]:5590", True),
        ("tcp://[0:0:0:0:0:0:0:1]:*", "tcp://[::1]:*", True),
        ("tcp://[::]:5570", "tcp://[::]:5570", False),
        ("tcp://[fe80::1%eth0]:5570", "tcp://[fe80::1%eth0]:5570", False),
        ("tcp://*:5570", "tcp://*:5570", False),
        ("tcp://0.0.0.0:5570", "tcp://0.0.0.0:5570", False),
        ("tcp://localhost.lab:5570", "tcp://localhost.lab:5570", False),
        ("tcp://rig-2.lab:65535", "tcp://rig-2.lab:65535", False),
    ],
)
def test_what_is_read(text: str, bound: str, is_loopback: bool) -> None:
    endpoint = parse_endpoint(text)
    assert (str(endpoint), endpoint.is_loopback) == (bound, is_loopback)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "does not begin with tcp://"),
        ("127.0.0.1:5570", "does not begin with tcp://"),
        ("tcp:127.0.0.1:5570", "does not begin with tcp://"),
        ("http://127.0.0.1:5570", "http:// is not spoken"),
        ("TCP://127.0.0.1:5570", "TCP:// is not spoken"),
        ("ipc:///run/spikes", "ipc:// is not spoken"),
        ("tcp://", "names no host"),
        ("tcp://:5570", "names no host"),
        ("tcp://127.0.0.1", "names no port"),
        ("tcp://127.0.0.1:", "names no port"),
        ("tcp://127.0.0.1/", "nothing may follow"),
        ("tcp://[::1]", "names no port"),
        ("tcp://[::1]:", "names no port"),
        ("tcp://::1:5590", "in brackets"),
        ("tcp://[::g]:5590", "holds no IPv6 address"),
        ("tcp://[127.0.0.1]:5590", "holds no IPv6 address"),
        ("tcp://127.0.0.1:5570/", "nothing may follow"),
        ("tcp://127.0.0.1:5570/decode", "nothing may follow"),
        ("tcp://127.0.0.1:99999", "no port 99999"),
        ("tcp://127.0.0.1:65536", "no port 65536"),
        ("tcp://127.0.0.1:-1", "'-1' is no number"),
        ("tcp://127.0.0.1:decode", "'decode' is no number"),
        ("tcp://127.0.0.1:55\u0667", "is no number"),
        ("tcp://127.0.0.1 :5570", "not HOST:PORT"),
    ],
)
def test_what_is_wrong_with_those_that_are_none(text: str, why: str) -> None:
    with pytest.raises(AddressError, match="is no address") as refused:
        parse_endpoint(text)
    assert why in str(refused.value)
    assert "tcp://127.0.0.1:5570" in str(refused.value)
