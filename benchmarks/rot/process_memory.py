"""Memory of another process: find a pattern in it, flip a bit of it. Linux, with its rights."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

CHUNK = 2**24
PATTERN = 64
"""Bytes: an array's content is told from all else by so many of them."""


def flip_in(pid: int, content: bytes, i_bit: int) -> list[float]:
    """Flip a bit wherever the process holds these bytes; return when, place by place.

    A library may keep copies that it never reads again, and nobody can tell from outside which
    one it reads.

    Args:
        pid: the process.
        content: of an array, as it should be.
        i_bit: of the content.

    Raises:
        OSError: the process is gone, or it may not be written to.
    """
    i_byte, i_bit = divmod(i_bit, 8)
    start, pattern = _around(content, i_byte)
    t_flipped_s: list[float] = []
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        handle = memory.fileno()
        # All at once: what is read anew after the first must not be hit by a later one.
        for address in list(_found(handle, pid, pattern)):
            if os.pread(handle, len(pattern), address) != pattern:  # used for something else by now
                continue
            at = address + i_byte - start
            byte = os.pread(handle, 1, at)[0]
            t_flipped_s.append(time.monotonic())
            os.pwrite(handle, bytes([byte ^ (1 << i_bit)]), at)
    return t_flipped_s


def is_telling(content: bytes, i_bit: int = 0) -> bool:
    """Return True if nothing else looks like an array around this bit, as zeros would."""
    return len(content) >= PATTERN and len(set(_around(content, i_bit // 8)[1])) > PATTERN // 4


def _around(content: bytes, i_byte: int) -> tuple[int, bytes]:
    start = max(0, min(i_byte - PATTERN // 2, len(content) - PATTERN))
    return start, content[start : start + PATTERN]


def _found(handle: int, pid: int, pattern: bytes) -> Iterator[int]:
    for start, end in _writable(pid):
        for begun in range(start, end, CHUNK):
            n_bytes = min(CHUNK + len(pattern) - 1, end - begun)
            try:
                held = os.pread(handle, n_bytes, begun)
            except OSError:  # it was given back meanwhile
                continue
            at = held.find(pattern)
            while at >= 0:
                yield begun + at
                at = held.find(pattern, at + 1)


def _writable(pid: int) -> Iterator[tuple[int, int]]:
    """Yield the memory that the process may write to: what lies in files is not its own."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, rights, *_ = line.split()
        if rights.startswith("rw"):
            start, end = (int(one, 16) for one in span.split("-"))
            yield start, end
