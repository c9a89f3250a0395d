"""A graph must be whole in its file: none of its numbers may lie in another one.

ONNX lets a tensor name a file that holds its values. Libraries look for it in the current folder,
where nobody has held it against a checksum. So the file is walked here, before any library sees it,
as far as its tensors; what it means is the libraries' business.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from export.errors import BundleError
from export.regular_files import damaged, opened

FIELDS_AT_MOST, DEPTH_AT_MOST = 2_000_000, 64
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

# Which fields of a message hold which messages, by their numbers in onnx.proto.
_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _FUNCTION, _SPARSE, _TENSOR = range(7)
_INSIDE: dict[int, dict[int, int]] = {
    _MODEL: {7: _GRAPH, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {
        5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE,
    },
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {},
}  # fmt: skip
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_TAGS = 2**32
"""Of a longer tag libraries read the lower half, and would find the field that is hidden there."""


def require_whole(where: Path) -> None:
    """Refuse a graph some of whose tensors lie in another file.

    Raises:
        BundleError: one does, or the file is no ONNX graph.
    """
    try:
        with opened(where) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
            _Walk(held).message(_MODEL, 0, len(held))
    except _ExternalError as err:
        raise BundleError(
            f"{where}: a tensor's values lie in another file, which nothing vouches for; export "
            "the bundle again with all of them in the graph"
        ) from err
    except (OSError, ValueError, IndexError) as err:
        raise damaged(where, f"no ONNX graph ({err})") from err


class _ExternalError(Exception):
    """A tensor lies elsewhere."""


class _Walk:
    """One walk through a file."""

    def __init__(self, held: mmap.mmap) -> None:
        self._held, self._left = held, FIELDS_AT_MOST

    def message(self, kind: int, start: int, end: int, depth: int = 0) -> None:
        """Walk one message and those inside."""
        if depth > DEPTH_AT_MOST:
            raise ValueError("nested too deep")
        for number, value, stop in self._fields(start, end):
            if kind == _TENSOR and (
                number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value)
            ):
                raise _ExternalError
            inside = _INSIDE[kind].get(number)
            if inside is not None and stop is not None:
                self.message(inside, value, stop, depth + 1)

    def _fields(self, at: int, end: int) -> Iterator[tuple[int, int, int | None]]:
        """Yield each field: its number, and its value, or where its bytes begin and end."""
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"over {FIELDS_AT_MOST} parts")
            tag, at = self._varint(at)
            if tag >= _TAGS:
                raise ValueError("a field's number beyond 32 bits")
            number, wire = tag >> 3, tag & 7
            if wire == _VARINT:
                value, at = self._varint(at)
                yield number, value, None
            elif wire == _LENGTH:
                n_bytes, at = self._varint(at)
                if n_bytes > end - at:
                    raise ValueError("cut short")
                yield number, at, at + n_bytes
                at += n_bytes
            elif wire in (_FIXED64, _FIXED32):
                at += 8 if wire == _FIXED64 else 4
            else:
                raise ValueError(f"unknown wire type {wire}")

    def _varint(self, at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = self._held[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
            shift += 7
            if shift > 63:
                raise ValueError("a number without end")
