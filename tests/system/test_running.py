"""What a running daemon publishes and answers; one daemon serves all tests of this file."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from streams.errors import UnreachableError
from streams.wire.sockets import request
from tests.system.conftest import HOP_S, UNIT_KEYS, write_config
from tests.system.running import Daemon, Process, unique, wait_until
from tests.system.sources import Living


@pytest.fixture(scope="module")
def shared_source() -> Iterator[Living]:
    living = Living(unique("spikes"), UNIT_KEYS)
    yield living
    living.close()


@pytest.fixture(scope="module")
def shared_daemon(
    tmp_path_factory: pytest.TempPathFactory, bundle: Path, shared_source: Living
) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("running")
    started = Daemon(folder, write_config(folder, shared_source.name, bundle))
    yield started
    started.kill()


@pytest.fixture
def source(shared_source: Living) -> Living:
    """The daemon's source."""
    return shared_source


@pytest.fixture
def daemon(shared_daemon: Daemon, source: Living) -> Daemon:
    """The daemon, decoding."""
    shared_daemon.until_validity("ok", source.send_due)
    return shared_daemon


def test_seq_has_no_hole_and_beat_says_what_was_skipped(daemon: Daemon, source: Living) -> None:
    n_before = len(daemon.heard.decodes)
    daemon.until(lambda heard: len(heard.decodes) >= n_before + 50, source.send_due)
    decodes = daemon.heard.decodes
    assert len({decode["run_id"] for decode in decodes}) == 1
    seqs = [decode["seq"] for decode in decodes]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    for before, after in pairwise(decodes):
        jumped = after["beat"] - before["beat"] - 1
        assert after["beats_skipped"] - before["beats_skipped"] == jumped
        hops = round((after["t_window"] - before["t_window"]) / HOP_S)
        assert hops == after["beat"] - before["beat"]


def test_every_decode_keeps_the_order_of_its_times(daemon: Daemon) -> None:
    for decode in daemon.heard.decodes:
        assert decode["t_window"] <= decode["t_cut"] <= decode["t_done"] <= decode["t_sent"]
        assert decode["late"] == (decode["t_sent"] > decode["t_window"] + 0.02 + HOP_S / 2)


def test_pause_publishes_the_safe_value_until_resume(
    daemon: Daemon, source: Living, run: Callable[..., Process]
) -> None:
    pause = run("pause", "--control", daemon.control)
    wait_until(lambda: not pause.is_alive, source.send_due)
    assert pause.code() == 0
    daemon.until_validity("paused", source.send_due)
    n_before = len(daemon.heard.decodes)
    daemon.until(lambda heard: len(heard.decodes) >= n_before + 20, source.send_due)
    for decode in daemon.heard.decodes[n_before:]:
        assert decode["reason"] == "paused"
        assert decode["value"]["velocity"] == [0.0, 0.0]
    held = daemon.heard.decodes[-1]["value"]["position"]
    assert held is None
    assert daemon.ask("status").result["paused"]
    assert daemon.ask("resume").ok
    resumed = daemon.until_validity("ok", source.send_due)
    assert resumed["value"]["velocity"] == resumed["value_raw"]["velocity"]
    daemon.until_event("resumed", source.send_due)
    assert [event["event"] for event in daemon.heard.events][-2:] == ["paused", "resumed"]


def test_status_says_how_the_run_stands(daemon: Daemon, source: Living) -> None:
    status = daemon.ask("status").result
    assert status["run_id"] == daemon.heard.decodes[-1]["run_id"]
    assert status["decode_endpoint"] == daemon.endpoint
    assert status["decoder_id"] == "tiny"
    assert status["backend"] == "onnxruntime-cpu"
    assert status["units_known"] == status["units_seen"] == len(UNIT_KEYS)
    assert source.name in status["source"]
    n_before = len(daemon.heard.heartbeats)
    daemon.until(lambda heard: len(heard.heartbeats) >= n_before + 2, source.send_due)
    assert daemon.heard.heartbeats[-1]["settle_ms"] == 20.0


MALFORMED = {
    "no JSON": b"status",
    "nothing": b"",
    "cut short": b'{"schema":1,"command":"sta',
    "a list": b'["status"]',
    "an unknown field": b'{"schema":1,"command":"status","now":true}',
    "a wrong type": b'{"schema":1,"command":7}',
    "another schema": b'{"schema":2,"command":"status"}',
    "an unknown command": b'{"schema":1,"command":"launch"}',
    "arguments": b'{"schema":1,"command":"pause","arguments":{"for_s":1}}',
    "no UTF-8": b'{"schema":1,"command":"\xff\xfe"}',
    "too deep": b'{"schema":1,"command":"status","arguments":{"a":'
    + b"[" * 10**5
    + b"]" * 10**5
    + b"}}",
}


def test_malformed_commands_get_an_error_and_the_daemon_lives(
    daemon: Daemon, source: Living
) -> None:
    for what, payload in MALFORMED.items():
        reply = daemon.send(payload)
        assert not reply.ok, what
        assert reply.error, what
        source.send_due()
    assert not daemon.ask("status").result["paused"]
    daemon.until_validity("ok", source.send_due)


def test_what_is_no_message_at_all_is_dropped_and_the_daemon_lives(
    daemon: Daemon, source: Living
) -> None:
    with pytest.raises(UnreachableError):
        request(daemon.control, b" " * (5 * 2**20), timeout_s=0.5)
    address = urlsplit(daemon.control)
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(1000))
    assert daemon.ask("status").ok
    daemon.until_validity("ok", source.send_due)


def test_watch_prints_decodes_as_they_are(
    daemon: Daemon, source: Living, run: Callable[..., Process]
) -> None:
    watch = run("watch", "--decode", daemon.endpoint, "--json", "--count", "5")
    daemon.until(lambda _: not watch.is_alive, source.send_due)
    assert watch.code() == 0
    watched = [json.loads(line) for line in watch.out.splitlines()]
    by_seq = {decode["seq"]: decode for decode in daemon.heard.decodes}
    assert len(watched) == 5
    for decode in watched:
        assert decode == by_seq[decode["seq"]]
