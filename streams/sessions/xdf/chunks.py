"""XDF 1.0, the format of LabRecorder, written chunk by chunk; `pyxdf` reads it.

A chunk is its length, a tag and the content; a file that was cut anywhere is whole up to its last
whole chunk. https://github.com/sccn/xdf/wiki/Specifications
"""

from __future__ import annotations

import os
import struct
import xml.etree.ElementTree as ElementTree

import numpy as np

from streams.messages import Float64s

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


def frame(tag: int, content: bytes, stream: int | None = None) -> bytes:
    """A chunk as bytes."""
    body = content if stream is None else struct.pack("<I", stream) + content
    return _length(len(body) + 2) + struct.pack("<H", tag) + body


def file_header(recorder_host: str, created: str, stamps: str = "lsl") -> bytes:
    """Make a file's beginning.

    Args:
        recorder_host: the recording machine's name.
        created: ISO 8601.
        stamps: "lsl" for the senders' own, or "arrival".
    """
    info = ElementTree.Element("info")
    for name, text in (
        ("version", "1.0"),
        ("datetime", created),
        ("recorder_host", recorder_host),
        ("stamps", stamps),
    ):
        ElementTree.SubElement(info, name).text = text
    return MAGIC + frame(FILE_HEADER, b'<?xml version="1.0"?>' + ElementTree.tostring(info))


def samples(values: np.ndarray, stamps: Float64s, fmt: str) -> bytes:
    """Make a samples chunk's content, each sample with its stamp.

    Args:
        values: (n, n_channels); for strings, bytes in an object array.
        stamps: (n,) seconds on the sender's clock.
        fmt: the stream's format, as LSL calls it.
    """
    head = _length(len(stamps))
    if fmt == "string":
        return head + b"".join(
            struct.pack("<Bd", 8, stamp) + b"".join(_length(len(text)) + text for text in row)
            for stamp, row in zip(stamps.tolist(), values, strict=True)
        )
    one = [("size", "u1"), ("stamp", "<f8"), ("value", NUMBERS[fmt], (values.shape[1],))]
    table = np.empty(len(stamps), np.dtype(one))
    table["size"], table["stamp"], table["value"] = 8, stamps, values
    return head + table.tobytes()


def clock_offset(t_s: float, offset_s: float) -> bytes:
    """Make a clock offset's content, on the sender's clock as LabRecorder writes it.

    Args:
        t_s: when it was measured, on the recorder's clock.
        offset_s: what to add to the sender's stamps to have the recorder's time.
    """
    return struct.pack("<dd", t_s - offset_s, offset_s)


def footer(n_samples: int, first_s: float, last_s: float) -> bytes:
    """Make a stream footer's content."""
    info = ElementTree.Element("info")
    for name, value in (
        ("first_timestamp", first_s),
        ("last_timestamp", last_s),
        ("sample_count", n_samples),
    ):
        ElementTree.SubElement(info, name).text = repr(value)
    return b'<?xml version="1.0"?>' + ElementTree.tostring(info)


def append(handle: int, held: bytes) -> None:
    """Write all bytes.

    Raises:
        OSError: the disk refuses.
    """
    view = memoryview(held)
    while view:
        view = view[os.write(handle, view) :]


def _length(n: int) -> bytes:
    if n < 2**8:
        return struct.pack("<BB", 1, n)
    return struct.pack("<BI", 4, n) if n < 2**32 else struct.pack("<BQ", 8, n)
