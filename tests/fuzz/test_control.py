"""Commands to a running daemon: any bytes; it answers all that are requests, and goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
import zmq

from service.daemon.control import HANDLERS
from streams.errors import WireError
from streams.wire.schema import decode_command, decode_reply
from tests.fuzz.mutations import altered, fuzz, mutated, odd_json
from tests.fuzz.opened_apart import N_WAITS
from tests.system.conftest import UNIT_KEYS, write_config
from tests.system.running import Daemon, unique
from tests.system.sender_process import SenderProcess

WITHIN_MS = 20_000
N_TESTS, HALF = 4, 0.5
SEEDS = [
    msgspec.json.encode({"schema": 1, "command": name, "arguments": arguments})
    for name, arguments in {
        "status": {}, "pause": {}, "resume": {}, "mark": {"text": "x"}, "rollback": {},
        "shape": {"gain": 1.0, "bias": [0.0, 0.0], "bounds": {"position": [-20, 20]}},
        "swap": {"bundle": "/nowhere", "shadow_s": 0.0, "hold": False, "tables": False},
        "deployment": {}, "keep": {},
        "send_begin": {"files": {"graph.onnx": 3}},
        "send_chunk": {"transfer": "0" * 12, "file": "x", "offset": 0, "sha256": "0" * 64},
        "send_end": {"transfer": "0" * 12}, "promote": {}, "dismiss": {},
    }.items()
]  # fmt: skip
ARGUMENTS = sorted(
    {name for one in HANDLERS.values() for name, _ in (*one.required, *one.optional)}
)


@pytest.fixture(scope="module")
def daemon(quick_folder: Path, bundle: Path) -> Iterator[Daemon]:
    folder, name = quick_folder, unique("spikes")
    sender = SenderProcess(name, UNIT_KEYS)
    decoder = {"incoming": str(folder / "incoming")}
    started = Daemon(folder, write_config(folder, name, bundle, decoder=decoder))
    run_id = started.until_validity("ok")["run_id"]
    yield started
    started.ask("resume")
    assert started.until_validity("ok")["run_id"] == run_id
    assert not [e for e in started.heard.events if e["event"] == "command_failed"]
    assert "Traceback" not in started.err
    status = Path(f"/proc/{started.announced['pid']}/status")
    if status.exists():
        told = next(one for one in status.read_text().splitlines() if one.startswith("VmHWM"))
        print(f"the daemon: {told}")  # noqa: T201
    started.kill()
    sender.close()


@pytest.fixture(scope="module")
def asked(daemon: Daemon) -> Iterator[zmq.Socket[bytes]]:
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.connect(daemon.control)
    yield dealer
    dealer.close(0)
    context.term()


def expect_answer(daemon: Daemon, dealer: zmq.Socket[bytes], frames: list[bytes]) -> None:
    if ends_it(frames[0]):
        return
    dealer.send_multipart([b"", *frames])
    assert any(dealer.poll(WITHIN_MS // N_WAITS) for _ in range(N_WAITS))
    reply = decode_reply(dealer.recv_multipart()[1])
    assert reply.ok or reply.error.strip()
    assert "it failed" not in reply.error
    daemon.listen()
    del daemon.heard.decodes[:-100]


def ends_it(payload: bytes) -> bool:
    try:
        return decode_command(payload).command == "stop"
    except WireError:
        return False


def attached(rng: Random, at_most: int = 64) -> list[bytes]:
    """Bytes that follow a command, or none."""
    return [rng.randbytes(rng.randrange(at_most))] if rng.random() < HALF else []


@fuzz(share=N_TESTS)
def test_bytes(rng: Random, daemon: Daemon, asked: zmq.Socket[bytes]) -> None:
    expect_answer(daemon, asked, [mutated(rng, SEEDS), *attached(rng)])


@fuzz(share=N_TESTS)
def test_odd_arguments(rng: Random, daemon: Daemon, asked: zmq.Socket[bytes]) -> None:
    name = rng.choice(sorted(set(HANDLERS) - {"stop"}))
    kinds = dict((*HANDLERS[name].required, *HANDLERS[name].optional))
    arguments = {key: odd_of(rng, kind) for key, kind in kinds.items() if kind is not bytes}
    try:
        payload = msgspec.json.encode({"schema": 1, "command": name, "arguments": arguments})
    except (OverflowError, UnicodeEncodeError, ValueError):
        return
    expect_answer(daemon, asked, [payload, *attached(rng, at_most=16)])


NUMBERS = (0, -1, 1e308, 5e-324, 2**63, 10**30, 0.5)
TEXTS = ("", "x" * 5000, "\0", "/dev/zero", "../..", "a" * 255)
OUTPUTS = ("velocity", "position", "graph.onnx", "")


def odd_of(rng: Random, kind: type) -> Any:
    """A value of an argument's type, as odd as that allows, or any other."""
    if rng.random() < HALF:
        return odd_json(rng)
    if kind is dict:
        return {name: odd_of(rng, list) for name in rng.sample(OUTPUTS, rng.randrange(4))}
    if kind is list:
        return rng.choices(NUMBERS, k=rng.randrange(6))
    return rng.choice({str: TEXTS, bool: (False, True)}.get(kind, NUMBERS))


@fuzz(share=N_TESTS)
def test_altered_commands(rng: Random, daemon: Daemon, asked: zmq.Socket[bytes]) -> None:
    content = altered(rng, msgspec.json.decode(rng.choice(SEEDS)))
    try:
        payload = msgspec.json.encode(content)
    except (OverflowError, UnicodeEncodeError, ValueError):
        return
    expect_answer(daemon, asked, [payload])


@fuzz(share=N_TESTS)
def test_frames_that_are_no_request(rng: Random, daemon: Daemon, asked: zmq.Socket[bytes]) -> None:
    frames = [rng.randbytes(rng.randrange(65)) for _ in range(rng.randint(1, 6))]
    if len(frames) in (2, 3) and not frames[0]:
        return
    asked.send_multipart(frames)
    expect_answer(daemon, asked, [SEEDS[0]])
