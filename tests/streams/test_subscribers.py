"""Those who subscribe: how many subscriptions a connection may have, and who is ended."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import zmq

from streams.clock import MonotonicClock
from streams.wire import sockets
from streams.wire import subscribers as subscribers_module
from streams.wire.authentication import new_pair
from streams.wire.clients import AllowedClients, Client
from streams.wire.curve_keys import CurveKeys
from streams.wire.roles import Role
from streams.wire.sockets import ControlServer, DecodeSubscriber, Publisher, bind, request
from streams.wire.subscribers import (
    AT_ONCE,
    EACH_AT_MOST,
    PASS_S,
    Ended,
    Subscribers,
    peer_of,
)
from tests.streams.endless import send_without_end

WITHIN_S = 10.0
clock = MonotonicClock()


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made = zmq.Context()
    yield made
    made.destroy(0)


def published(publisher: Publisher, beats: int) -> list[Ended]:
    """Publish and watch as a daemon does, a beat every 10 ms."""
    ended = []
    for _ in range(beats):
        publisher.send(b"decode", b'{"beat":1}')
        ended += publisher.watch_subscribers(clock.now())
        clock.sleep_until(clock.now() + 0.01)
    return ended


def hears(publisher: Publisher, subscriber: DecodeSubscriber) -> bool:
    t_end_s = clock.now() + WITHIN_S
    while clock.now() < t_end_s:
        published(publisher, 1)
        if subscriber.receive(0.0):
            return True
    return False


def test_one_that_subscribes_without_end_is_ended_and_others_are_not(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    publisher = Publisher("tcp://127.0.0.1:*")
    other = DecodeSubscriber(publisher.endpoint)
    assert hears(publisher, other)
    greedy = context.socket(zmq.XSUB)
    greedy.sndhwm = 0
    greedy.reconnect_ivl = -1
    greedy.connect(publisher.endpoint)
    for i in range(50 * EACH_AT_MOST):
        greedy.send(b"\x01%d" % i)
    ended: list[Ended] = []
    t_end_s = clock.now() + WITHIN_S
    while not ended and clock.now() < t_end_s:
        ended += published(publisher, 1)
    assert ended == [Ended("", f"over {EACH_AT_MOST} subscriptions")]
    published(publisher, 20)
    while other.receive(0.0):
        pass
    assert len(publisher.subscribers) == 1
    assert hears(publisher, other)
    greedy.close(0)
    other.close()
    publisher.close()


def test_many_topics_are_no_attack(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    publisher = Publisher("tcp://127.0.0.1:*")
    many = context.socket(zmq.SUB)
    many.connect(publisher.endpoint)
    for i in range(EACH_AT_MOST - 1):
        many.subscribe(b"%d" % i)
    for _ in range(3):
        many.subscribe(b"x")
        many.unsubscribe(b"x")
    many.subscribe(b"decode")
    t_end_s = clock.now() + WITHIN_S
    while not many.poll(0) and clock.now() < t_end_s:
        assert published(publisher, 1) == []
    assert many.recv_multipart()[0] == b"decode"
    many.close(0)
    publisher.close()


def test_a_key_that_is_taken_from_the_list_hears_no_more() -> None:
    pairs = {name: new_pair() for name in ("server", "ada", "bob")}
    clients = [Client(name, Role.WATCH, pairs[name][0]) for name in ("ada", "bob")]
    allowed = AllowedClients(clients)
    publisher = Publisher(
        "tcp://127.0.0.1:*", CurveKeys(*pairs["server"], pairs["ada"][0]), clients=allowed
    )
    ada, bob = (
        DecodeSubscriber(publisher.endpoint, curve_keys=CurveKeys(*pairs[name], pairs["server"][0]))
        for name in ("ada", "bob")
    )
    assert hears(publisher, ada)
    assert hears(publisher, bob)
    assert published(publisher, 10) == []
    allowed.replace(clients[1:])
    ended: list[Ended] = []
    t_end_s = clock.now() + WITHIN_S
    while not ended and clock.now() < t_end_s:
        ended += published(publisher, 1)
    assert [one.key for one in ended] == [pairs["ada"][0]]
    published(publisher, 5)
    while ada.receive(0.0):
        pass
    published(publisher, 50)
    assert ada.receive(0.0) is None
    assert hears(publisher, bob)
    assert allowed.take_strangers()[0] >= 1  # it connected again, and was refused
    ada.close()
    bob.close()
    publisher.close()


def test_publishers_that_follow_each_other_at_once() -> None:
    endpoints = set()
    for _ in range(200):
        publisher = Publisher("tcp://127.0.0.1:*")
        endpoints.add(publisher.endpoint)
        publisher.close()
        del publisher
    assert len(endpoints) > 1


@pytest.mark.parametrize("kind", ["DEALER", "SUB"])
def test_a_message_without_end_ends_its_connection(kind: str) -> None:
    server: ControlServer | Publisher = (
        Publisher("tcp://127.0.0.1:*") if kind == "SUB" else ControlServer("tcp://127.0.0.1:*")
    )
    ended: list[Ended] = []

    def is_over() -> bool:
        ended.extend(server.connections.look(clock.now()))
        return bool(ended)

    n_sent = send_without_end(server.endpoint, kind, is_over, WITHIN_S)
    is_over()
    assert [one.why for one in ended] == ["it sends a message without end"]
    assert n_sent < 2**26
    server.close()


def test_many_whole_messages_are_no_message_without_end() -> None:
    server = ControlServer("tcp://127.0.0.1:*")
    replies = []

    def ask() -> None:
        for _ in range(30):
            replies.append(request(server.endpoint, b"x" * 2**20, WITHIN_S, None, b"y" * 2**20))

    asking = threading.Thread(target=ask)
    asking.start()
    while asking.is_alive():
        if server.receive(0.1) is not None:
            server.reply(b"taken")
        assert server.connections.look(clock.now()) == []
    assert replies == [b"taken"] * 30
    server.close()


def test_connections_that_nobody_looks_at_for_long_hold_up_no_decode() -> None:
    publisher = Publisher("tcp://127.0.0.1:*")
    subscriber = DecodeSubscriber(publisher.endpoint)
    assert hears(publisher, subscriber)
    where = urlsplit(publisher.endpoint)
    for _ in range(2500):  # libzmq keeps 2,000 events for who watches, and then waits
        with socket.create_connection((where.hostname, where.port), WITHIN_S) as one:
            assert one.recv(1)  # taken in: it greets
    while subscriber.receive(0.0):
        pass
    assert hears(publisher, subscriber)
    subscriber.close()
    publisher.close()


def test_a_connection_made_at_once_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    early = []

    def bind_and_connect(*bound: Any) -> str:
        endpoint = bind(*bound)
        where = urlsplit(endpoint)
        early.append(socket.create_connection((where.hostname, where.port), WITHIN_S))
        assert early[0].recv(1)
        return endpoint

    monkeypatch.setattr(sockets, "bind", bind_and_connect)
    for made in (Publisher, ControlServer):
        server = made("tcp://127.0.0.1:*")
        t_end_s = clock.now() + WITHIN_S
        while not server.connections.n_watched and clock.now() < t_end_s:
            server.connections.look(clock.now())
            clock.sleep_until(clock.now() + 0.01)
        assert server.connections.n_watched == 1
        early.pop().close()
        server.close()


def test_a_subscription_costs_the_beat_no_more_where_there_are_many() -> None:
    pairs = [socket.socketpair() for _ in range(200)]
    subscribers, calls = Subscribers(lambda key: True), []

    def n_calls(n_before: int) -> int:
        for pair in pairs[len(subscribers) : n_before]:
            subscribers.note(pair[0].fileno(), "", subscribes=True)
        calls.clear()
        sys.setprofile(lambda frame, event, argument: calls.append(event))
        subscribers.note(pairs[n_before][0].fileno(), "", subscribes=True)
        sys.setprofile(None)
        return len(calls)

    gc.disable()  # what another test left to be collected has finalizers, and they are calls too
    try:
        few, many = n_calls(2), n_calls(190)
    finally:
        gc.enable()
    assert len(subscribers) == 191
    assert many == few
    for pair in pairs:
        for one in pair:
            one.close()
    looked = [subscribers.look(0.1 * i) for i in range(23)]  # two rounds
    assert looked == [[]] * 23
    assert len(subscribers) == 0


def test_a_beat_asks_about_a_share_of_the_connections_and_a_second_about_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(
        subscribers_module, "peer_of", lambda descriptor: asked.append(descriptor) or ("peer",)
    )
    n, beats, gone = 1000, 100, False
    subscribers = Subscribers(lambda key: not (gone and key == "0"))
    for descriptor in range(n):
        subscribers.note(descriptor, str(descriptor), subscribes=True)
    subscribers.look(0.0)
    asked.clear()  # by `note`
    most = 0
    for k in range(1, beats + 2):
        before = len(asked)
        assert subscribers.look(PASS_S * k / beats) == []
        most = max(most, len(asked) - before)
    assert most <= n / beats + 1
    assert set(asked) == set(range(n))
    gone = True
    monkeypatch.setattr(subscribers_module, "shut_down", asked.append)
    ended = [one for k in range(beats + 2) for one in subscribers.look(9.0 + PASS_S * k / beats)]
    assert [one.key for one in ended] == ["0"]
    for k in range(10):  # the beats stood still: no more than so many at once
        before = len(asked)
        subscribers.look(1e6 * (k + 1))
        assert 0 < len(asked) - before <= AT_ONCE


def test_subscriptions_of_all_are_bounded_and_those_that_end_count_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscribers_module, "ALL_AT_MOST", 3)
    pairs = [socket.socketpair() for _ in range(3)]
    subscribers = Subscribers(lambda key: True)
    first, second, third = (pair[0].fileno() for pair in pairs)
    for descriptor in (first, first, second):
        assert subscribers.note(descriptor, "", subscribes=True) is None
    assert subscribers.note(first, "", subscribes=False) is None
    assert subscribers.note(third, "", subscribes=True) is None
    ended = subscribers.note(second, "", subscribes=True)
    assert ended is not None
    assert "all clients" in ended.why
    assert subscribers.note(first, "", subscribes=True) is None
    for pair in pairs:
        for one in pair:
            one.close()


def test_a_descriptor_that_is_a_file_by_now_costs_none(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        n_open = len(os.listdir("/proc/self/fd"))
        assert peer_of(file.fileno()) is None
        assert len(os.listdir("/proc/self/fd")) == n_open


ENDED_WHILE_ITS_SUBSCRIPTIONS_WAIT = """
import zmq
from streams.clock import MonotonicClock
from streams.wire.sockets import LINK_ASKED_EVERY_MS, Publisher
from streams.wire.subscribers import shut_down

clock = MonotonicClock()
publisher = Publisher("tcp://127.0.0.1:*")
greedy = zmq.Context.instance().socket(zmq.XSUB)
greedy.sndhwm = 0
greedy.connect(publisher.endpoint)
for i in range(5000):
    greedy.send(b"\\x01%d" % i)
frame = publisher._socket.recv(copy=False)
clock.sleep_until(clock.now() + 0.2)
shut_down(int(frame.get(zmq.SRCFD)))
clock.sleep_until(clock.now() + 3 * LINK_ASKED_EVERY_MS * 1e-3)
print("lives", flush=True)
greedy.close(0)
publisher.close()
"""


def test_a_connection_that_goes_while_its_subscriptions_wait_ends_nobody() -> None:
    """Where a socket asks such a connection whether it is there, libzmq ends the process."""
    command = [sys.executable, "-c", ENDED_WHILE_ITS_SUBSCRIPTIONS_WAIT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "lives\n"), done.stderr
