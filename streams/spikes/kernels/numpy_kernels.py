"""The kernels in numpy; what each function does is told in `choose.Kernels`."""

from __future__ import annotations

import numpy as np

from streams.clock import stamps_to_us as stamps_to_us
from streams.messages import Float32s, Float64s, Int32s, Int64s, SpikeBatch
from streams.spikes.kernels.ring_state import RingState
from streams.spikes.key_table import KeyTable
from streams.spikes.sequence import SequenceCheck

MOST_ROWS = 2**20
ONE_KEY_US = 2**63 // MOST_ROWS
"""Within this time a stamp and a row, below `MOST_ROWS`, make one number (three months)."""


def read_plain(
    samples: np.ndarray,
    stamps: Float64s,
    columns: tuple[int, int, int],
    table: KeyTable,
    sequence: SequenceCheck,
) -> Int32s | None:
    """Ask the whole pull at once: this stands between a spike and its decode."""
    # One reduction over all columns up to the last one read is faster than one a column.
    if (
        np.minimum.reduce(samples[:, : 1 + max(columns)], axis=None) < 0
        or not np.minimum.reduce(stamps) > 0
        or not np.maximum.reduce(stamps) < np.inf
    ):
        return None
    i_channel, i_unit, i_seq = columns
    if i_seq >= 0 and not sequence.go_on(samples[:, i_seq], stamps):
        return None
    unit = samples[:, i_unit]
    return table.lookup(np.zeros_like(unit) if i_channel < 0 else samples[:, i_channel], unit)


def admit_in_order(
    ring: RingState, batch: SpikeBatch, known: np.ndarray, latest_us: int, may_tie: bool
) -> int | None:
    """Compare neighbours; only equal stamps need a search for one unit twice."""
    t_us, unit, n = batch.t_us, batch.unit, len(batch)
    if not n:
        return 0
    # The ends bound all stamps if these are in order, which is asked last.
    first_us, i_to = int(t_us[0]), ring.n_admitted + n
    if (
        i_to - len(ring.t_us) > ring.i_live
        or first_us <= ring.late_until_us
        or int(t_us[-1]) > latest_us
        or first_us < ring.newest_us
        or (first_us == ring.newest_us and not may_tie)
        or not np.logical_and.reduce(known[unit])
    ):
        return None
    least_step_us = np.minimum.reduce(t_us[1:] - t_us[:-1]) if n > 1 else 1
    if least_step_us < 0 or (least_step_us == 0 and not may_tie and has_repeat(t_us, unit)):
        return None
    store(ring, batch)
    # For a unit with several spikes the last is written last, and is the newest.
    ring.latest_of_unit[unit] = t_us
    return int(np.add.reduce(batch.count))


def store(ring: RingState, batch: SpikeBatch) -> None:
    """Write an arrival behind the newest entry."""
    place = ring.place(ring.n_admitted, ring.n_admitted + len(batch))
    ring.t_us[place], ring.unit[place] = batch.t_us, batch.unit
    ring.count[place], ring.has_fate[place] = batch.count, False


def has_repeat(t_us: Int64s, unit: Int32s) -> bool:
    """Return True if one unit has one stamp twice."""
    # Unit and stamp as one number: only they together make a repeat.
    key = np.sort(t_us * (int(np.maximum.reduce(unit)) + 1) + unit)
    return bool(np.logical_or.reduce(key[1:] == key[:-1]))


def choose_bin(ring: RingState, after_us: int, until_us: int) -> tuple[SpikeBatch, Int64s]:
    """Compare all stamps at once."""
    place = ring.place(ring.i_live, ring.n_admitted)
    t_us = ring.t_us[place]
    chosen = np.flatnonzero((t_us > after_us) & (t_us <= until_us))
    slots = place.start + chosen if isinstance(place, slice) else place[chosen]
    return SpikeBatch(t_us[chosen], ring.unit[slots], ring.count[slots]), slots


def mark_fated(ring: RingState, slots: Int64s) -> int:
    """Count only the slots that had no fate."""
    # Bins may overlap: a spike of the bin before has its fate already.
    have_one = ring.has_fate[slots]
    new = slots[~have_one] if have_one.any() else slots
    ring.has_fate[new] = True
    return int(np.add.reduce(ring.count[new]))


def leave_behind(ring: RingState) -> int:
    """Compare all stamps at once."""
    place = ring.place(ring.i_live, ring.n_admitted)
    is_over = ring.t_us[place] <= ring.late_until_us
    never_cut = is_over & ~ring.has_fate[place]
    n_spikes = 0
    if never_cut.any():
        n_spikes = mark_fated(ring, ring.slots(ring.i_live, ring.n_admitted)[never_cut])
    ring.i_live = ring.n_admitted if is_over.all() else ring.i_live + int(is_over.argmin())
    return n_spikes


def order_tokens(
    spikes: SpikeBatch, row_of: Int32s, start_us: int
) -> tuple[Int64s, Int32s, Float32s, Float32s]:
    """Sort by one key that is nearly in order already."""
    row = row_of[spikes.unit]
    if len(row) and np.minimum.reduce(row) < 0:
        known = np.flatnonzero(row >= 0)
        order = known[canonical_order(spikes.t_us[known], row[known])]
    else:
        order = canonical_order(spikes.t_us, row)
    t_rel = relative_s(spikes.t_us[order], start_us)
    return order, row[order], t_rel, spikes.count[order].astype(np.float32)


def canonical_order(t_us: Int64s, row: Int32s) -> Int64s:
    """Return (n,) indices that sort by (stamp, row), rows from 0 to `MOST_ROWS`."""
    if not len(t_us):
        return np.zeros(0, np.int64)
    first_us = t_us.min()
    if t_us.max() - first_us >= ONE_KEY_US:
        return np.lexsort((row, t_us))
    # One key, nearly in order already, sorts ten times faster than two.
    return np.argsort((t_us - first_us) * MOST_ROWS + row, kind="stable")


def relative_s(t_us: Int64s, bin_start_us: int | Int64s) -> Float32s:
    """Return the seconds since the bin's start, rounded once to float32."""
    relative: Float32s = ((t_us - bin_start_us) * 1e-6).astype(np.float32)
    return relative
