"""What pictures and measurements of the page are made with."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir

import pytest
import zmq

from benchmarks.page.chromium import (
    ABSENT,
    BINARY,
    NICENESS,
    Chromium,
    is_open_to_all,
    resident_mib,
)
from benchmarks.page.left_open import WARM_MINUTES, _summary
from benchmarks.page.relay import Relay

GOLDEN = Path(__file__).parents[1] / "streams" / "golden"
WITHIN_MS = 10_000
Socket = zmq.Socket[bytes]


@pytest.fixture
def said() -> Iterator[Socket]:
    socket: Socket = zmq.Context.instance().socket(zmq.PUB)
    socket.bind("tcp://127.0.0.1:*")
    yield socket
    socket.close(0)


@pytest.fixture
def relay(said: Socket) -> Iterator[Relay]:
    made = Relay(said.getsockopt_string(zmq.LAST_ENDPOINT))
    made.start()
    yield made
    made.end()


@pytest.fixture
def heard(relay: Relay) -> Iterator[Socket]:
    socket: Socket = zmq.Context.instance().socket(zmq.SUB)
    socket.connect(relay.endpoint)
    socket.subscribe(b"")
    yield socket
    socket.close(0)


def passed_on(said: Socket, heard: Socket, topic: str) -> bytes:
    """Publish until it is heard: a subscription takes a moment."""
    message = (GOLDEN / f"{topic}.json").read_bytes()
    for _ in range(WITHIN_MS // 10):
        said.send_multipart([topic.encode(), message])
        if heard.poll(10):
            return heard.recv_multipart()[1]
    raise TimeoutError(topic)


def test_the_relay_passes_messages_on(said: Socket, heard: Socket) -> None:
    assert passed_on(said, heard, "decode") == (GOLDEN / "decode.json").read_bytes()


def test_the_relay_gives_decodes_another_reason(said: Socket, relay: Relay, heard: Socket) -> None:
    relay.reason = "clock_uncertain"
    told = json.loads(passed_on(said, heard, "decode"))
    assert (told["validity"], told["reason"]) == ("fault", "clock_uncertain")
    assert set(told["value"]["velocity"]) == {0.0}


def test_growth_is_that_after_the_minutes_in_which_the_page_fills() -> None:
    minutes = [[50.0 + 10 * i] * 3 for i in range(WARM_MINUTES)]
    steady = minutes[-1]
    assert _summary([*minutes, steady, steady])["growth"] == 0.0
    grown = _summary([*minutes, [110.0], [105.0]])
    assert grown["growth"] == pytest.approx(0.1)
    assert _summary(minutes)["growth"] is None


def test_memory_of_a_process_is_read() -> None:
    assert resident_mib(os.getpid()) > 1.0
    assert resident_mib(2**30) == 0.0


@pytest.mark.skipif(BINARY is None, reason=ABSENT)
@pytest.mark.skipif(not is_open_to_all(Path(gettempdir()) / "any"), reason="TMPDIR is private")
def test_the_browser_is_a_user_s_and_stands_in_nobody_s_way() -> None:
    async def looked_at() -> list[tuple[int, int]]:
        async with Chromium() as browser:
            await browser.open("about:blank")
            found = []
            for task in (t for pid in browser.pids() for t in Path(f"/proc/{pid}").glob("task/*")):
                with suppress(OSError):  # it has ended meanwhile
                    nice = os.getpriority(os.PRIO_PROCESS, int(task.name))
                    found.append((task.stat().st_uid, nice))
            return found

    found = asyncio.run(looked_at())
    assert found
    assert all(user != 0 and nice >= NICENESS for user, nice in found), found
