"""The packed form of `decode`: against the JSON form, a golden message, the docs and C."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.loop.validity import REASONS as REASONS_OF_THE_LOOP
from streams.errors import WireError
from streams.messages import Validity
from streams.wire.packed import HEAD, REASONS, VERSION, DecodePacker, MessageReader, decode_writer
from streams.wire.schema import Decode, encode
from streams.wire.sockets import DecodeSubscriber, Publisher
from tests.streams.test_wire import DECODE, DOC, GOLDEN, ROOT, rows_under

PACKED = (GOLDEN / "decode.packed").read_bytes()
DIMS = {"velocity": 2}

whole = st.integers(0, 2**62)
seconds = st.floats(allow_nan=False, allow_infinity=False)
number = st.one_of(st.none(), st.floats(allow_nan=False))


@st.composite
def decodes(draw: st.DrawFn) -> tuple[dict[str, int], Decode]:
    """Any outputs, and a decode of theirs."""
    dims = draw(st.dictionaries(st.text(max_size=8), st.integers(1, 4), max_size=4))
    values = st.fixed_dictionaries(
        {
            name: st.one_of(st.none(), st.lists(number, min_size=n, max_size=n))
            for name, n in dims.items()
        }
    )
    changes: dict[str, Any] = {
        name: draw(strategy)
        for name, strategy in {
            **dict.fromkeys(("run_id", "decoder_id", "checksum", "backend", "precision"),
                            st.text(max_size=20)),
            **dict.fromkeys(("seq", "beat", "spikes_in", "spikes_late", "spikes_dropped",
                             "beats_skipped"), whole),
            **dict.fromkeys(("t_window", "t_cut", "t_done", "t_sent", "lead_s"), seconds),
            "t_newest_spike": st.one_of(st.none(), seconds),
            "validity": st.sampled_from([one.name.lower() for one in Validity]),
            "reason": st.sampled_from(REASONS),
            "late": st.booleans(),
            "tokens": st.integers(0, 2**32 - 1),
            "token_cap": st.one_of(st.none(), st.integers(1, 2**31 - 1)),
            "value": values,
            "value_raw": values,
        }.items()
    }  # fmt: skip
    units = {name: draw(st.text(max_size=5)) for name in dims}
    return dims, Decode(schema=1, units=units, **changes)


def from_json(decode: Decode) -> dict[str, Any]:
    """The JSON form's fields; an output without any number is null."""
    fields: dict[str, Any] = msgspec.json.decode(encode(decode))
    for name in ("value", "value_raw"):
        fields[name] = {
            output: None if told is None or all(v is None for v in told) else told
            for output, told in fields[name].items()
        }
    return fields


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """`clients/python/spikeloop_client.py`."""
    path = ROOT / "clients" / "python" / "spikeloop_client.py"
    spec = importlib.util.spec_from_file_location("spikeloop_client", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


@given(st.lists(decodes(), min_size=1, max_size=4))
def test_both_forms_say_the_same(example: ModuleType, told: list[tuple[Any, Decode]]) -> None:
    """One reader reads decodes of several runs, as after a restart."""
    reader = MessageReader()
    for dims, decode in told:
        wanted = from_json(decode)
        packed = DecodePacker(dims).pack(decode)
        assert reader.read(encode(decode)) == msgspec.json.decode(encode(decode))
        assert reader.read(packed) == wanted
        assert list(reader.read(packed)) == list(wanted)
        by_example = example.read_decode(packed)
        assert by_example == {k: v for k, v in wanted.items() if k != "schema"} | {"outputs": dims}
        assert example.read_decode(encode(decode)) == msgspec.json.decode(encode(decode))


def test_a_packed_decode_is_written_as_the_golden_one_byte_for_byte() -> None:
    assert DecodePacker(DIMS).pack(DECODE) == PACKED
    assert MessageReader().read(PACKED) == msgspec.json.decode(encode(DECODE))


def test_the_text_follows_another_decoder_and_backend() -> None:
    packer, reader = DecodePacker(DIMS), MessageReader()
    other = msgspec.structs.replace(DECODE, checksum="77aa", backend="numba-cpu")
    for decode in (DECODE, other, DECODE, DECODE):
        assert reader.read(packer.pack(decode)) == from_json(decode)


def test_every_reason_has_a_code_and_none_lost_its_own() -> None:
    assert set(REASONS) == set(REASONS_OF_THE_LOOP)
    told = DOC.partition("Codes of `reason`: ")[2].partition(". ")[0]
    codes = [one.split() for one in told.replace("\n", " ").split(", ")]
    assert {int(code): reason.strip('`"') for code, reason in codes} == dict(enumerate(REASONS))


def test_the_docs_say_where_each_field_lies() -> None:
    rows = [row for row in rows_under("### `decode`, packed") if len(row) == 4]
    told = [(int(row[0]), int(row[1]), row[2]) for row in rows if row[0].isdigit()]
    types = {"s": "bytes", "B": "uint8", "H": "uint16", "I": "uint32", "i": "int32", "q": "int64",
             "d": "float64"}  # fmt: skip
    wanted, offset = [], 0
    for count, kind in re.findall(r"(\d*)(\w)", HEAD.format.lstrip("<")):
        parts = [f"{count}s"] if kind == "s" else [kind] * int(count or 1)
        for part in parts:
            wanted.append((offset, struct.calcsize(f"<{part}"), types[kind]))
            offset += struct.calcsize(f"<{part}")
    assert told == wanted
    assert offset == HEAD.size == 120


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_the_struct_of_the_docs_reads_the_golden_message_in_c(tmp_path: Path) -> None:
    (layout,) = re.findall(r"^```c\n(.*?)^```", DOC, flags=re.M | re.S)
    program = tmp_path / "read.c"
    program.write_text(
        "#include <stdint.h>\n#include <stdio.h>\n#include <string.h>\n" + layout +
        """int main(int argc, char **argv) {
            static char message[4096]; struct spikeloop_decode head; double value[2];
            FILE *file = fopen(argv[1], "rb");
            size_t n = fread(message, 1, sizeof message, file);
            memcpy(&head, message, sizeof head);
            memcpy(value, message + head.head_bytes, sizeof value);
            printf("%zu %d %zu %lld %.3f %d %.1f %.1f %.*s", sizeof head, head.version,
                   n - head.head_bytes - 16u * head.n_numbers - head.text_bytes,
                   (long long)head.seq, head.t_window, head.token_cap, value[0], value[1],
                   (int)head.text_bytes, message + head.head_bytes + 16 * head.n_numbers);
            return 0;
        }"""
    )  # fmt: skip
    subprocess.run(["cc", "-Wall", "-o", str(tmp_path / "read"), str(program)], check=True)
    said = subprocess.run(
        [str(tmp_path / "read"), str(GOLDEN / "decode.packed")], capture_output=True, check=True
    ).stdout.decode()
    head, _, text = said.partition(" {")
    assert head == "120 1 0 1041 5123.420 -1 1.2 -3.1"
    assert '"decoder_id":"demo"' in text


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda p: p[:4] + bytes([VERSION + 1]) + p[5:], "of version 2"),
        (lambda p: p[:60], "cut off"),
        (lambda p: p[:-1], "damaged"),
        (lambda p: p + b"}", "damaged"),
        (lambda p: p[:5] + b"\x05" + p[6:], "validity 5"),
        (lambda p: p[:8] + b"\x70\x00" + p[10:], "damaged"),
        (lambda p: p[:10] + b"\xff\xff" + p[12:], "damaged"),
        (lambda p: p[:-1] + b"]", "text of a packed decode is damaged"),
        (lambda p: p.replace(b'"velocity":2', b'"velocity":3'), "2 numbers"),
        (lambda p: b"XX" + p, "neither JSON nor"),
        (lambda p: b"", "neither JSON nor"),
    ],
)
def test_what_it_does_not_know_is_refused(damage: Callable[[bytes], bytes], told: str) -> None:
    with pytest.raises(WireError, match=re.escape(told)):
        MessageReader().read(damage(PACKED))


