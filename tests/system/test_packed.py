"""`[output] format = "packed"`: the wire, our own clients, with a real daemon."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streams.wire.packed import MAGIC, MessageReader
from streams.wire.sockets import DecodeSubscriber
from tests.system.conftest import DaemonStarter
from tests.system.running import Daemon, Process, wait_until
from tests.system.sources import Living

CLIENTS = Path(__file__).parents[2] / "clients" / "python"


@pytest.fixture
def daemon(serve: DaemonStarter, bundle: Path, stream: str, source: Living) -> Daemon:
    """A daemon whose decodes leave packed."""
    started = serve(stream, bundle, output={"format": "packed"})
    started.until_validity("ok", source.send_due)
    return started


def test_decodes_are_packed_to_the_last_and_all_else_is_json(
    daemon: Daemon, source: Living
) -> None:
    subscriber = DecodeSubscriber(daemon.endpoint, ("decode", "heartbeat", "event", "timing"))
    heard: dict[bytes, list[bytes]] = {}

    def take() -> None:
        source.send_due()
        while (frames := subscriber.receive_frames(0.0)) is not None:
            heard.setdefault(frames[0], []).append(frames[1])

    wait_until(lambda: {b"decode", b"heartbeat", b"timing"} <= set(heard), take)
    daemon.signal(15)
    wait_until(lambda: not daemon.is_alive, take)
    wait_until(lambda: b"stopped" in heard.get(b"event", [b""])[-1], take)
    subscriber.close()
    assert all(message.startswith(MAGIC) for message in heard.pop(b"decode"))
    assert all(message.startswith(b"{") for of_topic in heard.values() for message in of_topic)


def test_the_last_decode_is_the_safe_one(daemon: Daemon, source: Living) -> None:
    assert daemon.end() == 0
    last = daemon.heard.decodes[-1]
    assert (last["validity"], last["reason"]) == ("paused", "stopping")
    assert last["value"]["velocity"] == [0.0, 0.0]
    assert last["value_raw"] == {"velocity": None, "position": None}
    assert [one["seq"] for one in daemon.heard.decodes] == list(
        range(daemon.heard.decodes[0]["seq"], last["seq"] + 1)
    )


def test_watch_prints_packed_decodes_as_json(
    daemon: Daemon, source: Living, run: Callable[..., Process]
) -> None:
    watch = run("watch", "--decode", daemon.endpoint, "--json", "--count", "5")
    daemon.until(lambda _: not watch.is_alive, source.send_due)
    assert watch.code() == 0
    watched = [json.loads(line) for line in watch.out.splitlines()]
    by_seq = {decode["seq"]: decode for decode in daemon.heard.decodes}
    assert watched == [by_seq[decode["seq"]] for decode in watched]
    assert {"schema", "units", "t_newest_spike"} <= set(watched[0])


@pytest.mark.parametrize(("example", "says"), [("follow.py", "use it"), ("task.py", "moving")])
def test_the_clients_read_packed_decodes(
    daemon: Daemon, source: Living, tmp_path: Path, example: str, says: str
) -> None:
    out = tmp_path / "out"
    command: list[Any] = [sys.executable, "-u", CLIENTS / example, daemon.endpoint]
    with out.open("wb") as file:
        client = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: says in out.read_text(), source.send_due)
        assert client.poll() is None
    finally:
        client.kill()
        client.wait()


def test_a_late_subscriber_reads_its_first_message(daemon: Daemon, source: Living) -> None:
    """Nothing that was sent before is needed."""
    subscriber = DecodeSubscriber(daemon.endpoint)
    frames = wait_until(lambda: subscriber.receive_frames(0.0), source.send_due)
    first = MessageReader().read(frames[1])
    subscriber.close()
    daemon.until(lambda heard: heard.decodes[-1]["seq"] >= first["seq"], source.send_due)
    assert first in daemon.heard.decodes
