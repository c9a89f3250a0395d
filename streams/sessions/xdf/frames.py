"""Chunks in an XDF file, walked by their lengths: damaged places, and the bytes without them.

`pyxdf` reads the content. It does not say where it lost its way, takes a cut sample for whole, and
ends where a header is damaged; this file decides what it is given and what is told.
"""

from __future__ import annotations

import gzip
import io
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from streams.errors import RecordingError
from streams.sessions.xdf import chunks as xdf

SEARCH_BYTES = 2**20
"""Bytes that `pyxdf` reads at a time to find a boundary: the one read that may be short."""
_OF_STREAM = (xdf.STREAM_HEADER, xdf.SAMPLES, xdf.CLOCK_OFFSET, xdf.STREAM_FOOTER)
_KNOWN = (xdf.FILE_HEADER, xdf.BOUNDARY, *_OF_STREAM)
Span = tuple[int, int]


@dataclass(slots=True)
class Frames:
    """A file's chunks.

    Attributes:
        n_bytes: the file's size.
        damaged: bytes [begin, end) that are no chunks; each ends after the next boundary chunk.
        tail: where a last chunk begins that was cut; `n_bytes` where there is none.
        sample_bytes: bytes that a stream's sample needs at least, by stream number.
        bad_headers: what is wrong with the headers that cannot be read, by stream number.
        n_foreign: chunks whose tags XDF 1.0 does not know.
        samples_at: where the sample chunks begin.
    """

    n_bytes: int = 0
    damaged: list[Span] = field(default_factory=list)
    tail: int = 0
    sample_bytes: dict[int, int] = field(default_factory=dict)
    bad_headers: dict[int, str] = field(default_factory=dict)
    n_foreign: int = 0
    samples_at: list[int] = field(default_factory=list)

    def kept(self) -> list[Span]:
        """Spans that are chunks."""
        spans, at = [], 0
        for begin, end in sorted(self.damaged):
            spans.append((at, min(begin, self.tail)))
            at = max(at, end)
        spans.append((at, self.tail))
        return [(begin, end) for begin, end in spans if end > begin]

    def cut_next_samples(self, at: int, file: BinaryIO) -> bool:
        """Count the first kept sample chunk from byte `at` on as damaged; False without one."""
        known = [span for span in self.damaged if span[1] > at]
        for begin in self.samples_at:
            if begin >= at and not any(span[0] <= begin < span[1] for span in known):
                self.damaged.append((begin, after_boundary(file, begin) or self.n_bytes))
                return True
        return False


class NotWholeError(Exception):
    """Bytes that are no chunk.

    Args:
        end: where the next chunk begins, if the length may be trusted.
    """

    def __init__(self, end: int | None = None) -> None:
        super().__init__()
        self.end = end


def opened(path: Path) -> BinaryIO:
    """Open a file's bytes, compressed or not.

    Raises:
        RecordingError: it cannot be read, or is no XDF.
    """
    try:
        if path.suffix == ".xdfz" or path.suffixes[-2:] == [".xdf", ".gz"]:
            with gzip.open(path, "rb") as packed:
                file: BinaryIO = io.BytesIO(packed.read())
        else:
            file = path.open("rb")
        magic = file.read(len(xdf.MAGIC))
    except (OSError, EOFError) as err:
        raise RecordingError(f"cannot read {path}: {err}") from err
    if magic != xdf.MAGIC[: len(magic)]:
        file.close()
        raise RecordingError(f"{path} is no XDF file: it does not begin with `XDF:`")
    return file


def walk(file: BinaryIO) -> Frames:
    """Go from chunk to chunk by their lengths; after damage, from the next boundary on."""
    frames = Frames(n_bytes=file.seek(0, io.SEEK_END))
    frames.tail = frames.n_bytes
    at = min(len(xdf.MAGIC), frames.n_bytes)
    while at < frames.n_bytes:
        try:
            at = _next(file, at, frames)
        except NotWholeError as err:
            resumed = err.end or after_boundary(file, at)
            if resumed is None and _is_cut(file, at, frames.n_bytes):
                frames.tail = at
                break
            frames.damaged.append((at, resumed or frames.n_bytes))
            at = resumed or frames.n_bytes
    return frames


def after_boundary(file: BinaryIO, at: int) -> int | None:
    """The first byte after the next boundary chunk; None where there is none."""
    file.seek(at)
    before = b""
    while block := file.read(SEARCH_BYTES):
        place = (before + block).find(xdf.BOUNDARY_MARK)
        if place >= 0:
            return at - len(before) + place + len(xdf.BOUNDARY_MARK)
        at += len(block)
        before = (before + block)[-len(xdf.BOUNDARY_MARK) + 1 :]
    return None