@given(st.integers(0, len(PACKED) - 1), st.integers(0, 255))
def test_a_damaged_byte_is_read_or_refused_and_nothing_else(i: int, byte: int) -> None:
    damaged = PACKED[:i] + bytes([byte]) + PACKED[i + 1 :]
    with contextlib.suppress(WireError):
        assert MessageReader().read(damaged)["schema"] == 1


def test_a_later_daemon_may_have_a_longer_head_and_more_reasons(example: ModuleType) -> None:
    longer = PACKED[:6] + b"\xc8" + PACKED[7:8] + struct.pack("<H", HEAD.size + 8) + PACKED[10:120]
    longer += bytes(8) + PACKED[120:]
    wanted = from_json(DECODE) | {"reason": "code 200"}
    assert MessageReader().read(longer) == wanted
    assert example.read_decode(longer)["reason"] == "code 200"
    assert example.read_decode(longer)["value"] == wanted["value"]


def test_a_number_that_is_none_is_null() -> None:
    decode = msgspec.structs.replace(
        DECODE, value={"velocity": None}, value_raw={"velocity": [math.inf, None]}
    )
    read = MessageReader().read(DecodePacker(DIMS).pack(decode))
    assert (read["value"], read["value_raw"]) == ({"velocity": None}, {"velocity": None})


@pytest.mark.parametrize("form", ["json", "packed"])
def test_a_subscriber_reads_both_forms(form: Any) -> None:
    publisher, write = Publisher("tcp://127.0.0.1:*"), decode_writer(form, DIMS)
    subscriber = DecodeSubscriber(publisher.endpoint)
    heard = None
    while heard is None:
        publisher.send(b"decode", write(DECODE))
        heard = subscriber.receive(0.02)
    assert heard == ("decode", from_json(DECODE))
    subscriber.close()
    publisher.close()
