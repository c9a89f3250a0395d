"""The kernels as loops that numba compiles; what each function does is told in `choose.Kernels`.

A loop answers `_NOT_PLAIN` where its input is not plain, and has changed nothing then: numpy, which
knows every case, takes its place. Nothing else checks an index here.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float32, float64, int32, int64, types

from streams.clock import FAR_S
from streams.messages import Float32s, Float64s, Int32s, Int64s, SpikeBatch
from streams.spikes.kernels import numpy_kernels
from streams.spikes.kernels.compiler import compiled
from streams.spikes.kernels.ring_state import RingState
from streams.spikes.key_table import KeyTable
from streams.spikes.sequence import SequenceCheck

_NOT_PLAIN = -1
MOST_TIED = 64
"""Spikes in one microsecond, out of order, among which one that comes twice is looked for."""
MOST_SHIFTS = 8
"""Per token, on average; what is less in order than that is sorted by numpy."""

_INT64S, _INT32S, _FLOAT32S, _FLOAT64S = int64[::1], int32[::1], float32[::1], float64[::1]
_BOOLEANS = boolean[::1]
_READ_64S = types.Array(int64, 1, "C", readonly=True)
_READ_32S = types.Array(int32, 1, "C", readonly=True)
_READ_BOOLEANS = types.Array(boolean, 1, "C", readonly=True)
_MATRIX = int32[:, ::1]


def read_plain(
    samples: np.ndarray,
    stamps: Float64s,
    columns: tuple[int, int, int],
    table: KeyTable,
    sequence: SequenceCheck,
) -> Int32s | None:
    """Read one sample after the other."""
    n, unit = len(stamps), np.empty(len(stamps), np.int32)
    # The loop writes into the sequence check only after it has seen all samples.
    newest_s = _read_plain(
        samples, stamps, *columns, table.grid, sequence.next_number, sequence.seen,
        sequence.stamp_s, unit,
    )  # fmt: skip
    if newest_s == _NOT_PLAIN:
        return numpy_kernels.read_plain(samples, stamps, columns, table, sequence)
    if columns[2] >= 0:
        sequence.next_number += n
        sequence.newest_s = max(sequence.newest_s, newest_s)
    return unit


def stamps_to_us(stamps: Float64s, offset_s: float, t0_s: float) -> Int64s:
    """Convert one stamp after the other."""
    t_us = np.empty(len(stamps), np.int64)
    _stamps_to_us(stamps, offset_s, t0_s, FAR_S, t_us)
    return t_us


def admit_in_order(
    ring: RingState, batch: SpikeBatch, known: np.ndarray, latest_us: int, may_tie: bool
) -> int | None:
    """Check every entry, then store them."""
    n_spikes: int = _admit_in_order(
        batch.t_us, batch.unit, batch.count, known, ring.late_until_us, latest_us, ring.newest_us,
        may_tie, ring.latest_of_unit, ring.t_us, ring.unit, ring.count, ring.has_fate,
        ring.n_admitted, ring.i_live,
    )  # fmt: skip
    return None if n_spikes == _NOT_PLAIN else n_spikes


def choose_bin(ring: RingState, after_us: int, until_us: int) -> tuple[SpikeBatch, Int64s]:
    """Copy into arrays with room for all entries."""
    room = ring.n_admitted - ring.i_live
    t_us, slots = np.empty(room, np.int64), np.empty(room, np.int64)
    unit, count = np.empty(room, np.int32), np.empty(room, np.int32)
    n = _choose_bin(
        ring.t_us, ring.unit, ring.count, ring.i_live, ring.n_admitted, after_us, until_us,
        t_us, unit, count, slots,
    )  # fmt: skip
    return SpikeBatch(t_us[:n], unit[:n], count[:n]), slots[:n]


def mark_fated(ring: RingState, slots: Int64s) -> int:
    """Mark one slot after the other."""
    n_spikes: int = _mark_fated(slots, ring.has_fate, ring.count)
    return n_spikes


def leave_behind(ring: RingState) -> int:
    """Walk through all entries once."""
    n_spikes: int
    n_spikes, ring.i_live = _leave_behind(
        ring.t_us, ring.has_fate, ring.count, ring.i_live, ring.n_admitted, ring.late_until_us
    )
    return n_spikes


def order_tokens(
    spikes: SpikeBatch, row_of: Int32s, start_us: int
) -> tuple[Int64s, Int32s, Float32s, Float32s]:
    """Sort by insertion, which is fast where the order is nearly right."""
    room = len(spikes)
    order, row = np.empty(room, np.int64), np.empty(room, np.int32)
    t_rel, count = np.empty(room, np.float32), np.empty(room, np.float32)
    n = _order_tokens(
        spikes.t_us, spikes.unit, spikes.count, row_of, start_us, order, row, t_rel, count
    )
    # Insertion is slow on disorder: then a sort is faster, and knows every case.
    if n == _NOT_PLAIN:
        return numpy_kernels.order_tokens(spikes, row_of, start_us)
    return order[:n], row[:n], t_rel[:n], count[:n]


@compiled(
    float64(_MATRIX, _FLOAT64S, int64, int64, int64, _MATRIX, int64, _INT64S, _FLOAT64S, _INT32S)
)
def _read_plain(
    samples: Int32s, stamps: Float64s, i_channel: int, i_unit: int, i_seq: int, grid: Int32s,
    next_number: int, seen: Int64s, stamp_s: Float64s, unit: Int32s,
) -> float:  # fmt: skip
    """Write each spike's index into `unit`; return the latest stamp."""
    # All is checked before anything is written, so that a refusal changes nothing.
    latest_s = 0.0
    for i in range(len(stamps)):
        channel = samples[i, i_channel] if i_channel >= 0 else 0
        u = samples[i, i_unit]
        if channel < 0 or channel >= grid.shape[0] or u < 0 or u >= grid.shape[1]:
            return _NOT_PLAIN
        if grid[channel, u] < 0 or not 0.0 < stamps[i] < np.inf:
            return _NOT_PLAIN
        if i_seq >= 0 and not 0 <= samples[i, i_seq] == next_number + i:
            return _NOT_PLAIN
        unit[i] = grid[channel, u]
        latest_s = max(latest_s, stamps[i])
    if i_seq >= 0:
        for i in range(len(stamps)):
            number = next_number + i
            seen[number % len(seen)] = number
            stamp_s[number % len(seen)] = stamps[i]
    return latest_s


