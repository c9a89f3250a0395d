"""A bundle sent from another machine: with keys, in chunks, refused when damaged on its way."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.errors import UnreachableError
from streams.wire.curve_keys import read_curve_keys
from streams.wire.schema import Command, decode_reply, encode
from streams.wire.sockets import DecodeSubscriber, request
from tests.system.conftest import DaemonStarter
from tests.system.running import Daemon, Process, wait_until
from tests.system.sources import Living


@pytest.fixture
def keys(tmp_path: Path, run: Callable[..., Process]) -> Path:
    assert run("keys", str(tmp_path / "keys")).code() == 0
    return tmp_path / "keys"


@pytest.fixture
def guarded(
    serve: DaemonStarter, bundle: Path, stream: str, source: Living, keys: Path, tmp_path: Path
) -> Daemon:
    """A daemon that listens on every address, with keys; `control` is where to reach it."""
    everywhere = {
        "decode": "tcp://0.0.0.0:*",
        "control": "tcp://0.0.0.0:*",
        "keys": str(keys / "server.json"),
    }
    daemon = serve(
        stream, bundle, output=everywhere, decoder={"incoming": str(tmp_path / "incoming")}
    )
    endpoints = daemon.announced
    daemon.control = endpoints["control"].replace("0.0.0.0", "127.0.0.1")
    daemon.endpoint = endpoints["decode"].replace("0.0.0.0", "127.0.0.1")
    return daemon


def ask(daemon: Daemon, keys: Path, command: str, attached: bytes | None = None, **arguments):
    payload = encode(Command(command=command, arguments=arguments))
    client = read_curve_keys(keys / "client.json")
    return decode_reply(request(daemon.control, payload, 10.0, client, attached))


def test_a_sent_bundle_goes_into_service_with_its_engines(
    guarded: Daemon,
    source: Living,
    keys: Path,
    other: Path,
    run: Callable[..., Process],
    tmp_path: Path,
) -> None:
    built = run("build", str(other), "--backend", "tensorrt", "--with-bundle")
    wait_until(lambda: not built.is_alive, source.send_due)
    assert built.code() == 0, built.err
    ours = read_curve_keys(keys / "client.json")
    subscriber = DecodeSubscriber(guarded.endpoint, ("decode",), ours)
    wait_until(lambda: subscriber.receive(0.0), source.send_due)
    client = ("--control", guarded.control, "--keys", str(keys / "client.json"))
    sent = run("swap", str(other), "--send", "--json", *client)
    wait_until(lambda: not sent.is_alive, source.send_due)
    assert sent.code() == 0, sent.err
    stages = [json.loads(line)["stage"] for line in sent.out.splitlines()]
    assert stages == ["received", "loaded", "parity", "shadow", "active"]
    assert ask(guarded, keys, "status").result["decoder_id"] == "other"
    assert len(list((tmp_path / "incoming").rglob("*.plan"))) == 1
    subscriber.close()


def test_a_chunk_damaged_on_its_way_is_refused(
    guarded: Daemon, keys: Path, other: Path, tmp_path: Path
) -> None:
    held = (other / "graph.onnx").read_bytes()
    wait_until(lambda: ask(guarded, keys, "status").ok)  # its start is over
    begun = ask(guarded, keys, "send_begin", files={"graph.onnx": len(held)})
    transfer = begun.result["transfer"]
    digest = hashlib.sha256(held).hexdigest()
    damaged = bytes([held[0] ^ 1]) + held[1:]
    reply = ask(
        guarded, keys, "send_chunk", damaged,
        transfer=transfer, file="graph.onnx", offset=0, sha256=digest,
    )  # fmt: skip
    assert not reply.ok
    assert "damaged" in reply.error
    assert not list((tmp_path / "incoming").iterdir())


def test_names_that_leave_the_folder_are_refused(guarded: Daemon, keys: Path) -> None:
    for name in ("../escape", "/etc/passwd", "report/../../x"):
        reply = ask(guarded, keys, "send_begin", files={name: 1})
        assert not reply.ok


@pytest.mark.parametrize("name", ["other.bin", "{folder}/planted", "../planted", "a\0b"])
def test_a_file_that_was_not_announced_is_not_made(
    guarded: Daemon, keys: Path, tmp_path: Path, name: str
) -> None:
    wait_until(lambda: ask(guarded, keys, "status").ok)
    transfer = ask(guarded, keys, "send_begin", files={"graph.onnx": 1}).result["transfer"]
    named = name.format(folder=tmp_path)
    digest = hashlib.sha256(b"").hexdigest()
    reply = ask(
        guarded, keys, "send_chunk", b"", transfer=transfer, file=named, offset=0, sha256=digest
    )
    assert not reply.ok
    assert "not announced" in reply.error
    assert not list(tmp_path.rglob("planted"))
    assert ask(guarded, keys, "status").ok


def test_without_the_keys_nobody_is_answered(guarded: Daemon, tmp_path: Path, run) -> None:
    payload = encode(Command(command="status"))
    with pytest.raises(UnreachableError):
        request(guarded.control, payload, 1.0)
    assert run("keys", str(tmp_path / "strangers")).code() == 0
    stranger = read_curve_keys(tmp_path / "strangers" / "client.json")
    with pytest.raises(UnreachableError):
        request(guarded.control, payload, 1.0, stranger)


def test_keys_are_neither_overwritten_nor_readable_by_others(
    keys: Path, run: Callable[..., Process]
) -> None:
    assert run("keys", str(keys)).code() == 2
    (keys / "client.json").chmod(0o644)
    status = run("status", "--keys", str(keys / "client.json"))
    assert status.code() == 2
    assert "chmod 600" in status.err


def test_beyond_loopback_without_keys_is_refused(
    serve: DaemonStarter, bundle: Path, stream: str
) -> None:
    daemon = serve(stream, bundle, output={"decode": f"tcp://{socket.gethostname()}:5999"})
    assert daemon.code() == 6
    assert "spikeloop keys" in daemon.err
