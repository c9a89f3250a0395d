"""The frames of a recording's files, and the messages by which the daemon hands records over.

A run is a folder of parts. A part begins with a head; frames follow it, each with a number, a
length and a CRC-32 of both and the content. The content is compressed: records, each behind its
length. What a record holds stands in `records.py`. Only the standard library is needed here.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAGIC, FORMAT = b"spikeloop run\r\n\x00", 1
RUN_FOLDER = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
PART_FILE = re.compile(r"part-\d{6}\.rec")
FOLLOWED_BY = "followed-by"
BEHAVIOR, BEHAVIOR_FILE = "behavior-{:03d}.xdf", re.compile(r"behavior-\d+\.xdf")
"""A file in a run's folder that names the run that went on in its place."""
FRAME_BYTES_AT_MOST = 2**26
"""Longer ones are no frames: a length that was damaged must not fill the memory."""
RECORDS_BYTES_AT_MOST = 2**30
_HEAD = struct.Struct("<16sHHIQ8sI")
_FRAME = struct.Struct("<4sIII")
_FRAME_MAGIC = b"FRME"
_LENGTH = struct.Struct("<I")
_MESSAGE = struct.Struct("<cI")
BEGIN_PART, RECORDS = b"P", b"R"


@dataclass(frozen=True, slots=True)
class PartHead:
    """Begin a part.

    Attributes:
        segment: how many recorders there were before in this run; frames between two are lost.
        part: its number in the run, from 1.
        first_frame: number of its first frame; they go on from part to part of a segment.
        run_id: the run's.
    """

    segment: int
    part: int
    first_frame: int
    run_id: str

    def packed(self) -> bytes:
        """Return the head's bytes."""
        fields = (MAGIC, FORMAT, self.segment, self.part, self.first_frame, self.run_id.encode())
        return _HEAD.pack(*fields, zlib.crc32(_HEAD.pack(*fields, 0)[:-4]))


class DamagedError(Exception):
    """A part's content is not what was written."""


class CutShortError(DamagedError):
    """A part ends within a frame, as one does whose recorder was killed."""


def part_name(part: int) -> str:
    """Return the file name of a part."""
    return f"part-{part:06d}.rec"


def frame(number: int, records: bytes) -> bytes:
    """Return a frame that holds these records."""
    content = zlib.compress(records, 1)
    return _FRAME.pack(_FRAME_MAGIC, number, len(content), _sum(number, content)) + content


def record(content: bytes) -> bytes:
    """Return a record behind its length."""
    return _LENGTH.pack(len(content)) + content


def message(kind: bytes, content: bytes) -> bytes:
    """Return a message to the recorder."""
    return _MESSAGE.pack(kind, len(content)) + content


def take_message(held: bytearray) -> tuple[bytes, bytes] | None:
    """Take the first whole message off what was received; None if there is none yet."""
    if len(held) < _MESSAGE.size:
        return None
    kind, length = _MESSAGE.unpack_from(held)
    end = _MESSAGE.size + length
    if len(held) < end:
        return None
    content = bytes(held[_MESSAGE.size : end])
    del held[:end]
    return kind, content


def read_head(file: BinaryIO) -> PartHead:
    """Read a part's head.

    Raises:
        DamagedError: it is none, or of another format.
    """
    held = file.read(_HEAD.size)
    if len(held) < _HEAD.size:
        raise CutShortError("it ends before its first frame")
    magic, version, segment, part, first_frame, run_id, crc = _HEAD.unpack(held)
    if magic.rstrip(b"\0") != MAGIC.rstrip(b"\0"):
        raise DamagedError("it is no part of a recording")
    if version != FORMAT:
        raise DamagedError(f"it is of format {version}; this spikeloop reads {FORMAT}")
    if crc != zlib.crc32(held[:-4]):
        raise DamagedError("its head does not have the checksum that was written")
    return PartHead(segment, part, first_frame, run_id.decode("ascii", "replace"))


def read_frames(file: BinaryIO, first_frame: int) -> Iterator[list[bytes]]:
    """Yield the records of each frame behind the head.

    Raises:
        CutShortError: the last frame is not whole.
        DamagedError: a frame is not what was written; which is said.
    """
    number = first_frame
    while (begin := _frame_begin(file, number)) is not None:
        length, crc = begin
        content = file.read(length)
        if len(content) < length:
            raise _cut_short(number)
        if crc != _sum(number, content):
            raise DamagedError(f"frame {number} does not have the checksum that was written")
        unpacking = zlib.decompressobj()
        held = unpacking.decompress(content, RECORDS_BYTES_AT_MOST)
        if not unpacking.eof:
            raise DamagedError(f"frame {number} holds over {RECORDS_BYTES_AT_MOST} bytes")
        yield _records(held)
        number += 1


def frame_places(file: BinaryIO, first_frame: int) -> Iterator[tuple[int, int]]:
    """Yield the offset and number of each whole frame behind the head, going by lengths alone.

    Raises:
        CutShortError: the last frame is not whole.
        DamagedError: what follows a frame is none; where the next one is, nobody knows.
    """
    number, end = first_frame, os.fstat(file.fileno()).st_size
    while (begin := _frame_begin(file, number)) is not None:
        length, _ = begin
        after = file.tell()
        if after + length > end:
            raise _cut_short(number)
        yield after - _FRAME.size, number
        file.seek(length, os.SEEK_CUR)
        number += 1


def _frame_begin(file: BinaryIO, number: int) -> tuple[int, int] | None:
    """Read the length and checksum of the frame that begins here; None at the file's end."""
    held = file.read(_FRAME.size)
    if not held:
        return None
    if len(held) < _FRAME.size:
        raise _cut_short(number)
    magic, told, length, crc = _FRAME.unpack(held)
    if magic != _FRAME_MAGIC or told != number or length > FRAME_BYTES_AT_MOST:
        raise DamagedError(f"frame {number} does not begin where it should")
    return length, crc


def _cut_short(number: int) -> CutShortError:
    return CutShortError(f"it ends within frame {number}")


def parts_of(run: Path) -> list[Path]:
    """Return a run's parts in order."""
    return sorted(one for one in run.iterdir() if PART_FILE.fullmatch(one.name))


def runs_in(folder: Path) -> list[Path]:
    """Return the runs in a folder of recordings, oldest first."""
    with os.scandir(folder) as found:
        return sorted(Path(one.path) for one in found if RUN_FOLDER.fullmatch(one.name))


def _sum(number: int, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(struct.pack("<II", number, len(content))))


def _records(held: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(held):
        (length,) = _LENGTH.unpack_from(held, at)
        at += _LENGTH.size
        found.append(held[at : at + length])
        at += length
    return found