@compiled(types.void(_FLOAT64S, float64, float64, float64, _INT64S))
def _stamps_to_us(
    stamps: Float64s, offset_s: float, t0_s: float, far_s: float, t_us: Int64s
) -> None:
    """Convert (n,) stamps, as `streams.clock.stamps_to_us` does."""
    for i in range(len(stamps)):
        since_s = stamps[i] + offset_s - t0_s
        since_s = min(max(since_s, -far_s), far_s)
        t_us[i] = int(np.rint(since_s * 1e6))


@compiled(
    int64(
        _READ_64S, _READ_32S, _READ_32S, _READ_BOOLEANS, int64, int64, int64, boolean, _INT64S,
        _INT64S, _INT32S, _INT32S, _BOOLEANS, int64, int64,
    )
)  # fmt: skip
def _admit_in_order(
    t_us: Int64s, unit: Int32s, count: Int32s, known: np.ndarray, after_us: int, until_us: int,
    newest_us: int, may_tie: bool, latest_of_unit: Int64s, ring_t_us: Int64s, ring_unit: Int32s,
    ring_count: Int32s, ring_has_fate: np.ndarray, n_admitted: int, i_live: int,
) -> int:  # fmt: skip
    """Store (n,) entries; return the spikes that they stand for."""
    capacity = len(ring_t_us)
    if n_admitted + len(t_us) - capacity > i_live:
        return _NOT_PLAIN
    # Checked here, stored below: a refusal changes nothing.
    n_spikes = i_tied = 0
    for i in range(len(t_us)):
        t, u = t_us[i], unit[i]
        if u < 0 or u >= len(known) or u >= len(latest_of_unit) or not known[u]:
            return _NOT_PLAIN
        if t <= after_us or t > until_us or t < newest_us or (t == newest_us and not may_tie):
            return _NOT_PLAIN
        if i == 0 or t > t_us[i - 1] or (may_tie and t == t_us[i - 1]):
            i_tied = i
        elif t < t_us[i - 1] or i - i_tied > MOST_TIED:
            return _NOT_PLAIN
        for j in range(i_tied, i):
            if unit[j] == u:
                return _NOT_PLAIN
    for i in range(len(t_us)):
        slot = (n_admitted + i) % capacity
        ring_t_us[slot], ring_unit[slot] = t_us[i], unit[i]
        ring_count[slot], ring_has_fate[slot] = count[i], False
        latest_of_unit[unit[i]] = t_us[i]
        n_spikes += count[i]
    return n_spikes


