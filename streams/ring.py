"""The ring of recent spikes, owned by the beat: admits arrivals, serves bins, settles each fate."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from streams.messages import Int64s, SpikeBatch


@dataclass(slots=True)
class Fates:
    """What became of each spike, exactly one fate each (DEFINITIONS, "Fates of a spike")."""

    used: int = 0
    late: int = 0
    future: int = 0
    duplicate: int = 0
    unknown_unit: int = 0
    invalid: int = 0
    overflow: int = 0

    @property
    def spikes_in(self) -> int:
        """Spikes whose fate is settled: the sum of the fates."""
        return sum(getattr(self, f.name) for f in fields(self))

    def as_dict(self) -> dict[str, int]:
        """The counters by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


class SpikeRing:
    """Holds the newest spikes in order of arrival; one thread owns it.

    A spike is *pending* from its admission until it is used in a cut bin, or until no bin to come
    can hold it (then it is `overflow`). `fates.spikes_in + n_pending` is all that ever arrived;
    an entry of a count source weighs its count.

    Args:
        capacity: spikes kept; the newest are kept when more arrive.
        bin_us: length of a bin.
        hop_us: from one bin's end to the next one's, at most `bin_us`.
        first_end_us: end of the first bin; bins end at `first_end_us + i * hop_us`.
    """

    def __init__(self, capacity: int, bin_us: int, hop_us: int, first_end_us: int) -> None:
        if not 0 < hop_us <= bin_us:
            raise ValueError(f"hop ({hop_us} us) must lie in (0, bin = {bin_us} us]")
        self.capacity = capacity
        self.bin_us = bin_us
        self.hop_us = hop_us
        self.fates = Fates()
        self.newest_us: int | None = None
        self._t_us = np.zeros(capacity, np.int64)
        self._unit = np.zeros(capacity, np.int32)
        self._count = np.zeros(capacity, np.int32)
        self._used = np.zeros(capacity, np.bool_)
        self._last_of_unit = np.full(0, np.iinfo(np.int64).min)
        self._n_admitted = 0
        self._i_live = 0
        self._n_pending = 0
        self._next_start_us = first_end_us - bin_us

    @property
    def n_pending(self) -> int:
        """Spikes admitted whose fate is still open."""
        return self._n_pending

    def admit(self, batch: SpikeBatch, known: np.ndarray, latest_us: int) -> int:
        """Take in an arrival.

        Args:
            batch: what arrived; stamps in microseconds since t0.
            known: (n_source_units,) bool, whether the decoder knows the unit.
            latest_us: stamps beyond this are `future`.

        Returns:
            How many were admitted.
        """
        is_known = known[batch.unit]
        self.fates.unknown_unit += n_spikes(batch.count, ~is_known)
        in_future = is_known & (batch.t_us > latest_us)
        self.fates.future += n_spikes(batch.count, in_future)
        keep = np.flatnonzero(is_known & ~in_future)
        is_new = self._is_new(batch.t_us[keep], batch.unit[keep], len(known))
        self.fates.duplicate += n_spikes(batch.count, keep[~is_new])
        keep = keep[is_new]
        in_time = batch.t_us[keep] > self._next_start_us
        self.fates.late += n_spikes(batch.count, keep[~in_time])
        keep = keep[in_time]
        self.fates.overflow += n_spikes(batch.count, keep[: -self.capacity])
        keep = keep[-self.capacity :]
        self._store(batch.t_us[keep], batch.unit[keep], batch.count[keep])
        return len(keep)

    def cut(self, bin_end_us: int) -> tuple[SpikeBatch, Int64s]:
        """The spikes in `(bin_end_us - bin, bin_end_us]`, and their slots.

        Bins are cut in order. Follow with `mark_used`, then `close`.
        """
        slots = self._slots(self._i_live)
        t_us = self._t_us[slots]
        slots = slots[(t_us > bin_end_us - self.bin_us) & (t_us <= bin_end_us)]
        return SpikeBatch(self._t_us[slots], self._unit[slots], self._count[slots]), slots

    def mark_used(self, slots: Int64s) -> None:
        """These spikes went into a cut bin."""
        newly = n_spikes(self._count, slots[~self._used[slots]])
        self._used[slots] = True
        self.fates.used += newly
        self._n_pending -= newly

    def close(self, bin_end_us: int) -> None:
        """The bin that ends there, and all before it, are cut or skipped for good."""
        self._next_start_us = max(self._next_start_us, bin_end_us - self.bin_us + self.hop_us)
        slots = self._slots(self._i_live)
        alive = self._t_us[slots] > self._next_start_us
        self._drop_unused(slots[~alive])
        n_dead = int(np.argmax(alive)) if alive.any() else len(slots)
        self._i_live += n_dead

    def since(self, t_us: int) -> SpikeBatch:
        """Every spike still held with a later stamp: what a new decoder warms up on."""
        slots = self._slots(max(0, self._n_admitted - self.capacity))
        slots = slots[self._t_us[slots] > t_us]
        return SpikeBatch(self._t_us[slots], self._unit[slots], self._count[slots])

    def _is_new(self, t_us: Int64s, unit: np.ndarray, n_units: int) -> np.ndarray:
        """True where no earlier entry, admitted or in this batch, has the same unit and stamp."""
        if len(self._last_of_unit) < n_units:
            grown = np.full(n_units, np.iinfo(np.int64).min)
            grown[: len(self._last_of_unit)] = self._last_of_unit
            self._last_of_unit = grown
        new = np.zeros(len(t_us), np.bool_)
        key = t_us * n_units + unit
        new[np.unique(key, return_index=True)[1]] = True
        doubtful = np.flatnonzero(new & (t_us <= self._last_of_unit[unit]))
        if len(doubtful):
            held = self._slots(max(0, self._n_admitted - self.capacity))
            held_key = self._t_us[held] * n_units + self._unit[held]
            new[doubtful[np.isin(key[doubtful], held_key)]] = False
        np.maximum.at(self._last_of_unit, unit, t_us)
        return new

    def _store(self, t_us: Int64s, unit: np.ndarray, count: np.ndarray) -> None:
        n = len(t_us)
        if not n:
            return
        slots = np.arange(self._n_admitted, self._n_admitted + n) % self.capacity
        n_over = self._n_admitted + n - self.capacity - self._i_live
        if n_over > 0:
            self._drop_unused(np.arange(self._i_live, self._i_live + n_over) % self.capacity)
            self._i_live += n_over
        self._t_us[slots], self._unit[slots], self._count[slots] = t_us, unit, count
        self._used[slots] = False
        self._n_admitted += n
        self._n_pending += int(count.sum())
        newest = int(t_us.max())
        self.newest_us = newest if self.newest_us is None else max(self.newest_us, newest)

    def _drop_unused(self, slots: Int64s) -> None:
        unused = slots[~self._used[slots]]
        self._used[unused] = True
        dropped = n_spikes(self._count, unused)
        self.fates.overflow += dropped
        self._n_pending -= dropped

    def _slots(self, i_from: int) -> Int64s:
        return np.arange(i_from, self._n_admitted) % self.capacity


def n_spikes(count: np.ndarray, which: np.ndarray) -> int:
    """How many spikes the chosen entries stand for."""
    return int(count[which].sum())
