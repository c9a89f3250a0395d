"""The ring's entries, and how far they are used."""

from __future__ import annotations

import numpy as np

from streams.messages import Int64s

NEVER_US = np.iinfo(np.int64).max


class RingState:
    """Entry number i lies at slot `i % capacity`.

    Attributes:
        t_us: (capacity,) int64 stamps.
        unit: (capacity,) int32 unit index.
        count: (capacity,) int32 spikes that the entry stands for.
        has_fate: (capacity,) bool, whether its fate is known.
        n_admitted: entries stored so far.
        i_live: number of the first entry that a bin to come may hold.
        late_until_us: stamps up to this are late.
        newest_us: newest stamp from any known unit so far.
        latest_of_unit: (n_units,) int64 newest stamp from each unit.
    """

    def __init__(self, capacity: int, late_until_us: int) -> None:
        self.t_us = np.zeros(capacity, np.int64)
        self.unit = np.zeros(capacity, np.int32)
        self.count = np.zeros(capacity, np.int32)
        self.has_fate = np.zeros(capacity, np.bool_)
        self.n_admitted = self.i_live = 0
        self.late_until_us = late_until_us
        self.newest_us: int = -NEVER_US
        self.latest_of_unit = np.zeros(0, np.int64)

    def know_units(self, n_units: int) -> None:
        """Make room for the latest stamps from `n_units`."""
        if len(self.latest_of_unit) < n_units:
            # Sources show new units while they run.
            never = np.full(n_units - len(self.latest_of_unit), -NEVER_US)
            self.latest_of_unit = np.concatenate((self.latest_of_unit, never))

    def place(self, i_from: int, i_to: int) -> slice | Int64s:
        """Return where the entries number `i_from` up to `i_to` lie.

        A slice, unless they go around the end: reading through one copies nothing.
        """
        capacity = len(self.t_us)
        first = i_from % capacity
        last = first + i_to - i_from
        # Around the end, indices have to do: numpy has no slice that wraps.
        return slice(first, last) if last <= capacity else np.arange(first, last) % capacity

    def slots(self, i_from: int, i_to: int) -> Int64s:
        """Return the same as indices."""
        place = self.place(i_from, i_to)
        return np.arange(place.start, place.stop) if isinstance(place, slice) else place
