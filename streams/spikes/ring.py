"""Ring for recent spikes, owned by the beat: admits arrivals, serves bins, assigns each fate."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from streams.messages import Int64s, Repeats, SpikeBatch
from streams.spikes.kernels.choose import NUMPY, Kernels
from streams.spikes.kernels.numpy_kernels import store
from streams.spikes.kernels.ring_state import NEVER_US, RingState

MOST_SLID_US = 100
"""Distance from the end of one bin to the start of the next that sliding can leave, at most."""
DUPLICATE_MEMORY = 65_536
"""Entries among which a late spike is looked for, to tell that it came before."""


@dataclass(slots=True)
class Fates:
    """Spikes by fate; every spike gets exactly one."""

    used: int = 0
    late: int = 0
    future: int = 0
    duplicate: int = 0
    unknown_unit: int = 0
    invalid: int = 0
    overflow: int = 0

    @property
    def spikes_in(self) -> int:
        """Spikes that have a fate."""
        arrived = self.used + self.late + self.future + self.duplicate
        return arrived + self.unknown_unit + self.invalid + self.overflow

    def as_dict(self) -> dict[str, int]:
        """Return the counters by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, slots=True)
class HeldSpikes:
    """The part of a ring that its bins to come depend on.

    Attributes:
        late_until_us: newest stamp that is late.
        newest_us: newest stamp so far.
        batch: spikes that a bin to come may hold, in order of arrival.
    """

    late_until_us: int
    newest_us: int
    batch: SpikeBatch


