"""The wire format against golden messages, `docs/wire.md` and the client that the docs show."""

from __future__ import annotations

import json
import math
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import WireError
from streams.spikes.ring import Fates
from streams.wire.schema import (
    SCHEMA,
    Command,
    Decode,
    Event,
    Heartbeat,
    Reply,
    Timing,
    decode_command,
    decode_reply,
    encode,
)
from streams.wire.sockets import Publisher

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
DOC = (ROOT / "docs" / "wire.md").read_text()
CLIENT = ROOT / "clients" / "python" / "follow.py"
Message = Decode | Heartbeat | Event | Timing | Command | Reply

DECODE = Decode(
    run_id="7f3a",
    seq=1041,
    beat=1042,
    t_window=5123.42,
    t_newest_spike=5123.4193,
    t_done=5123.4229,
    t_sent=5123.423,
    validity="ok",
    reason="",
    late=False,
    value={"velocity": [1.2, -3.1]},
    value_raw={"velocity": [1.1, -3.0]},
    units={"velocity": "cm/s"},
    lead_s=0.0,
    decoder_id="demo",
    checksum="9c1e",
    tokens=81,
    spikes_in=91233,
    spikes_late=3,
    spikes_dropped=0,
    beats_skipped=1,
    t_cut=5123.422,
    backend="onnxruntime-cpu",
    precision="fp32",
    token_cap=None,
)
HEARTBEAT = Heartbeat(
    run_id="7f3a",
    t_sent=5124.003,
    beat=1071,
    seq=1070,
    validity="stale",
    reason="keep_alives_missed",
    settle_ms=6.25,
    settling=False,
    settled_from_beat=502,
    delay_ms=6.2,
    disorder_ms=0.4,
    cut_shares={"watermark": 0.98, "settled": 0.02},
    hop_ms=20.0,
    decoder_id="demo",
    checksum="9c1e",
    backend="onnxruntime-cpu",
    precision="fp32",
    source="amplifier",
    fates={
        "used": 91220,
        "late": 3,
        "future": 0,
        "duplicate": 0,
        "unknown_unit": 10,
        "invalid": 0,
        "overflow": 0,
    },
    spikes_in=91233,
    spikes_pending=84,
    spikes_lost=0,
    spikes_ignored=0,
    shares={"late": 0.001, "future": 0.0, "invalid": 0.0, "duplicate": 0.0},
    beats_late=2,
    beats_skipped=1,
    clock_offset_s=0.0,
    clock_uncertainty_s=2.5e-05,
    decode_ms={"p50": 0.25, "p95": 0.3, "p99": 0.35, "p999": 0.6, "max": 0.9},
    flags=[],
    memory_mb=312.5,
    recorded=True,
    r2_lost=0.04,
)
TIMING = Timing(
    run_id="7f3a",
    seq=1041,
    beat=1042,
    t_window=5123.42,
    lsl_age_s=0.0031,
    t_arrival=5123.4218,
    t_due=5123.4219,
    cut_by="watermark",
    t_cut=5123.422,
    t_tokens=5123.4221,
    t_done=5123.4229,
    run_s=0.0009,
    was_ahead=False,
    t_sent=5123.423,
    t_out=5123.4231,
    t_end=5123.4232,
)
MESSAGES: dict[str, Message] = {
    "decode": DECODE,
    "heartbeat": HEARTBEAT,
    "timing": TIMING,
    "event": Event(run_id="7f3a", t_sent=4136.004, event="settled", detail={"settle_ms": 6.25}),
    "command": Command(command="pause"),
    "reply": Reply(ok=True, result={"paused": True}),
}


def rows_under(heading: str) -> list[list[str]]:
    """The cells of the tables of `docs/wire.md` between a heading and the next one."""
    _, found, rest = DOC.partition(f"\n{heading}\n")
    assert found, f"docs/wire.md has no {heading!r}"
    section = re.split(r"^#", rest, maxsplit=1, flags=re.M)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def names_in(cell: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", cell))


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_is_written_as_the_golden_one_byte_for_byte(name: str) -> None:
    assert encode(MESSAGES[name]) == (GOLDEN / f"{name}.json").read_bytes()


@pytest.mark.parametrize("name", MESSAGES)
def test_a_golden_message_reads_back(name: str) -> None:
    payload = (GOLDEN / f"{name}.json").read_bytes()
    assert msgspec.json.decode(payload, type=type(MESSAGES[name])) == MESSAGES[name]
    assert json.loads(payload)["schema"] == SCHEMA == 1


def test_every_golden_message_is_held() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(MESSAGES)


@pytest.mark.parametrize(
    ("heading", "message"),
    [
        ("### `decode`", Decode),
        ("### `heartbeat`", Heartbeat),
        ("### `event`", Event),
        ("### `timing`", Timing),
        ("### Request", Command),
        ("### Reply", Reply),
    ],
)
def test_the_docs_describe_each_field_and_no_other(
    heading: str, message: type[msgspec.Struct]
) -> None:
    described = [name for row in rows_under(heading) for name in sorted(names_in(row[0]))]
    assert sorted(described) == sorted(message.__struct_fields__)


def test_the_docs_name_each_fate_of_a_spike() -> None:
    (told,) = [row[-1] for row in rows_under("### `heartbeat`") if row[0] == "`fates`"]
    assert names_in(told) == set(Fates().as_dict()) == set(HEARTBEAT.fates)


def test_the_docs_show_the_client_as_it_is() -> None:
    text = CLIENT.read_text()
    assert f"```python\n{text}```\n" in DOC
    assert len(text.splitlines()) <= 20


def test_the_replies_that_the_docs_show_are_replies() -> None:
    shown = re.findall(r"^(->|<-) (.*)$", DOC, flags=re.M)
    requests = [decode_command(text.encode()) for arrow, text in shown if arrow == "->"]
    replies = [decode_reply(text.encode()) for arrow, text in shown if arrow == "<-"]
    assert [reply.ok for reply in replies] == [one.command != "halt" for one in requests]
    assert MESSAGES["command"] in requests
    assert MESSAGES["reply"] in replies


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.one_of(st.none(), st.lists(st.one_of(st.none(), st.floats(allow_nan=False)))),
    ),
    st.text(),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_decode_reads_back_with_null_for_what_is_not_finite(
    value: dict[str, list[float | None] | None], text: str, t_s: float
) -> None:
    decode = msgspec.structs.replace(DECODE, value=value, decoder_id=text, t_window=t_s)
    read = json.loads(encode(decode), parse_constant=pytest.fail)
    assert read["t_window"] == t_s
    assert read["decoder_id"] == text
    assert read["value"] == {
        name: dims and [None if v is None or math.isinf(v) else v for v in dims]
        for name, dims in value.items()
    }


