"""Memory of another process: find a pattern in it, flip a bit of it. Linux, with its rights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CHUNK = 2**24
PATTERN = 64
"""Bytes: an array's content is told from all else by so many of them."""


def flip_in(pid: int, content: bytes, i_bit: int) -> int:
    """Flip a bit wherever the process holds these bytes; return in how many places.

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
    start = max(0, min(i_byte - PATTERN // 2, len(content) - PATTERN))
    pattern = content[start : start + PATTERN]
    n_flipped = 0
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for address in _found(memory.fileno(), pid, pattern):
            at = address + i_byte - start
            byte = os.pread(memory.fileno(), 1, at)[0]
            os.pwrite(memory.fileno(), bytes([byte ^ (1 << i_bit)]), at)
            n_flipped += 1
    return n_flipped


def is_telling(content: bytes) -> bool:
    """Return True if an array can be found by its content."""
    return len(content) >= PATTERN and len(set(content)) > PATTERN // 4


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
