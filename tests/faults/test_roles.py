"""Roles of a running daemon: one key each, every command, and keys that are taken away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from service.daemon.access import NEEDED
from service.daemon.control import HANDLERS
from streams.errors import UnreachableError
from streams.wire.curve_keys import CurveKeys, read_curve_keys
from streams.wire.roles import Role
from streams.wire.schema import Command, Reply, decode_reply, encode
from streams.wire.sockets import DecodeSubscriber, request
from tests.system.conftest import HOP_S, UNIT_KEYS, write_config
from tests.system.running import Daemon, Process, unique, wait_until
from tests.system.sender_process import SenderProcess

FAR_S = 5.0


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key folder with a client of each role, made by the command."""
    scratch = tmp_path_factory.mktemp("keys")
    folder = scratch / "keys"
    assert Process(scratch, "keys", str(folder)).code() == 0
    for role in Role:
        made = Process(scratch, "keys", str(folder), "--client", role.title, "--role", role.title)
        assert made.code() == 0, made.err
    return folder


@contextmanager
def guarded(folder: Path, bundle: Path, keys: Path) -> Iterator[Daemon]:
    name = unique("spikes")
    sender = SenderProcess(name, UNIT_KEYS)
    output = {"keys": str(keys / "server.json"), "clients": str(keys / "clients.toml")}
    started = Daemon(folder, write_config(folder, name, bundle, output=output))
    started.keys = of(keys, "deploy")
    started.until_validity("ok")
    yield started
    started.kill()
    sender.close()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, bundle: Path, keys: Path) -> Iterator[Daemon]:
    with guarded(tmp_path_factory.mktemp("roles"), bundle, keys) as started:
        yield started


def of(keys: Path, name: str) -> CurveKeys:
    return read_curve_keys(keys / f"{name}.json")


def ask(daemon: Daemon, keys: CurveKeys, command: str, **arguments: Any) -> Reply:
    payload = encode(Command(command=command, arguments=arguments))
    return decode_reply(request(daemon.control, payload, FAR_S, keys))


@pytest.mark.parametrize("role", list(Role))
def test_every_command_with_every_role_on_the_wire(daemon: Daemon, keys: Path, role: Role) -> None:
    for command in HANDLERS:
        reply = ask(daemon, of(keys, role.title), command, nonsense=1)
        assert not reply.ok
        if role >= NEEDED[command]:
            assert "no argument 'nonsense'" in reply.error
        else:
            assert f"needs the role {NEEDED[command].title}" in reply.error


def test_a_watcher_reads_and_changes_nothing(daemon: Daemon, keys: Path) -> None:
    watcher = of(keys, "watch")
    subscriber = DecodeSubscriber(daemon.endpoint, ("decode",), watcher)
    assert subscriber.receive(FAR_S)
    assert ask(daemon, watcher, "status").result["paused"] is False
    for command in ("pause", "stop", "mark"):
        assert not ask(daemon, watcher, command, text="x").ok
    assert ask(daemon, watcher, "status").result["paused"] is False
    refused = daemon.until_event("command_refused")["detail"]
    assert "needs the role" in refused["warning"]
    subscriber.close()


def test_the_command_line_says_which_role_is_needed(
    daemon: Daemon, keys: Path, tmp_path: Path
) -> None:
    given = ("--control", daemon.control, "--keys", str(keys / "mark.json"))
    paused = Process(tmp_path, "pause", *given)
    assert paused.code() == 2
    assert "`pause` needs the role operate, and 'mark' has mark" in paused.err
    assert "Traceback" not in paused.err
    assert Process(tmp_path, "status", *given).code() == 0


def test_a_key_that_is_not_listed_is_turned_away_and_told(daemon: Daemon, keys: Path) -> None:
    stranger = read_curve_keys(keys / "watch.json")
    other = CurveKeys(*map(bytes.decode, zmq.curve_keypair()), stranger.other)
    with pytest.raises(UnreachableError):
        request(daemon.control, encode(Command(command="status")), 0.5, other)
    told = daemon.until_event("stranger_refused")["detail"]
    assert other.public in told["warning"]


