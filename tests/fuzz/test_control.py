"""Commands to a running daemon: any bytes; it answers all that are requests, and goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import assume, given
from hypothesis import strategies as st

from service.daemon.control import HANDLERS
from streams.errors import WireError
from streams.wire.schema import decode_command, decode_reply
from tests.fuzz.mutations import altered, fuzz, mutated, odd_json
from tests.system.conftest import UNIT_KEYS, write_config
from tests.system.running import Daemon, unique
from tests.system.sender_process import SenderProcess

WITHIN_MS = 20_000
SEEDS = [
    msgspec.json.encode({"schema": 1, "command": name, "arguments": arguments})
    for name, arguments in {
        "status": {}, "pause": {}, "resume": {}, "mark": {"text": "x"}, "rollback": {},
        "shape": {"gain": 1.0, "bias": [0.0, 0.0], "bounds": {"position": [-20, 20]}},
        "swap": {"bundle": "/nowhere", "shadow_s": 0.0, "hold": False, "tables": False},
        "deployment": {},
        "send_begin": {"files": {"graph.onnx": 3}},
        "send_chunk": {"transfer": "0" * 12, "file": "x", "offset": 0, "sha256": "0" * 64},
        "send_end": {"transfer": "0" * 12}, "promote": {}, "dismiss": {},
    }.items()
]  # fmt: skip
ARGUMENTS = sorted(
    {name for one in HANDLERS.values() for name, _ in (*one.required, *one.optional)}
)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[Daemon]:
    folder, name = tmp_path_factory.mktemp("fuzzed"), unique("spikes")
    sender = SenderProcess(name, UNIT_KEYS)
    decoder = {"incoming": str(folder / "incoming")}
    started = Daemon(folder, write_config(folder, name, bundle, decoder=decoder))
    run_id = started.until_validity("ok")["run_id"]
    yield started
    started.ask("resume")
    assert started.until_validity("ok")["run_id"] == run_id
    assert not [e for e in started.heard.events if e["event"] == "command_failed"]
    assert "Traceback" not in started.err
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
    assume(not ends_it(frames[0]))
    dealer.send_multipart([b"", *frames])
    assert dealer.poll(WITHIN_MS)
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


@fuzz()
@given(payload=mutated(SEEDS), attached=st.none() | st.binary(max_size=64))
def test_bytes(
    i_round: int,
    daemon: Daemon,
    asked: zmq.Socket[bytes],
    payload: bytes,
    attached: bytes | None,
) -> None:
    expect_answer(daemon, asked, [payload] if attached is None else [payload, attached])


@fuzz()
@given(data=st.data())
def test_odd_arguments(
    i_round: int, daemon: Daemon, asked: zmq.Socket[bytes], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(set(HANDLERS) - {"stop"})))
    kinds = dict((*HANDLERS[name].required, *HANDLERS[name].optional))
    arguments: dict[str, Any] = {
        key: data.draw(odd_of(kind)) for key, kind in kinds.items() if kind is not bytes
    }
    try:
        payload = msgspec.json.encode({"schema": 1, "command": name, "arguments": arguments})
    except (OverflowError, UnicodeEncodeError, ValueError):
        return
    expect_answer(
        daemon, asked, [payload, data.draw(st.binary(max_size=16))][: data.draw(st.integers(1, 2))]
    )


def odd_of(kind: type) -> st.SearchStrategy[Any]:
    """A value of an argument's type, as odd as that allows, or any other."""
    numbers = st.sampled_from((0, -1, 1e308, 5e-324, 2**63, 10**30, 0.5))
    of_kind: dict[type, st.SearchStrategy[Any]] = {
        str: st.sampled_from(("", "x" * 5000, "\0", "/dev/zero", "../..", "a" * 255)) | st.text(),
        float: numbers,
        int: numbers,
        bool: st.booleans(),
        list: st.lists(numbers, max_size=5),
        dict: st.dictionaries(st.sampled_from(("velocity", "position", "graph.onnx", "")),
                              st.lists(numbers, max_size=3) | numbers, max_size=3),
    }  # fmt: skip
    return st.one_of(of_kind[kind], odd_json())


@fuzz()
@given(data=st.data())
def test_altered_commands(
    i_round: int, daemon: Daemon, asked: zmq.Socket[bytes], data: st.DataObject
) -> None:
    seed = data.draw(st.sampled_from(SEEDS))
    content = data.draw(altered(msgspec.json.decode(seed)))
    try:
        payload = msgspec.json.encode(content)
    except (OverflowError, UnicodeEncodeError, ValueError):
        return
    expect_answer(daemon, asked, [payload])


@fuzz()
@given(frames=st.lists(st.binary(max_size=64), min_size=1, max_size=6))
def test_frames_that_are_no_request(
    i_round: int, daemon: Daemon, asked: zmq.Socket[bytes], frames: list[bytes]
) -> None:
    assume(not (len(frames) in (2, 3) and not frames[0]))
    asked.send_multipart(frames)
    expect_answer(daemon, asked, [SEEDS[0]])