@compiled(
    int64(_INT64S, _INT32S, _INT32S, int64, int64, int64, int64, _INT64S, _INT32S, _INT32S, _INT64S)
)
def _choose_bin(
    ring_t_us: Int64s, ring_unit: Int32s, ring_count: Int32s, i_live: int, n_admitted: int,
    after_us: int, until_us: int, t_us: Int64s, unit: Int32s, count: Int32s, slots: Int64s,
) -> int:  # fmt: skip
    """Copy the spikes into arrays with room for all entries; return how many there are."""
    # The slot is counted along, which spares a division each turn.
    n, slot = 0, i_live % len(ring_t_us)
    for _ in range(i_live, n_admitted):
        if after_us < ring_t_us[slot] <= until_us:
            t_us[n], unit[n] = ring_t_us[slot], ring_unit[slot]
            count[n], slots[n] = ring_count[slot], slot
            n += 1
        slot = slot + 1 if slot + 1 < len(ring_t_us) else 0
    return n


@compiled(int64(_READ_64S, _BOOLEANS, _INT32S))
def _mark_fated(slots: Int64s, ring_has_fate: np.ndarray, ring_count: Int32s) -> int:
    """Mark the slots; return how many spikes newly have a fate."""
    n_spikes = 0
    for slot in slots:
        if not ring_has_fate[slot]:
            ring_has_fate[slot] = True
            n_spikes += ring_count[slot]
    return n_spikes


@compiled(types.UniTuple(int64, 2)(_INT64S, _BOOLEANS, _INT32S, int64, int64, int64))
def _leave_behind(
    ring_t_us: Int64s, ring_has_fate: np.ndarray, ring_count: Int32s, i_live: int, n_admitted:
    int, until_us: int,
) -> tuple[int, int]:  # fmt: skip
    """Mark what is over; return its spikes and the first entry that is later."""
    n_spikes, i_first, slot = 0, n_admitted, i_live % len(ring_t_us)
    for i in range(i_live, n_admitted):
        if ring_t_us[slot] > until_us:
            i_first = min(i_first, i)
        elif not ring_has_fate[slot]:
            ring_has_fate[slot] = True
            n_spikes += ring_count[slot]
        slot = slot + 1 if slot + 1 < len(ring_t_us) else 0
    return n_spikes, i_first


@compiled(
    int64(_READ_64S, _READ_32S, _READ_32S, _READ_32S, int64, _INT64S, _INT32S, _FLOAT32S, _FLOAT32S)
)
def _order_tokens(
    t_us: Int64s, unit: Int32s, count: Int32s, row_of: Int32s, start_us: int, order: Int64s,
    row: Int32s, t_rel: Float32s, weight: Float32s,
) -> int:  # fmt: skip
    """Insert each spike where it belongs; return how many tokens there are."""
    n, n_shifts = 0, 0
    for i in range(len(t_us)):
        if unit[i] < 0 or unit[i] >= len(row_of):
            return _NOT_PLAIN
        # Spikes come nearly in order, so that few are shifted.
        r, t, j = row_of[unit[i]], t_us[i], n
        if r < 0:
            continue
        while j > 0 and (t_us[order[j - 1]] > t or (t_us[order[j - 1]] == t and row[j - 1] > r)):
            order[j], row[j] = order[j - 1], row[j - 1]
            j -= 1
        order[j], row[j] = i, r
        n_shifts += n - j
        n += 1
        if n_shifts > MOST_SHIFTS * len(t_us):
            return _NOT_PLAIN
    for j in range(n):
        t_rel[j] = np.float32((t_us[order[j]] - start_us) * 1e-6)
        weight[j] = np.float32(count[order[j]])
    return n
