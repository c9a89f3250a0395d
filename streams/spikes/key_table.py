"""Keys of a source's units, each with a running index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streams.errors import StreamsError, StreamUnfitError
from streams.messages import Int32s, Int64s
from streams.unit_keys import parse_key

_CHANNEL_STEP = 2**32
_GRID_CELLS = 2**20
_MAX_KEYS = 200_000


class KeyTable:
    """Gives a source's `(channel, unit)` pairs a running index and a key; it only grows.

    Attributes:
        keys: in index order.
        with_channel: whether the source sends channels.
        grid: (channels, units) each unit's index, where numbers are small; -1 where not met.

    Args:
        keys: known from the start (the decoder's), so that a session in progress seldom adds one.
        array: prefix `array:` for all keys.
        with_channel: whether the source sends channels (`ch12/u1`) or bare units (`u17`).
    """

    def __init__(self, keys: Sequence[str], *, with_channel: bool, array: str = "") -> None:
        self.keys: list[str] = []
        self._prefix = f"{array}:" if array else ""
        self.with_channel = with_channel
        self._index: dict[int, int] = {}
        self.grid = np.zeros((0, 0), np.int32)
        # The decoder's keys first: their indices then never depend on who fires first.
        self._add(sorted(self._codes_of(keys)))

    def lookup(self, channel: Int32s | Int64s, unit: Int32s | Int64s) -> Int32s:
        """Look up each (channel, unit), adding those not met before.

        Args:
            channel: (n,), from 0.
            unit: (n,), from 0.
        """
        # Units that were met before, as nearly all were, need no search.
        index = self._on_grid(channel, unit)
        if index is not None:
            return index
        codes, which = np.unique(
            channel.astype(np.int64) * _CHANNEL_STEP + unit, return_inverse=True
        )
        self._add([code for code in codes.tolist() if code not in self._index])
        return np.array([self._index[code] for code in codes.tolist()], np.int32)[which]

    def _on_grid(self, channel: Int32s | Int64s, unit: Int32s | Int64s) -> Int32s | None:
        """Look them up on the grid; None if one is not on it, or was not met before."""
        try:
            index: Int32s = self.grid[channel, unit]
        except IndexError:
            return None
        return index if len(index) and np.minimum.reduce(index) >= 0 else None

    def _add(self, codes: Sequence[int]) -> None:
        if len(self.keys) + len(codes) > _MAX_KEYS:
            raise StreamUnfitError(
                f"the source shows over {_MAX_KEYS} units; does its first channel hold "
                "something else than unit numbers?"
            )
        for code in codes:
            self._index[code] = len(self.keys)
            channel, unit = divmod(code, _CHANNEL_STEP)
            key = f"ch{channel}/u{unit}" if self.with_channel else f"u{unit}"
            self.keys.append(self._prefix + key)
        if codes:
            self._spread_out()

    def _spread_out(self) -> None:
        """The same as a grid, where numbers are small: it is read without a search."""
        channel, unit = np.divmod(np.array(list(self._index), np.int64), _CHANNEL_STEP)
        shape = (int(channel.max()) + 1, int(unit.max()) + 1)
        fits = shape[0] * shape[1] <= _GRID_CELLS
        self.grid = np.full(shape if fits else (0, 0), -1, np.int32)
        if fits:
            self.grid[channel, unit] = np.arange(len(channel))

    def _codes_of(self, keys: Sequence[str]) -> set[int]:
        codes = set()
        for key in keys:
            try:
                ids = parse_key(key)
            except StreamsError:
                continue
            if self._prefix == key[: -len(key.rpartition(":")[2])] and (
                len(ids) == 1 + self.with_channel
            ):
                codes.add(ids[0] * _CHANNEL_STEP + ids[1] if self.with_channel else ids[0])
        return codes
