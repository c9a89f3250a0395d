"""Real sockets at the addresses that people write: IPv6, names, and those that cannot be bound."""

from __future__ import annotations

import socket
import threading

import pytest

from streams.errors import AddressError, UnreachableError
from streams.wire.curve_keys import CurveKeys
from streams.wire.sockets import ControlServer, DecodeSubscriber, Publisher, new_pair, request

WITHIN_S = 10.0


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
LOOPBACKS = [
    "tcp://127.0.0.1:*",
    "tcp://localhost:0",
    pytest.param("tcp://[::1]:*", marks=ipv6),
    pytest.param("tcp://[0::1]:0", marks=ipv6),
]


def _client_and_server() -> tuple[CurveKeys, CurveKeys]:
    server, client = new_pair(), new_pair()
    return CurveKeys(*client, server[0]), CurveKeys(*server, client[0])


def _heard(publisher: Publisher, subscriber: DecodeSubscriber) -> tuple[str, dict[str, int]] | None:
    """What arrives of a message sent until it does: a subscription needs a moment."""
    for _ in range(round(WITHIN_S / 0.02)):
        publisher.send(b"decode", b'{"beat":3}')
        if (heard := subscriber.receive(0.02)) is not None:
            return heard
    return None


@pytest.mark.parametrize("address", LOOPBACKS)
def test_decodes_leave_by_every_loopback_address(address: str) -> None:
    publisher = Publisher(address)
    subscriber = DecodeSubscriber(publisher.endpoint)
    assert _heard(publisher, subscriber) == ("decode", {"beat": 3})
    subscriber.close()
    publisher.close()


@pytest.mark.parametrize("address", LOOPBACKS)
def test_commands_come_in_by_every_loopback_address(address: str) -> None:
    server = ControlServer(address)

    def answer() -> None:
        command = server.receive(WITHIN_S)
        server.reply(b"answer to " + (command or [b"nothing"])[0])

    thread = threading.Thread(target=answer)
    thread.start()
    assert request(server.endpoint, b"status", WITHIN_S) == b"answer to status"
    thread.join()
    server.close()


def test_localhost_is_the_same_for_both_sides() -> None:
    publisher = Publisher("tcp://localhost:*")
    port = publisher.endpoint.rpartition(":")[2]
    subscriber = DecodeSubscriber(f"tcp://localhost:{port}")
    assert _heard(publisher, subscriber) is not None
    subscriber.close()
    publisher.close()


@ipv6
def test_beyond_loopback_ipv6_needs_keys_and_speaks_them() -> None:
    with pytest.raises(AddressError, match="not a loopback address"):
        Publisher("tcp://[::]:*")
    client, server = _client_and_server()
    publisher = Publisher("tcp://[::]:*", server)
    port = publisher.endpoint.rpartition(":")[2]
    subscriber = DecodeSubscriber(f"tcp://[::1]:{port}", curve_keys=client)
    assert _heard(publisher, subscriber) is not None
    subscriber.close()
    publisher.close()


@pytest.mark.parametrize("address", LOOPBACKS)
def test_an_address_in_use_says_who_may_have_it(address: str) -> None:
    publisher = Publisher(address)
    with pytest.raises(AddressError, match="Is another spikeloop running") as refused:
        ControlServer(publisher.endpoint)
    assert publisher.endpoint in str(refused.value)
    publisher.close()


def test_an_address_of_another_machine_is_not_another_spikeloop() -> None:
    _, server = _client_and_server()
    with pytest.raises(AddressError, match="Has this machine that address") as refused:
        Publisher("tcp://192.0.2.7:5570", server)  # a number that is nobody's (RFC 5737)
    assert "another spikeloop" not in str(refused.value)


def test_a_name_that_nobody_has_is_not_another_spikeloop() -> None:
    _, server = _client_and_server()
    with pytest.raises(AddressError, match="Has this machine that address"):
        Publisher("tcp://no-such-rig.invalid:5570", server)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1", "127.0.0.1:5570", "tcp://127.0.0.1:99999"])
def test_what_is_no_address_is_refused_by_every_socket(address: str) -> None:
    for bound in (Publisher, ControlServer):
        with pytest.raises(AddressError, match="is no address"):
            bound(address)
    with pytest.raises(UnreachableError, match="is no address"):
        DecodeSubscriber(address)
    with pytest.raises(UnreachableError, match="is no address"):
        request(address, b"status", 0.1)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:*", "tcp://*:5570", "tcp://127.0.0.1:0"])
def test_clients_name_whom_they_ask(address: str) -> None:
    with pytest.raises(UnreachableError, match="name a host and a port"):
        DecodeSubscriber(address)
    with pytest.raises(UnreachableError, match="name a host and a port"):
        request(address, b"status", 0.1)


@pytest.mark.parametrize("address", LOOPBACKS)
def test_nobody_there_is_told_after_the_wait(address: str) -> None:
    publisher = Publisher(address)
    endpoint = publisher.endpoint
    publisher.close()
    with pytest.raises(UnreachableError, match="no spikeloop daemon answered"):
        request(endpoint, b"status", 0.05)