@pytest.mark.alone
def test_a_key_that_is_taken_away_commands_and_hears_nothing_more(
    daemon: Daemon, keys: Path
) -> None:
    listed, operator = keys / "clients.toml", of(keys, "operate")
    before, n_events = listed.read_text(), len(daemon.heard.events)
    subscriber = DecodeSubscriber(daemon.endpoint, ("decode",), operator)
    wait_until(lambda: subscriber.receive(0.0), daemon.listen)
    context = zmq.Context()
    held = context.socket(zmq.REQ)
    held.curve_serverkey = operator.other.encode()
    held.curve_publickey, held.curve_secretkey = operator.public.encode(), operator.secret.encode()
    held.connect(daemon.control)
    try:
        listed.write_text("[[client]\n")
        daemon.until(lambda heard: any("before stay" in str(e) for e in heard.events[n_events:]))
        assert ask(daemon, operator, "resume").ok
        entries = before.split("\n\n")
        listed.write_text("\n\n".join(one for one in entries if 'name = "operate"' not in one))
        changed = daemon.until(lambda heard: [e for e in heard.events[n_events:] if removed(e)])
        assert changed[0]["detail"]["removed"] == ["operate"]
        held.send(encode(Command(command="pause")))
        assert held.poll(round(FAR_S * 1e3))
        assert "not in the daemon's list" in decode_reply(held.recv()).error
        with pytest.raises(UnreachableError):
            request(daemon.control, encode(Command(command="status")), 0.5, operator)
        daemon.until(lambda heard: any(ended(e) for e in heard.events[n_events:]))
        while subscriber.receive(0.0):
            pass
        n_before = len(daemon.heard.decodes)
        daemon.until(lambda heard: len(heard.decodes) > n_before + round(1.0 / HOP_S))
        assert subscriber.receive(0.0) is None
    finally:
        listed.write_text(before)
        held.close(0)
        context.term()
    subscriber.close()
    daemon.until(lambda heard: any(e["detail"].get("added") for e in heard.events[n_events:]))
    again = DecodeSubscriber(daemon.endpoint, ("decode",), operator)
    wait_until(lambda: again.receive(0.0), daemon.listen)
    again.close()
    beats = [one["beat"] for one in daemon.heard.decodes]
    assert beats == list(range(beats[0], beats[0] + len(beats)))  # the others missed nothing


def ended(event: dict[str, Any]) -> bool:
    return event["event"] == "connection_ended"


def removed(event: dict[str, Any]) -> bool:
    return bool(event["detail"].get("removed"))


def test_a_subscriber_without_end_is_ended_while_decodes_go_on(daemon: Daemon, keys: Path) -> None:
    watcher, context = of(keys, "watch"), zmq.Context()
    greedy = context.socket(zmq.XSUB)
    greedy.curve_serverkey = watcher.other.encode()
    greedy.curve_publickey, greedy.curve_secretkey = (
        watcher.public.encode(),
        watcher.secret.encode(),
    )
    greedy.sndhwm = 0
    greedy.connect(daemon.endpoint)
    for i in range(20_000):
        greedy.send(b"\x01%d" % i)

    def told(heard: Any) -> bool:
        return any(
            e["event"] == "connection_ended" and "subscriptions" in e["detail"]["warning"]
            for e in heard.events
        )

    daemon.until(told)
    assert told(daemon.heard)
    greedy.close(0)
    context.term()
    daemon.until_validity("ok")


def test_operators_may_stop_it_and_markers_may_not(
    tmp_path: Path, bundle: Path, keys: Path
) -> None:
    with guarded(tmp_path, bundle, keys) as daemon:  # the others' lives on, in whatever order
        assert not ask(daemon, of(keys, "mark"), "stop").ok
        assert ask(daemon, of(keys, "operate"), "stop").result == {"stopping": True}
        assert daemon.finish() == 0