class SpikeRing:
    """Newest spikes in arrival order; one thread owns it.

    A spike is *pending* from its admission until it is used in a cut bin, or until no bin to come
    can hold it (then it is `overflow`). `fates.spikes_in + n_pending` is all that ever arrived;
    a count source's entry weighs its count.

    Args:
        capacity: spikes kept; the newest are kept when more arrive.
        bin_us: bin length.
        hop_us: from one bin's end to the next one's, at most `bin_us`.
        first_end_us: the first bin's end; bins end at `first_end_us + i * hop_us`.
        kernels: functions that do the arithmetic.
    """

    def __init__(
        self,
        capacity: int,
        bin_us: int,
        hop_us: int,
        first_end_us: int,
        kernels: Kernels = NUMPY,
    ) -> None:
        if not 0 < hop_us <= bin_us:
            raise ValueError(f"hop ({hop_us} us) must lie in (0, bin = {bin_us} us]")
        self.capacity = capacity
        self.bin_us = bin_us
        self.hop_us = hop_us
        self.fates = Fates()
        self.newest_us: int | None = None
        self._kernels = kernels
        self._changed_from_us: int = NEVER_US
        self._ring = RingState(capacity, first_end_us - bin_us)
        self._n_pending = 0

    @property
    def n_pending(self) -> int:
        """Admitted spikes whose fate is still open."""
        return self._n_pending

    @property
    def late_until_us(self) -> int:
        """Newest stamp that is late: every bin that could hold it is over."""
        return self._ring.late_until_us

    def held(self) -> HeldSpikes:
        """Return what bins to come depend on."""
        ring = self._ring
        slots = ring.slots(ring.i_live, ring.n_admitted)
        batch = SpikeBatch(ring.t_us[slots], ring.unit[slots], ring.count[slots])
        return HeldSpikes(ring.late_until_us, ring.newest_us, batch)

    def resume(self, held: HeldSpikes) -> None:
        """Go on as a ring that held these; this one is empty."""
        ring, batch = self._ring, held.batch
        ring.late_until_us = held.late_until_us
        n_units = int(batch.unit.max()) + 1 if len(batch) else 0
        self.admit(batch, np.ones(n_units, np.bool_), NEVER_US, "none")
        if len(batch):
            np.maximum.at(ring.latest_of_unit, batch.unit, batch.t_us)
        ring.newest_us = held.newest_us

    def admit(
        self, batch: SpikeBatch, known: np.ndarray, latest_us: int, repeats: Repeats = "all"
    ) -> int:
        """Admit an arrival.

        Args:
            batch: the arrival, in contiguous arrays; stamps in microseconds since t0.
            known: (n_source_units,) bool, whether the decoder knows the unit.
            latest_us: stamps beyond this are `future`.
            repeats: spikes with equal unit and stamp that are duplicates (`messages.Repeats`).

        Returns:
            How many were admitted.
        """
        self._ring.know_units(len(known))
        may_tie = repeats != "all"
        # Nearly every arrival is plain, and is stored in one go.
        n_spikes = self._kernels.admit_in_order(self._ring, batch, known, latest_us, may_tie)
        if n_spikes is None:
            return self._admit_any(batch, known, latest_us, repeats)
        if len(batch):
            first_us, last_us = int(batch.t_us[0]), int(batch.t_us[-1])
            self._ring.newest_us = last_us
            self._note_admitted(len(batch), n_spikes, first_us, last_us)
        return len(batch)

    def cut(self, bin_end_us: int) -> tuple[SpikeBatch, Int64s]:
        """Return the spikes in `(bin_end_us - bin, bin_end_us]`, and their slots.

        It begins where the bins before leave off, though its end was slid by a few microseconds.
        Bins are cut in order. Follow with `assign_fate`, then `close`.
        """
        self._changed_from_us = NEVER_US
        after_us, left_off_us = bin_end_us - self.bin_us, self._ring.late_until_us
        if after_us - MOST_SLID_US <= left_off_us < after_us:
            after_us = left_off_us
        return self._kernels.choose_bin(self._ring, after_us, bin_end_us)

    def is_as_cut(self, bin_end_us: int) -> bool:
        """Return True if the last `cut`, for this bin, would give the same again."""
        return self._changed_from_us > bin_end_us

    def assign_fate(self, slots: Int64s, fate: Literal["used", "unknown_unit", "overflow"]) -> None:
        """Give the spikes in these slots their fate, except those that have one."""
        self._note_fated(self._kernels.mark_fated(self._ring, slots), fate)

    def close(self, bin_end_us: int) -> None:
        """Declare the bin that ends there, and all before it, cut or skipped for good."""
        ring, next_start_us = self._ring, bin_end_us - self.bin_us + self.hop_us
        ring.late_until_us = max(ring.late_until_us, next_start_us)
        self._note_fated(self._kernels.leave_behind(ring), "overflow")

    def _note_fated(self, n_spikes: int, fate: str) -> None:
        setattr(self.fates, fate, getattr(self.fates, fate) + n_spikes)
        self._n_pending -= n_spikes

    def _note_admitted(self, n: int, n_spikes: int, first_us: int, last_us: int) -> None:
        self._ring.n_admitted += n
        self._n_pending += n_spikes
        self._changed_from_us = min(self._changed_from_us, first_us)
        self.newest_us = last_us if self.newest_us is None else max(self.newest_us, last_us)

    def _admit_any(
        self, batch: SpikeBatch, known: np.ndarray, latest_us: int, repeats: Repeats
    ) -> int:
        """Admit any arrival: each entry that cannot be used gets its fate."""
        # A spike gets the first fate that applies, in this order.
        batch = self._keep("unknown_unit", batch, known[batch.unit])
        batch = self._keep("future", batch, batch.t_us <= latest_us)
        batch = self._keep("duplicate", batch, ~self._is_duplicate(batch, len(known), repeats))
        batch = self._keep("late", batch, batch.t_us > self._ring.late_until_us)
        # More than the ring holds, as after a pause: the newest may still be used.
        is_newest = np.arange(len(batch), 0, -1) <= self.capacity
        batch = self._keep("overflow", batch, is_newest)
        if len(batch):
            self._store(batch)
        return len(batch)

    def _keep(self, fate: str, batch: SpikeBatch, which: np.ndarray) -> SpikeBatch:
        """Keep these entries; the others have this fate."""
        # Spares three copies; nearly always all are kept.
        if which.all():
            return batch
        setattr(self.fates, fate, getattr(self.fates, fate) + int(batch.count[~which].sum()))
        return SpikeBatch(batch.t_us[which], batch.unit[which], batch.count[which])

    def _is_duplicate(self, batch: SpikeBatch, n_units: int, repeats: Repeats) -> np.ndarray:
        """Return (n,) bool, True where an entry still held, or an earlier one here, is the same."""
        ring, is_duplicate = self._ring, np.zeros(len(batch), np.bool_)
        if not len(batch):
            return is_duplicate
        # Numbered samples need no search: the layout has already told repeats from new ones.
        if repeats != "none":
            # One number a spike, so that a sort compares unit and stamp at once.
            key = batch.t_us * n_units + batch.unit
            is_duplicate = self._came_before(batch, key, n_units)
            if repeats == "older":
                is_duplicate &= batch.t_us < ring.newest_us
            else:
                is_duplicate |= _repeats(key)
            np.maximum.at(ring.latest_of_unit, batch.unit, batch.t_us)
        ring.newest_us = max(ring.newest_us, int(batch.t_us.max()))
        return is_duplicate

    def _came_before(self, batch: SpikeBatch, key: Int64s, n_units: int) -> np.ndarray:
        """Return True where an entry with the same unit and stamp is still held.

        Only a stamp that is no later than its unit's latest can have come before, so that a
        source in order costs no search.
        """
        ring, came_before = self._ring, np.zeros(len(batch), np.bool_)
        doubtful = batch.t_us <= ring.latest_of_unit[batch.unit]
        if doubtful.any():
            # Those in time can only repeat a live entry; the others may repeat any.
            for in_time in (True, False):
                which = np.flatnonzero(doubtful & ((batch.t_us > ring.late_until_us) == in_time))
                if len(which):
                    i_from = ring.i_live if in_time else ring.n_admitted - DUPLICATE_MEMORY
                    came_before[which] = self._are_held(key[which], n_units, i_from)
        return came_before

    def _are_held(self, key: Int64s, n_units: int, i_from: int) -> np.ndarray:
        """Return (n,) bool, True for each key that an entry from number `i_from` on has."""
        i_first = max(i_from, self._ring.n_admitted - self.capacity, 0)
        slots = self._ring.slots(i_first, self._ring.n_admitted)
        t_us = self._ring.t_us[slots]
        near = (t_us >= key.min() // n_units) & (t_us <= key.max() // n_units)
        held = np.sort(t_us[near] * n_units + self._ring.unit[slots[near]])
        if not len(held):
            return np.zeros(len(key), np.bool_)
        at = np.minimum(np.searchsorted(held, key), len(held) - 1)
        are_held: np.ndarray = held[at] == key
        return are_held

    def _store(self, batch: SpikeBatch) -> None:
        """Store an arrival; the oldest entries give way."""
        ring, n = self._ring, len(batch)
        n_over = ring.n_admitted + n - self.capacity - ring.i_live
        if n_over > 0:
            # An entry that is pushed out may have been in the last cut.
            self._changed_from_us = -NEVER_US
            self.assign_fate(ring.slots(ring.i_live, ring.i_live + n_over), "overflow")
            ring.i_live += n_over
        store(ring, batch)
        first_us, last_us = int(batch.t_us.min()), int(batch.t_us.max())
        self._note_admitted(n, int(batch.count.sum()), first_us, last_us)


def _repeats(key: Int64s) -> np.ndarray:
    """Return (n,) bool, True where an earlier key is the same."""
    ordered = np.sort(key)
    if (ordered[1:] != ordered[:-1]).all():
        return np.zeros(len(key), np.bool_)
    is_repeat = np.ones(len(key), np.bool_)
    is_repeat[np.unique(key, return_index=True)[1]] = False
    return is_repeat