def _next(file: BinaryIO, at: int, frames: Frames) -> int:
    """Look at one chunk; where the next begins."""
    length, tag, stream, head = _head(file, at)
    end = at + head + length
    if end > frames.n_bytes or length < (6 if tag in _OF_STREAM else 2):
        raise NotWholeError
    if tag not in _KNOWN:
        _head(file, end) if end < frames.n_bytes else None
        frames.n_foreign += 1
    elif tag == xdf.STREAM_HEADER:
        _note_header(file.read(length - 6), stream, at, frames)
    elif tag in _OF_STREAM and stream not in frames.sample_bytes | frames.bad_headers:
        raise NotWholeError
    elif tag == xdf.SAMPLES and stream in frames.sample_bytes:
        n_samples, _ = _length(file)
        if n_samples * frames.sample_bytes[stream] > length:
            raise NotWholeError(end)
        frames.samples_at.append(at)
    elif tag == xdf.FILE_HEADER and _parsed(file.read(length - 2)) is None:
        raise NotWholeError(end)
    return end


def _head(file: BinaryIO, at: int) -> tuple[int, int, int, int]:
    """Read a chunk's length, tag and stream, and the bytes that the length itself takes."""
    file.seek(at)
    length, head = _length(file)
    tag = struct.unpack("<H", _exactly(file, 2))[0]
    stream = struct.unpack("<I", _exactly(file, 4))[0] if tag in _OF_STREAM else 0
    return length, tag, stream, head


def _length(file: BinaryIO) -> tuple[int, int]:
    size = _exactly(file, 1)[0]
    if size not in (1, 4, 8):
        raise NotWholeError
    return int.from_bytes(_exactly(file, size), "little"), 1 + size


def _exactly(file: BinaryIO, n: int) -> bytes:
    held = file.read(n)
    if len(held) < n:
        raise NotWholeError
    return held


def _is_cut(file: BinaryIO, at: int, n_bytes: int) -> bool:
    """Return True if a chunk begins there whose end is missing, and which is not damaged."""
    try:
        length, tag, _, head = _head(file, at)
    except NotWholeError:
        file.seek(at)
        return n_bytes - at < 15 and file.read(1) in (b"\x01", b"\x04", b"\x08")
    return tag in _KNOWN and at + head + length > n_bytes


def _parsed(content: bytes) -> ElementTree.Element | None:
    try:
        # Expat bounds what entities grow to from 2.4.1 on; `tests/fuzz` sends it bombs.
        return ElementTree.fromstring(content.decode("utf-8", "replace"))  # nosec B314
    except ElementTree.ParseError:
        return None


def _note_header(content: bytes, stream: int, at: int, frames: Frames) -> None:
    """Note how many bytes its samples need, or that the header is damaged."""
    info = _parsed(content)
    try:
        if info is None or info.findtext("name") is None:
            raise ValueError
        float(info.findtext("nominal_srate") or "none")
        fmt, n_channels = info.findtext("channel_format") or "", info.findtext("channel_count")
        each = 1 if fmt == "string" else int(xdf.NUMBERS[fmt][-1])
        frames.sample_bytes[stream] = 1 + int(n_channels or "none") * each
    except (ValueError, KeyError):
        frames.bad_headers[stream] = f"the header of stream {stream} at byte {at} is damaged"


class WholeReads(io.BytesIO):
    """Bytes that raise instead of giving less than was asked for.

    `pyxdf` would make a sample from what is there, or take the file's end for a chunk's end.

    Args:
        file: to read.
        spans: [begin, end) for each part to keep, in order.
    """

    def __init__(self, file: BinaryIO, spans: Sequence[Span]) -> None:
        super().__init__(b"".join(_part(file, span) for span in spans))

    def read(self, n: int | None = -1) -> bytes:
        """Read n bytes.

        Raises:
            EOFError: there are fewer.
        """
        held = super().read(n)
        if n not in (None, -1, SEARCH_BYTES) and len(held) < (n or 0):
            raise EOFError("the file ends inside a chunk")
        return held

    def readinto(self, room: bytearray) -> int:  # type: ignore[override]
        """Fill the room; 0 at the file's end.

        Raises:
            EOFError: it ends before the room is full.
        """
        n = super().readinto(room)
        if 0 < n < len(room) or (n == 0 and len(room) > 1):
            raise EOFError("the file ends inside a sample")
        return n


def _part(file: BinaryIO, span: Span) -> bytes:
    file.seek(span[0])
    return file.read(span[1] - span[0])


def in_file(at: int, spans: Sequence[Span]) -> int:
    """Return the file position behind byte `at` of the kept spans together."""
    for begin, end in spans:
        if at <= end - begin:
            return begin + at
        at -= end - begin
    return spans[-1][1] if spans else 0
