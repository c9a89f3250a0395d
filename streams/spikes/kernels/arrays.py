"""The ring's arrays, and the slots at which its entries lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streams.messages import Int32s, Int64s


@dataclass(frozen=True, slots=True)
class RingArrays:
    """Fields of the entries; entry number i lies at slot `i % capacity`.

    Attributes:
        t_us: (capacity,) stamps.
        unit: (capacity,) index of the unit.
        count: (capacity,) spikes that the entry stands for.
        has_fate: (capacity,) bool, whether its fate is known.
    """

    t_us: Int64s
    unit: Int32s
    count: Int32s
    has_fate: np.ndarray

    @classmethod
    def of(cls, capacity: int) -> RingArrays:
        """Return empty arrays."""
        return cls(
            np.zeros(capacity, np.int64),
            np.zeros(capacity, np.int32),
            np.zeros(capacity, np.int32),
            np.zeros(capacity, np.bool_),
        )

    def place(self, i_from: int, i_to: int) -> slice | Int64s:
        """Return where the entries number `i_from` up to `i_to` lie.

        A slice, unless they go around the end: reading through one copies nothing.
        """
        capacity = len(self.t_us)
        first = i_from % capacity
        last = first + i_to - i_from
        if last <= capacity:
            return slice(first, last)
        return np.arange(first, last) % capacity

    def slots(self, i_from: int, i_to: int) -> Int64s:
        """Return the same as indices."""
        place = self.place(i_from, i_to)
        return np.arange(place.start, place.stop) if isinstance(place, slice) else place
