"""XDF as written here is what pyxdf reads; a file that was cut anywhere is whole up to there."""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import numpy as np
import pytest
import pyxdf
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.errors import RecordingError
from streams.sessions.xdf import chunks
from streams.sessions.xdf.chunks import frame
from streams.sessions.xdf.reading import read_recording

HEADER = (
    '<?xml version="1.0"?><info><name>{name}</name><type>{kind}</type>'
    "<channel_count>{n}</channel_count><nominal_srate>0</nominal_srate>"
    "<channel_format>{fmt}</channel_format><source_id>s</source_id><hostname>here</hostname>"
    "<desc><channels>{channels}</channels></desc></info>"
)
FORMATS = ("int8", "int16", "int32", "int64", "float32", "double64", "string")


def header(name: str, fmt: str, n: int, kind: str = "Position", unit: str = "") -> bytes:
    remarks = f"<unit>{unit}</unit>" if unit else ""
    channels = "".join(f"<channel><label>c{i}</label>{remarks}</channel>" for i in range(n))
    return HEADER.format(name=name, kind=kind, n=n, fmt=fmt, channels=channels).encode()


def values_of(fmt: str, n: int, n_channels: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if fmt == "string":
        rows = [[f"text é {rng.integers(1000)}".encode() for _ in range(n_channels)]]
        return np.array(rows * n, object).reshape(n, n_channels)
    return rng.integers(-100, 100, (n, n_channels)).astype(chunks.NUMBERS[fmt])


def write(
    path: Path, streams: list[tuple[str, list[int]]], n_channels: int = 2
) -> list[tuple[np.ndarray, np.ndarray]]:
    """A file of streams (format, lengths of their chunks), chunks in turn; what is in it."""
    pieces: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in streams]
    with path.open("wb") as file:
        file.write(chunks.file_header("there", "2026-01-01T00:00:00+00:00"))
        for i, (fmt, _) in enumerate(streams):
            file.write(frame(chunks.STREAM_HEADER, header(f"s{i}", fmt, n_channels), i + 1))
        for i, (fmt, lengths) in enumerate(streams):
            for j, n in enumerate(lengths):
                values = values_of(fmt, n, n_channels, 10 * i + j)
                stamps = 100.0 + j + np.arange(n) / 300.0
                file.write(frame(chunks.SAMPLES, chunks.samples(values, stamps, fmt), i + 1))
                file.write(frame(chunks.BOUNDARY, chunks.BOUNDARY_MARK))
                pieces[i].append((values, stamps))
    return [
        (np.concatenate([v for v, _ in one]), np.concatenate([t for _, t in one])) for one in pieces
    ]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(FORMATS), st.lists(st.integers(1, 300), min_size=1, max_size=4)),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 4),
)
def test_what_was_written_is_read_here_and_by_pyxdf(
    tmp_path_factory: pytest.TempPathFactory,
    streams: list[tuple[str, list[int]]],
    n_channels: int,
) -> None:
    path = tmp_path_factory.mktemp("xdf") / "a.xdf"
    written = write(path, streams, n_channels)
    ours = list(read_recording(path).streams.values())
    theirs, _ = pyxdf.load_xdf(path, synchronize_clocks=False, dejitter_timestamps=False)
    assert len(ours) == len(theirs) == len(streams)
    for (values, stamps), one, other in zip(written, ours, theirs, strict=True):
        np.testing.assert_array_equal(one.stamps_s, stamps)
        np.testing.assert_array_equal(other["time_stamps"], stamps)
        text = one.description.format == "string"
        expected = [[v.decode() for v in row] for row in values] if text else values.tolist()
        assert one.values.tolist() == expected
        read = other["time_series"]
        assert (read if text else read.tolist()) == expected


def test_a_file_cut_anywhere_gives_its_whole_chunks(tmp_path: Path) -> None:
    whole = tmp_path / "whole.xdf"
    written = write(whole, [("int32", [3, 2]), ("string", [2, 2])])
    held = whole.read_bytes()
    n_before = 0
    for n_bytes in range(4, len(held) + 1):
        cut = tmp_path / "cut.xdf"
        cut.write_bytes(held[:n_bytes])
        streams = list(read_recording(cut).streams.values())
        n = sum(map(len, streams))
        assert n >= n_before
        n_before = n
        for one, (values, _) in zip(streams, written, strict=False):
            text = one.description.format == "string"
            expected = [[v.decode() for v in row] for row in values] if text else values.tolist()
            assert one.values.tolist() == expected[: len(one)]
    assert n_before == 9


def test_a_recording_is_read_while_it_grows(tmp_path: Path) -> None:
    whole, growing = tmp_path / "whole.xdf", tmp_path / "growing.xdf"
    write(whole, [("double64", [5, 7, 2])])
    held = whole.read_bytes()
    seen = set()
    for n_bytes in range(0, len(held) + 7, 7):
        growing.write_bytes(held[:n_bytes])
        seen.add(sum(map(len, read_recording(growing).streams.values())))
    assert seen == {0, 5, 12, 14}


def test_a_clock_offset_is_written_on_the_senders_clock() -> None:
    assert struct.unpack("<dd", chunks.clock_offset(1000.0, 600.0)) == (400.0, 600.0)


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.xdf").write_bytes(b"RIFF....")
    with pytest.raises(RecordingError, match="does not begin with `XDF:`"):
        read_recording(tmp_path / "other.xdf")
    with pytest.raises(RecordingError, match="no recording at"):
        read_recording(tmp_path / "absent.xdf")


def test_pyxdf_opens_a_file_cut_inside_any_chunk_of_samples(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "pyxdf")
    path = tmp_path / "whole.xdf"
    write(path, [("int32", [200])])
    held = path.read_bytes()
    last = len(held) - len(frame(chunks.BOUNDARY, chunks.BOUNDARY_MARK))
    for n_bytes in (last - 1, last - 700, last - 2500):
        (tmp_path / "cut.xdf").write_bytes(held[:n_bytes])
        streams, _ = pyxdf.load_xdf(tmp_path / "cut.xdf")
        assert [one["info"]["name"][0] for one in streams] == ["s0"]
