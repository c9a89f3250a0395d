"""The raster: every unit's spikes in the last five seconds, as columns of counts."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from streams.messages import Float64s

COLUMN_S, N_COLUMNS = 0.01, 500
ROWS_AT_MOST = 400
LATEST_COLUMNS = 30
"""Spikes that come later than this after their stamp stay out of a column that was sent."""
HEAD = struct.Struct("<IIII")
FINE, SILENT, CHANGED, UNKNOWN = range(4)
_PARTS = re.compile(r"(\d+)")


class Raster:
    """Counts of each unit in columns of 10 ms; 10,000 units take 5 MB.

    Args:
        now_s: where it begins, seconds on our clock.
    """

    def __init__(self, now_s: float) -> None:
        self._counts = np.zeros((0, N_COLUMNS), np.uint8)
        self._head = int(now_s / COLUMN_S)
        self._first_touched = self._head

    @property
    def head(self) -> int:
        """The newest column's number."""
        return self._head

    def add(self, unit: np.ndarray, t_s: Float64s, count: np.ndarray, n_units: int) -> None:
        """Take in spikes: (n,) units, their stamps on our clock, and how many each stands for."""
        self._grow(n_units)
        column = np.floor(t_s / COLUMN_S).astype(np.int64)
        held = (column > self._head - N_COLUMNS) & (column <= self._head)
        unit, column, count = unit[held], column[held], count[held]
        if len(column):
            np.add.at(self._counts, (unit, column % N_COLUMNS), count.astype(np.uint8))
            self._first_touched = min(self._first_touched, int(column.min()))

    def _grow(self, n_units: int) -> None:
        if n_units > len(self._counts):
            grown = np.zeros((n_units, N_COLUMNS), np.uint8)
            grown[: len(self._counts)] = self._counts
            self._counts = grown

    def advance(self, now_s: float) -> None:
        """Begin the columns up to now."""
        head = int(now_s / COLUMN_S)
        if head > self._head:
            fresh = np.arange(max(self._head + 1, head - N_COLUMNS + 1), head + 1) % N_COLUMNS
            self._counts[:, fresh] = 0
            self._head = head

    def touched(self) -> int:
        """Return the first column that changed since the last call."""
        first = max(self._first_touched, self._head - LATEST_COLUMNS)
        self._first_touched = self._head
        return first

    def columns(self, first: int, rows: Rows) -> bytes:
        """Return columns from `first` to the head: a header, then one byte a row and column.

        The header is four uint32: kind 1, first column, number of columns, number of rows.
        """
        self._grow(len(rows.order))  # units of a recorded run are known before their first spike
        first = max(first, self._head - N_COLUMNS + 1)
        numbers = np.arange(first, self._head + 1) % N_COLUMNS
        held = rows.fold(self._counts[:, numbers])
        return HEAD.pack(1, first & 0xFFFFFFFF, len(numbers), len(held)) + held.T.tobytes()


class Rows:
    """Rows of the units, from the bottom up.

    Args:
        order: (n_units,) unit of each place.

    Attributes:
        order: as given.
        starts: (n_rows,) first place of each row.
    """

    def __init__(self, order: np.ndarray) -> None:
        self.order = order
        n_rows = min(len(order), ROWS_AT_MOST)
        self.starts = (np.arange(n_rows) * len(order)) // max(1, n_rows)

    def fold(self, counts: np.ndarray) -> np.ndarray:
        """Sum (n_units, n) counts to (n_rows, n), at most 255."""
        held: np.ndarray = counts[self.order]
        if len(self.starts) == len(self.order):
            return held
        summed = np.add.reduceat(held, self.starts, axis=0, dtype=np.uint16)
        return np.minimum(summed, 255).astype(np.uint8)

    def worst(self, marks: np.ndarray) -> list[int]:
        """Return the highest of (n_units,) marks in each row."""
        if not len(self.order):
            return []
        found: list[int] = np.maximum.reduceat(marks[self.order], self.starts).tolist()
        return found

    def labels(self, keys: Sequence[str]) -> list[str]:
        """Name each row by its unit, or by its first and last."""
        ends = [*self.starts.tolist(), len(self.order)][1:]
        named = []
        for begin, end in zip(self.starts.tolist(), ends, strict=True):
            first, last = keys[self.order[begin]], keys[self.order[end - 1]]
            named.append(first if end - begin == 1 else f"{first} to {last}")
        return named


def by_channel(keys: Sequence[str]) -> np.ndarray:
    """Order units by the numbers in their keys."""
    parts = [
        tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in _PARTS.split(key) if p)
        for key in keys
    ]
    return np.array(sorted(range(len(keys)), key=parts.__getitem__), np.int64)


def by_direction(angle: np.ndarray, is_tuned: np.ndarray) -> np.ndarray:
    """Order units by (n_units,) preferred directions, those without one first."""
    return np.lexsort((angle, is_tuned)).astype(np.int64)


def marks_of(
    keys: Sequence[str], silent: Sequence[str], changed: Sequence[str], known: Any
) -> np.ndarray:
    """Return (n_units,) marks; `known` is a container of the decoder's keys, None if not known."""
    quiet, other = set(silent), set(changed)
    marks = np.zeros(len(keys), np.int64)
    for i, key in enumerate(keys):
        if known is not None and key not in known:
            marks[i] = UNKNOWN
        elif key in quiet:
            marks[i] = SILENT
        elif key in other:
            marks[i] = CHANGED
    return marks
