"""Commands and connections while the daemon starts, which may take an hour."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import zmq

from service.daemon.access import Doorkeeper
from service.daemon.lifeline import Lifeline
from service.daemon.startup_control import PATIENCE_S, StartupControl
from streams.clock import MonotonicClock
from streams.errors import UnreachableError
from streams.wire.schema import Command, decode_reply, encode
from streams.wire.sockets import ControlServer, Publisher, request
from tests.streams.endless import send_without_end

WITHIN_S = 10.0
clock = MonotonicClock()


@pytest.mark.parametrize("kind", ["DEALER", "SUB"])
def test_a_message_without_end_ends_its_connection_while_the_daemon_starts(kind: str) -> None:
    server, publisher = ControlServer("tcp://127.0.0.1:*"), Publisher("tcp://127.0.0.1:*")
    door = Doorkeeper(None, clock)
    startup = StartupControl(server, publisher.connections, "it opens", Lifeline(), door)
    startup.start()
    bound = publisher if kind == "SUB" else server
    t_end_s, told = clock.now() + WITHIN_S, []

    def is_over() -> bool:
        told.extend(door.take_events())
        return bool(told) or clock.now() > t_end_s

    send_without_end(bound.endpoint, kind, is_over, WITHIN_S)
    while not is_over():
        clock.sleep_until(clock.now() + 0.01)
    assert [event for event, _ in told] == ["connection_ended"]
    assert startup.hand_over() is None
    server.close()
    publisher.close()


@dataclass
class Start:
    """A start that goes on until the test is over, and how often it was asked to end."""

    endpoint: str
    door: Doorkeeper
    asked_to_end: list[bool]

    def is_asked_to_end(self) -> bool:
        """Whether it is, a moment after the reply to `stop`."""
        t_end_s = clock.now() + WITHIN_S
        while not self.asked_to_end and clock.now() < t_end_s:
            clock.sleep_until(clock.now() + 0.01)
        return bool(self.asked_to_end)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    server, publisher = ControlServer("tcp://127.0.0.1:*"), Publisher("tcp://127.0.0.1:*")
    lifeline, door = Lifeline(), Doorkeeper(None, clock)
    asked: list[bool] = []
    monkeypatch.setattr(lifeline, "ask_end", lambda: asked.append(True))  # else a signal to pytest
    startup = StartupControl(server, publisher.connections, "it opens", lifeline, door)
    startup.start()
    yield Start(server.endpoint, door, asked)
    startup.hand_over()
    server.close()
    publisher.close()


def test_stop_waits_for_no_crowd_of_other_commands(start: Start) -> None:
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        # Clients of their own: between those the socket takes turns.
        crowd = [stack.enter_context(context.socket(zmq.DEALER)) for _ in range(20)]
        for one in crowd:
            one.linger = 0
            one.connect(start.endpoint)
            one.send_multipart([b"", encode(Command(command="status"))])
        first = decode_reply(crowd[0].recv_multipart()[1])
        assert "starting" in first.error
        t_s, one_after_the_other_s = clock.now(), len(crowd) * PATIENCE_S
        stop = encode(Command(command="stop"))
        assert decode_reply(request(start.endpoint, stop, one_after_the_other_s)).ok
        assert clock.now() - t_s < one_after_the_other_s / 4
        assert start.is_asked_to_end()


def test_an_error_that_nobody_expects_is_told_and_the_next_command_answered(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refuse = start.door.refuse
    failing = [KeyError("nobody expected it")]

    def refuse_or_fail(command: str, client: Any) -> str:
        if failing:
            raise failing.pop()
        return refuse(command, client)

    monkeypatch.setattr(start.door, "refuse", refuse_or_fail)
    stop = encode(Command(command="stop"))
    with caplog.at_level(logging.WARNING, "spikeloop"):
        with pytest.raises(UnreachableError):
            request(start.endpoint, stop, PATIENCE_S)
        assert decode_reply(request(start.endpoint, stop, WITHIN_S)).ok
    assert "control_failed" in caplog.text
    assert start.is_asked_to_end()
