"""Damaged files: what is left is read, what is lost is remarks, and nothing ends in a traceback."""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streams.errors import RecordingError, StreamsError
from streams.sessions.convert.convert import MENDED, Reading, convert
from streams.sessions.xdf.reading import Recording, read_recording
from tests.streams import labrecorder
from tests.streams.labrecorder import chunk, hand, length, markers, spikes

SECONDS = 12
SOURCES = [spikes(seconds=SECONDS), hand(seconds=SECONDS), markers(seconds=SECONDS)]
CHUNKS = labrecorder.file_chunks(SOURCES, SECONDS)
BEGINS = np.concatenate([[0], np.cumsum([len(one) for one in CHUNKS])[:-1]])


def nth(tag: int, number: int, i: int = 0) -> int:
    """Index of the i-th chunk of a tag and stream."""
    head = struct.pack("<HI", tag, number)
    found = [j for j, one in enumerate(CHUNKS) if one[2:8] == head or one[5:11] == head]
    return found[i]


def with_chunk(i: int, content: bytes) -> bytes:
    return b"".join([*CHUNKS[:i], content, *CHUNKS[i + 1 :]])


def read(folder: Path, content: bytes) -> Recording:
    (folder / "a.xdf").write_bytes(content)
    return read_recording(folder / "a.xdf")


def numbers_read(recording: Recording) -> list[int]:
    return [len(one) for one in recording.streams.values()]


SENT = [len(one.t_s) for one in SOURCES]


def test_what_is_whole_has_nothing_said_of_it(tmp_path: Path) -> None:
    recording = read(tmp_path, b"".join(CHUNKS))
    assert numbers_read(recording) == SENT
    assert recording.remarks == ()


def test_damage_is_said_with_its_place_and_the_time_that_is_lost(tmp_path: Path) -> None:
    i = nth(3, 1, 6)
    recording = read(tmp_path, with_chunk(i, b"\x07" + CHUNKS[i][1:]))
    (text,) = [one for one in recording.remarks if "is damaged at byte" in one]
    at = int(re.search(r"damaged at byte (\d+)", text)[1])
    assert at == pytest.approx(BEGINS[i], abs=2)
    lost = re.search(r"'amplifier' between ([\d.]+) s and ([\d.]+) s", text)
    assert float(lost[1]) == pytest.approx(6.0, abs=0.1)
    assert float(lost[2]) == pytest.approx(10.0, abs=0.1)
    n_missing = SENT[0] - numbers_read(recording)[0]
    assert f"{n_missing} of {SENT[0]} samples of 'amplifier' are missing" in recording.remarks


@pytest.mark.parametrize("claimed", [3, 10**6, 2**31])
@pytest.mark.parametrize("kind", [1, 2, 3])
def test_a_chunk_of_another_length_than_it_says(tmp_path: Path, claimed: int, kind: int) -> None:
    i = nth(3, kind, 1)
    head = 2 if CHUNKS[i][0] == 1 else 5
    recording = read(tmp_path, with_chunk(i, struct.pack("<BI", 4, claimed) + CHUNKS[i][head:]))
    at_least = [n // 2 for n in SENT]
    assert all(n >= least for n, least in zip(numbers_read(recording), at_least, strict=True))


def test_a_boundary_whose_length_swallows_the_rest(tmp_path: Path) -> None:
    i = next(j for j, one in enumerate(CHUNKS) if labrecorder.MARK in one)
    recording = read(tmp_path, with_chunk(i, b"\x04\x00\x00\x00\x7f" + CHUNKS[i][2:]))
    assert numbers_read(recording)[0] > 0.9 * SENT[0]
    assert any("is damaged at byte" in one for one in recording.remarks)


def test_a_chunk_that_claims_more_samples_than_it_has(tmp_path: Path) -> None:
    i = nth(3, 3)
    content = length(2**31) + CHUNKS[i][10:]
    recording = read(tmp_path, with_chunk(i, chunk(3, content, 3)))
    assert numbers_read(recording)[:2] == SENT[:2]
    assert numbers_read(recording)[2] < SENT[2]
    assert any("is damaged at byte" in one for one in recording.remarks)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_damaged_header_costs_its_stream(tmp_path: Path, number: int) -> None:
    i = nth(2, number)
    content = CHUNKS[i].replace(b"<name>", b"<nam\xff>")
    recording = read(tmp_path, with_chunk(i, content))
    assert any(f"the header of stream {number} at byte" in one for one in recording.remarks)
    assert numbers_read(recording) == [n for k, n in enumerate(SENT, 1) if k != number]
    if number == 1:
        with pytest.raises(RecordingError, match="holds no stream of type 'Spikes'"):
            convert([tmp_path / "a.xdf"], None, Reading())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"<channel_format>int32", b"<channel_format>int33"),
        (b"<channel_count>1", b"<channel_count>x"),
        (b"<nominal_srate>0.0", b"<nominal_srate>fast"),
    ],
)
def test_a_header_that_makes_no_sense(tmp_path: Path, before: bytes, after: bytes) -> None:
    i = nth(2, 1)
    content = CHUNKS[i][11:].replace(before, after)
    recording = read(tmp_path, with_chunk(i, chunk(2, content, 1)))
    assert any("the header of stream 1" in one for one in recording.remarks)
    assert numbers_read(recording) == SENT[1:]


