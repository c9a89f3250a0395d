"""Commands and bytes that were made to harm; one daemon stands them all, and goes on decoding."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import zmq

from export.bundle import write_bundle
from streams.wire.schema import Command, Reply, encode
from tests.export.tiny_graph import tiny_parts
from tests.faults.seen import Seen
from tests.system.conftest import HOP_S, UNIT_KEYS, write_config
from tests.system.running import Daemon, Process, unique, wait_until
from tests.system.sender_process import SenderProcess


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[Daemon]:
    folder, name = tmp_path_factory.mktemp("attacked"), unique("spikes")
    sender = SenderProcess(name, UNIT_KEYS)
    incoming = {"bundle": str(bundle), "incoming": str(folder / "incoming"), "lead_s": 0.1}
    started = Daemon(folder, write_config(folder, name, bundle, decoder=incoming))
    yield started
    started.kill()
    sender.close()


@pytest.fixture
def daemon(shared: Daemon, seen: Seen) -> Iterator[Daemon]:
    """The daemon: it decodes before the attack, and after it in the same run."""
    run_id = shared.until_validity("ok")["run_id"]
    seen.fault(shared)
    yield shared
    assert shared.until_validity("ok")["run_id"] == run_id


def ask(daemon: Daemon, command: str, **arguments: Any) -> Reply:
    return daemon.send(encode(Command(command=command, arguments=arguments)))


def deployed(daemon: Daemon, path: Path) -> dict[str, Any]:
    assert ask(daemon, "swap", bundle=str(path)).ok
    result: dict[str, Any] = {}

    def over() -> bool:
        result.update(ask(daemon, "deployment").result)
        return bool(result["over"])

    wait_until(over, daemon.listen)
    return result


def made(folder: Path, **fields: Any) -> Path:
    given, contents = tiny_parts(UNIT_KEYS, HOP_S, HOP_S, with_position=True, name="made")
    write_bundle(folder, given | fields, **contents)
    return folder


def send_without_end(raw: socket.socket) -> None:
    for _ in range(2**10):
        raw.sendall(b"a" * 2**20)


def test_the_command_swap_fails_if_the_deployment_did(
    daemon: Daemon, tmp_path: Path, run: Callable[..., Process]
) -> None:
    path = made(tmp_path / "b")
    (path / "graph.onnx").unlink()
    (path / "graph.onnx").symlink_to("/dev/zero")
    process = run("swap", str(path), "--control", daemon.control)
    assert process.code() == 4
    assert "no regular file" in process.err


def test_a_decoder_of_a_narrower_lead_range(daemon: Daemon, tmp_path: Path) -> None:
    lead_s = {"min": 0.0, "max": 0.05, "default": 0.0}
    result = deployed(daemon, made(tmp_path / "b", lead_s=lead_s))
    assert "the lead time is 0.1 s" in result["refused"]


def test_a_decoder_of_another_safe_value(daemon: Daemon, tmp_path: Path) -> None:
    given, _ = tiny_parts(UNIT_KEYS, HOP_S, HOP_S, with_position=True)
    outputs = [dict(output, safe="hold") for output in given["outputs"]]
    result = deployed(daemon, made(tmp_path / "b", outputs=outputs))
    assert "its outputs" in result["refused"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"bias": [1e200, 0.0], "speed_power": 4.0}, "larger than the range"),
        ({"bias": [1e308, 1e308]}, "larger than the range"),
        ({"bias": [1.0]}, "bias has 1 numbers"),
        ({"bias": [1.0] * 5}, "bias has 5 numbers"),
        ({"bounds": {"grip": [0, 1]}}, "bounds name 'grip'"),
        ({"lead_s": 0.5}, "was trained for"),
    ],
)
def test_a_shape_that_does_not_fit(daemon: Daemon, settings: dict[str, Any], told: str) -> None:
    before = ask(daemon, "status").result["shaping"]
    reply = ask(daemon, "shape", **settings)
    assert not reply.ok
    assert told in reply.error
    assert ask(daemon, "status").result["shaping"] == before


def test_names_that_leave_the_folder(daemon: Daemon) -> None:
    for name in ("../x", "/tmp/spikeloop-made", "a\0b"):
        assert not ask(daemon, "send_begin", files={name: 1}).ok
        transfer = ask(daemon, "send_begin", files={"graph.onnx": 1}).result["transfer"]
        arguments = {"transfer": transfer, "file": name, "offset": 0, "sha256": "0" * 64}
        reply = ask(daemon, "send_chunk", **arguments)
        assert not reply.ok
    assert not Path("/tmp/spikeloop-made").exists()


def test_bytes_that_are_no_request_keep_nobody_from_an_answer(daemon: Daemon) -> None:
    context = zmq.Context()
    for frames in ([b"\xff\x00junk"], [b"", b"x", b"y", b"z"], [b"", b"\x00" * 100], [b"a"] * 50):
        dealer = context.socket(zmq.DEALER)
        dealer.linger = 200
        dealer.connect(daemon.control)
        dealer.send_multipart(frames)
        dealer.close()
        assert ask(daemon, "status").ok
    host = urlsplit(daemon.control)
    for _ in range(8):
        with socket.create_connection((host.hostname, host.port)) as raw:
            raw.sendall(b"\xff" + bytes(range(256)) * 4)
        assert ask(daemon, "status").ok
    context.term()


def test_a_subscriber_that_sends_a_huge_frame_is_cut_off(daemon: Daemon) -> None:
    host = urlsplit(daemon.endpoint)
    with socket.create_connection((host.hostname, host.port)) as raw:
        raw.settimeout(5.0)
        raw.sendall(b"\xff" + b"\0" * 8 + b"\x7f\x03\x00NULL".ljust(55, b"\0"))
        ready = b"\x05READY\x0bSocket-Type\0\0\0\x03SUB"
        raw.sendall(b"\x04" + bytes([len(ready)]) + ready)
        raw.sendall(b"\x02" + struct.pack(">Q", 2**32) + b"\x01")
        with pytest.raises(ConnectionError):
            send_without_end(raw)


def test_a_flood_of_marks_holds_up_no_beat(daemon: Daemon) -> None:
    assert not ask(daemon, "mark", text="x" * 10_000).ok
    skipped = daemon.heard.decodes[-1]["beats_skipped"]
    for _ in range(1000):
        assert ask(daemon, "mark", text="x" * 300).ok
    daemon.until_validity("ok")
    assert daemon.heard.decodes[-1]["beats_skipped"] <= skipped + 5
