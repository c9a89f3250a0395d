"""XDF 1.0, the format of LabRecorder: chunks of framed bytes, written and read as they come.

A chunk is its length, a tag and the content; a file that was cut anywhere is whole up to its last
whole chunk. https://github.com/sccn/xdf/wiki/Specifications
"""

from __future__ import annotations

import os
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streams.messages import Float64s, StreamsError

MAGIC = b"XDF:"
FILE_HEADER, STREAM_HEADER, SAMPLES, CLOCK_OFFSET, BOUNDARY, STREAM_FOOTER = range(1, 7)
BOUNDARY_MARK = bytes.fromhex("43a546dccbf5410fb30ed5467383cbe4")
NUMBERS = {
    "int8": "<i1",
    "int16": "<i2",
    "int32": "<i4",
    "int64": "<i8",
    "float32": "<f4",
    "double64": "<f8",
}


class RecordingError(StreamsError):
    """A recording cannot be written or read."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One whole chunk: its tag, the stream that it belongs to (0 for none), and its content."""

    tag: int
    stream: int
    content: bytes


def frame(tag: int, content: bytes, stream: int | None = None) -> bytes:
    """A chunk as bytes."""
    body = content if stream is None else struct.pack("<I", stream) + content
    return _length(len(body) + 2) + struct.pack("<H", tag) + body


def file_header(recorder_host: str, created: str) -> bytes:
    """The beginning of a file.

    Args:
        recorder_host: name of the machine that records.
        created: ISO 8601.
    """
    info = ElementTree.Element("info")
    for name, text in (("version", "1.0"), ("datetime", created), ("recorder_host", recorder_host)):
        ElementTree.SubElement(info, name).text = text
    return MAGIC + frame(FILE_HEADER, b'<?xml version="1.0"?>' + ElementTree.tostring(info))


def samples(values: np.ndarray, stamps: Float64s, fmt: str) -> bytes:
    """The content of a chunk of samples, each with its stamp.

    Args:
        values: (n, n_channels); for strings, bytes in an object array.
        stamps: (n,) seconds of the sender's clock.
        fmt: the stream's format, as LSL calls it.
    """
    head = _length(len(stamps))
    if fmt == "string":
        return head + b"".join(
            struct.pack("<Bd", 8, stamp) + b"".join(_length(len(text)) + text for text in row)
            for stamp, row in zip(stamps.tolist(), values, strict=True)
        )
    table = np.empty(len(stamps), _sample_type(fmt, values.shape[1]))
    table["size"], table["stamp"], table["value"] = 8, stamps, values
    return head + table.tobytes()


def clock_offset(t_s: float, offset_s: float) -> bytes:
    """The content of a clock offset: when it was measured, and what to add to the stamps."""
    return struct.pack("<dd", t_s, offset_s)


def footer(n_samples: int, first_s: float, last_s: float) -> bytes:
    """The content of a stream's footer."""
    info = ElementTree.Element("info")
    for name, value in (
        ("first_timestamp", first_s),
        ("last_timestamp", last_s),
        ("sample_count", n_samples),
    ):
        ElementTree.SubElement(info, name).text = repr(value)
    return b'<?xml version="1.0"?>' + ElementTree.tostring(info)


class Tail:
    """Reads a growing file: each call gives the whole chunks that have been added since.

    Args:
        path: of the file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = 0

    def take(self) -> list[Chunk]:
        """The whole chunks that are new; a chunk of which a part is missing is left for later.

        Raises:
            RecordingError: no XDF, or it cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._at)
                held = file.read()
        except FileNotFoundError:
            return []
        except OSError as err:
            raise RecordingError(f"cannot read {self.path}: {err.strerror}") from err
        begin = 0
        if self._at == 0:
            if len(held) >= len(MAGIC) and held[: len(MAGIC)] != MAGIC:
                raise RecordingError(f"{self.path} is no XDF file: it does not begin with `XDF:`")
            begin = len(MAGIC)
        chunks, end = [], begin
        for chunk, stop in _chunks(held, begin):
            chunks.append(chunk)
            end = stop
        self._at += end if len(held) >= begin else 0
        return chunks


def append(handle: int, held: bytes) -> None:
    """Write all bytes.

    Raises:
        OSError: the disk refuses.
    """
    view = memoryview(held)
    while view:
        view = view[os.write(handle, view) :]


def parse_samples(content: bytes, fmt: str, n_channels: int) -> tuple[np.ndarray, Float64s]:
    """Values (n, n_channels) and stamps (n,), NaN where a sample has none of its own.

    Raises:
        RecordingError: the content is damaged.
    """
    try:
        n, at = _read_length(content, 0)
        kind = None if fmt == "string" else _sample_type(fmt, n_channels)
        if kind is not None and len(content) - at == n * kind.itemsize:
            table = np.frombuffer(content, kind, n, at)
            if (table["size"] == 8).all():
                return np.array(table["value"]), np.array(table["stamp"], np.float64)
        return _parse_one_by_one(content, at, n, fmt, n_channels)
    except (struct.error, IndexError, ValueError, KeyError) as err:
        raise RecordingError(f"a chunk of samples of format {fmt} is damaged: {err}") from err


def _parse_one_by_one(
    content: bytes, at: int, n: int, fmt: str, n_channels: int
) -> tuple[np.ndarray, Float64s]:
    stamps, rows = np.full(n, np.nan), []
    for i in range(n):
        has_stamp = content[at]
        at += 1
        if has_stamp:
            stamps[i] = struct.unpack_from("<d", content, at)[0]
            at += 8
        if fmt == "string":
            row = []
            for _ in range(n_channels):
                length, at = _read_length(content, at)
                row.append(content[at : at + length])
                at += length
            rows.append(row)
        else:
            kind = np.dtype(NUMBERS[fmt])
            rows.append(np.frombuffer(content, kind, n_channels, at).tolist())
            at += kind.itemsize * n_channels
    kind = np.dtype(object) if fmt == "string" else np.dtype(NUMBERS[fmt])
    return np.array(rows, kind).reshape(n, n_channels), stamps


def _chunks(held: bytes, at: int) -> Iterator[tuple[Chunk, int]]:
    while True:
        try:
            length, body = _read_length(held, at)
        except IndexError:
            return
        stop = body + length
        if stop > len(held) or length < 2:
            return
        (tag,) = struct.unpack_from("<H", held, body)
        body += 2
        stream = 0
        if tag in (STREAM_HEADER, SAMPLES, CLOCK_OFFSET, STREAM_FOOTER) and stop - body >= 4:
            (stream,) = struct.unpack_from("<I", held, body)
            body += 4
        yield Chunk(tag, stream, held[body:stop]), stop
        at = stop


def _sample_type(fmt: str, n_channels: int) -> np.dtype[np.void]:
    return np.dtype([("size", "u1"), ("stamp", "<f8"), ("value", NUMBERS[fmt], (n_channels,))])


def _length(n: int) -> bytes:
    if n < 2**8:
        return struct.pack("<BB", 1, n)
    return struct.pack("<BI", 4, n) if n < 2**32 else struct.pack("<BQ", 8, n)


def _read_length(held: bytes, at: int) -> tuple[int, int]:
    """A length and where it ends.

    Raises:
        IndexError: it is not whole, or no length.
    """
    size = held[at]
    if size not in (1, 4, 8) or at + 1 + size > len(held):
        raise IndexError("no whole length")
    return int.from_bytes(held[at + 1 : at + 1 + size], "little"), at + 1 + size