def test_the_files_own_header_is_not_needed(tmp_path: Path) -> None:
    content = b"XDF:" + chunk(1, b"<info><dat\xffetime></info>")
    recording = read(tmp_path, with_chunk(0, content))
    assert numbers_read(recording) == SENT


def test_a_missing_footer_is_said(tmp_path: Path) -> None:
    recording = read(tmp_path, with_chunk(nth(6, 2), b""))
    assert recording.remarks == ("the footer of 'hand' is missing",)
    recording = read(tmp_path, b"".join(CHUNKS[:-3]))
    assert recording.remarks == (
        "it has no footers: the recording ended suddenly, or still goes on",
    )
    damaged = CHUNKS[nth(6, 2)].replace(b"</info>", b"</inf>>")
    recording = read(tmp_path, with_chunk(nth(6, 2), damaged))
    assert numbers_read(recording) == SENT
    assert any("hand" in one or "footer" in one for one in recording.remarks)


def test_a_clock_offset_of_a_stream_that_is_not_there(tmp_path: Path) -> None:
    i = nth(3, 2, 3)
    stray = chunk(4, struct.pack("<dd", 1.0, 2.0), 77)
    recording = read(tmp_path, with_chunk(i, stray + CHUNKS[i]))
    assert numbers_read(recording)[2] > 0
    assert any("is damaged at byte" in one for one in recording.remarks)


def test_chunks_of_kinds_of_their_own_are_said(tmp_path: Path) -> None:
    i = nth(3, 2, 3)
    recording = read(tmp_path, with_chunk(i, chunk(9, b"something") + CHUNKS[i]))
    assert numbers_read(recording) == SENT
    assert any("1 chunks of kinds that XDF 1.0" in one for one in recording.remarks)


def test_text_of_a_length_that_goes_to_the_end_of_the_file(tmp_path: Path) -> None:
    i = nth(3, 3, 1)
    content = bytearray(CHUNKS[i][8:])
    content[10:11] = b"\x04\xff\xff\xff\x7f"
    recording = read(tmp_path, with_chunk(i, chunk(3, bytes(content), 3)))
    assert all(n > 0.5 * sent for n, sent in zip(numbers_read(recording), SENT, strict=True))
    assert any("is damaged at byte" in one for one in recording.remarks)


@pytest.mark.parametrize("content", [b"", b"XD", b"XDF:"])
def test_a_file_that_has_just_begun(tmp_path: Path, content: bytes) -> None:
    assert numbers_read(read(tmp_path, content)) == []


@pytest.mark.parametrize("content", [b"XDF:" + b"\xff" * 3000, b"XDF:" + b"\x01" * 3000])
def test_what_is_no_recording_gets_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.xdf").write_bytes(content)
    with pytest.raises(StreamsError, match=r"a\.xdf"):
        convert([tmp_path / "a.xdf"], None, Reading())


def test_a_compressed_file_is_read(tmp_path: Path) -> None:
    for name in ("a.xdfz", "a.xdf.gz"):
        with gzip.open(tmp_path / name, "wb") as file:
            file.write(b"".join(CHUNKS))
        assert numbers_read(read_recording(tmp_path / name)) == SENT
    (tmp_path / "b.xdfz").write_bytes(b"XDF:")
    with pytest.raises(RecordingError, match="cannot read"):
        read_recording(tmp_path / "b.xdfz")


MANY = int(os.environ.get("SPIKELOOP_EXAMPLES", "60"))
Bytes = Sequence[tuple[int, int]]
N_BYTES = len(b"".join(CHUNKS))


@settings(max_examples=MANY, deadline=None)
@given(
    st.lists(st.tuples(st.integers(4, N_BYTES - 1), st.integers(0, 255)), min_size=1, max_size=5)
)
@example([(int(BEGINS[nth(3, 3)]) + 8, 4), (int(BEGINS[nth(3, 3)]) + 12, 0x7F)])
def test_no_damage_ends_otherwise_than_in_a_session_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, changed: Bytes
) -> None:
    content = bytearray(b"".join(CHUNKS))
    for at, value in changed:
        content[at] = value
    path = tmp_path_factory.mktemp("xdf") / "a.xdf"
    path.write_bytes(content)
    try:
        session = convert([path], None, Reading())
    except StreamsError:
        return
    n_lost = SENT[0] - int(session.spikes.count.sum())
    assert session.duration_s < 3700.0
    assert n_lost <= 0.02 * SENT[0] or session.provenance[MENDED]


@pytest.mark.parametrize("stamp", [math.inf, -math.inf, math.nan, 1e308, -1e300])
@pytest.mark.parametrize("at", [0, 3])
def test_a_stamp_that_is_no_time_ends_in_no_warning(tmp_path: Path, stamp: float, at: int) -> None:
    content = b"".join(CHUNKS)
    for one in SOURCES:
        sent = float(one.t_s[at]) - one.offset(float(one.t_s[at]))
        held = struct.pack("<Bd", 8, sent)
        assert held in content
        content = content.replace(held, struct.pack("<Bd", 8, stamp))
    path = tmp_path / "a.xdf"
    path.write_bytes(content)
    with suppress(StreamsError):
        convert([path], None, Reading())
