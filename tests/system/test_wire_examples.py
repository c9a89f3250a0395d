"""What `docs/wire.md` shows to a slow client and to one elsewhere, against a real daemon."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from streams.wire.sockets import Publisher
from tests.system.running import ANY_PORT, Daemon, clock, keep_on, wait_until
from tests.system.sources import Living

DOC = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()
ROUND_TRIP_S = 0.5


def shown(name: str) -> Callable[..., Any]:
    """The function of this name that the page shows."""
    blocks = re.findall(r"^```python\n(.*?)^```", DOC, flags=re.M | re.S)
    code = next(block for block in blocks if f"def {name}(" in block)
    names: dict[str, Any] = {"json": json, "time": time}
    exec(compile(code, "docs/wire.md", "exec"), names)
    found: Callable[..., Any] = names[name]
    return found


Connect = Callable[..., zmq.Socket[bytes]]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes sockets as a client of another's making does."""
    made: list[zmq.Socket[bytes]] = []

    def make(kind: int, endpoint: str, topic: str = "", **options: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
        made.append(socket)
        for name, value in options.items():
            setattr(socket, name, value)
        if kind == zmq.SUB:
            socket.subscribe(topic)
        socket.connect(endpoint)
        return socket

    yield make
    for socket in made:
        socket.close(0)


def test_the_newest_decode_is_taken_and_old_ones_are_let_go(
    daemon: Daemon, source: Living, connect: Connect
) -> None:
    newest = shown("newest")
    socket = connect(zmq.SUB, daemon.endpoint)

    def both() -> None:
        source.send_due()
        daemon.listen()

    first = wait_until(lambda: newest(socket), both)
    keep_on(1.0, both)  # the client is busy: decodes wait
    last = newest(socket)
    assert last["beat"] >= first["beat"] + 20
    assert last["beat"] >= daemon.heard.decodes[-1]["beat"] - 1  # that one came by another socket
    after = newest(socket)
    assert after is None or after["beat"] > last["beat"]


@pytest.mark.parametrize(("topic", "heard"), [("decode", False), ("", True)])
def test_conflate_does_not_know_messages_of_two_frames(
    connect: Connect, topic: str, heard: bool
) -> None:
    publisher = Publisher(ANY_PORT)
    plain = connect(zmq.SUB, publisher.endpoint, topic)
    conflating = connect(zmq.SUB, publisher.endpoint, topic, conflate=1)

    def send() -> None:
        publisher.send(b"decode", b'{"beat":1}')

    for _ in range(20):  # both subscriptions have come by the time that the plain one hears
        wait_until(lambda: plain.poll(0), send)
        plain.recv_multipart()
    if heard:
        wait_until(lambda: conflating.poll(0), send)
        assert conflating.recv_multipart() == [b'{"beat":1}']  # no topic
    else:
        assert not conflating.poll(200)
    publisher.close()


def test_a_client_elsewhere_learns_the_daemons_clock(
    daemon: Daemon, source: Living, connect: Connect
) -> None:
    control = connect(zmq.REQ, daemon.control)
    offset_s, within_s = shown("daemon_clock")(control)
    assert 0 < within_s < ROUND_TRIP_S
    assert abs(offset_s) <= within_s  # the same machine: the same clock
    decode = daemon.until_validity("ok", source.send_due)
    assert 0 < clock.now() + offset_s - decode["t_window"] < 10
