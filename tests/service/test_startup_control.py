"""Commands and connections while the daemon starts, which may take an hour."""

from __future__ import annotations

import pytest

from service.daemon.access import Doorkeeper
from service.daemon.lifeline import Lifeline
from service.daemon.startup_control import StartupControl
from streams.clock import MonotonicClock
from streams.wire.sockets import ControlServer, Publisher
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