def test_nan_is_written_as_null() -> None:
    event = Event(run_id="7f3a", t_sent=1.0, event="settled", detail={"settle_ms": math.nan})
    assert json.loads(encode(event))["detail"] == {"settle_ms": None}


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (b"", "not a command"),
        (b"status", "not a command"),
        (b"\xff\xfe", "not a command"),
        (b'["status"]', "Expected `object`"),
        (b"{}", "command"),
        (b'{"command":7}', "$.command"),
        (b'{"command":"stop","arguments":[]}', "$.arguments"),
        (b'{"command":"stop","force":true}', "force"),
        (b'{"schema":2,"command":"status"}', "speaks 1"),
        (b'{"schema":"1","command":"status"}', "$.schema"),
    ],
)
def test_what_is_no_command_is_refused_with_the_place(payload: bytes, told: str) -> None:
    with pytest.raises(WireError, match=re.escape(told)):
        decode_command(payload)


def test_a_command_needs_no_more_than_its_name() -> None:
    assert decode_command(b'{"command":"status"}') == Command(command="status")


@pytest.mark.parametrize("payload", [b"", b"hello", b"{}", b'{"ok":1}'])
def test_what_is_no_reply_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError, match="not a reply of spikeloop"):
        decode_reply(payload)


def test_a_reply_of_a_later_daemon_may_have_more_fields() -> None:
    assert decode_reply(b'{"ok":true,"took_ms":3}') == Reply(ok=True)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher("tcp://127.0.0.1:*")
    yield publisher
    publisher.close()


def later(seq: int, beat: int, **changes: Any) -> Decode:
    stamped = {"seq": seq, "beat": beat, "t_window": time.monotonic()}
    return msgspec.structs.replace(DECODE, **stamped | changes)


def test_the_client_of_the_docs_follows_a_publisher(publisher: Publisher) -> None:
    command = [sys.executable, "-u", str(CLIENT), publisher.endpoint]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        assert client.stderr is not None
        # Until it has connected nothing arrives; it ends by itself when nothing ever does.
        assert client.stdout.readline() == "0 none: [0.0, 0.0] lost 0\n"
        while not select.select([client.stdout], [], [], 0.02)[0]:
            publisher.send(b"decode", encode(later(1, 1)))
        publisher.send(b"heartbeat", encode(HEARTBEAT))
        publisher.send(b"decode", encode(later(2, 2)))
        publisher.send(b"decode", encode(later(3, 4, validity="stale")))
        publisher.send(b"decode", encode(later(6, 7)))
        publisher.send(b"decode", encode(later(1, 9, run_id="0001")))
        said = client.stdout.read().splitlines()
        assert client.wait() == 1
        assert "nothing heard for 3 s" in client.stderr.read()
    assert said[0] == "1 use it: [1.2, -3.1] lost 0"
    assert said[-6:] == [
        "2 use it: [1.2, -3.1] lost 0",
        "3 stale: [0.0, 0.0] lost 0",
        "6 use it: [1.2, -3.1] lost 2",
        "1 use it: [1.2, -3.1] lost 0",
        "1 old: [0.0, 0.0] lost 0",
        "1 gone: [0.0, 0.0] lost 0",
    ]


def test_a_name_that_is_no_utf_8_leaves_escaped() -> None:
    folder = os.fsdecode("Prüfung".encode("latin-1"))
    reply = Reply(ok=True, result={"recording": {"folder": folder}, folder: [folder, 1.5, None]})
    read = decode_reply(encode(reply))
    assert read.result == {
        "recording": {"folder": "Pr\\udcfcfung"}, "Pr\\udcfcfung": ["Pr\\udcfcfung", 1.5, None]
    }  # fmt: skip
