"""What is done to each spike between pull and token, as loops that numba compiles.

Each answers `GIVEN_UP`, and has changed nothing then, where what it is given is not plain: then
numpy does it, which knows every case. Nothing else checks an index here.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float32, float64, int32, int64, types

from streams.messages import Float32s, Float64s, Int32s, Int64s
from streams.spikes.compiled.compiler import compiled

GIVEN_UP = -1
MOST_TIED = 64
"""Spikes of one microsecond, out of order, among which one that comes twice is looked for."""
MOST_SHIFTS = 8
"""Per token, on average; what is less in order than that is sorted by numpy."""

_INT64S, _INT32S, _FLOAT32S, _FLOAT64S = int64[::1], int32[::1], float32[::1], float64[::1]
_BOOLEANS = boolean[::1]
_READ_64S = types.Array(int64, 1, "C", readonly=True)
_READ_32S = types.Array(int32, 1, "C", readonly=True)
_READ_BOOLEANS = types.Array(boolean, 1, "C", readonly=True)
_MATRIX = int32[:, ::1]


@compiled(
    float64(_MATRIX, _FLOAT64S, int64, int64, int64, _MATRIX, int64, _INT64S, _FLOAT64S, _INT32S)
)
def read_events(
    samples: Int32s,
    stamps: Float64s,
    i_channel: int,
    i_unit: int,
    i_seq: int,
    grid: Int32s,
    next_number: int,
    seen: Int64s,
    stamp_s: Float64s,
    unit: Int32s,
) -> float:
    """Read a pull of new spikes of units that are known, none missing, and note their numbers.

    Args:
        samples: (n, n_channels).
        stamps: (n,) seconds.
        i_channel: column of the channel; below 0 where there is none, as for `i_seq`.
        i_unit: column of the unit.
        i_seq: column of the sequence number.
        grid: (channels, units) index of each unit; -1 where not met before.
        next_number: the sequence number to come.
        seen: written, numbers by their place.
        stamp_s: written, their stamps.
        unit: (n,) written, index of each.

    Returns:
        The latest stamp; `GIVEN_UP`.
    """
    latest_s = 0.0
    for i in range(len(stamps)):
        channel = samples[i, i_channel] if i_channel >= 0 else 0
        u = samples[i, i_unit]
        if channel < 0 or channel >= grid.shape[0] or u < 0 or u >= grid.shape[1]:
            return GIVEN_UP
        if grid[channel, u] < 0 or not 0.0 < stamps[i] < np.inf:
            return GIVEN_UP
        if i_seq >= 0 and not 0 <= samples[i, i_seq] == next_number + i:
            return GIVEN_UP
        unit[i] = grid[channel, u]
        latest_s = max(latest_s, stamps[i])
    if i_seq >= 0:
        for i in range(len(stamps)):
            number = next_number + i
            seen[number % len(seen)] = number
            stamp_s[number % len(seen)] = stamps[i]
    return latest_s


@compiled(types.void(_FLOAT64S, float64, float64, float64, _INT64S))
def convert_stamps(
    stamps: Float64s, offset_s: float, t0_s: float, far_s: float, t_us: Int64s
) -> None:
    """As `streams.clock.stamps_to_us`, into (n,) `t_us`; every stamp is a number."""
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
def admit_in_order(
    t_us: Int64s,
    unit: Int32s,
    count: Int32s,
    known: np.ndarray,
    after_us: int,
    until_us: int,
    newest_us: int,
    may_tie: bool,
    latest_of_unit: Int64s,
    ring_t_us: Int64s,
    ring_unit: Int32s,
    ring_count: Int32s,
    ring_settled: np.ndarray,
    n_admitted: int,
    i_live: int,
) -> int:
    """Store an arrival of known units, in order and newer than all before, for which is room.

    Args:
        t_us: (n,).
        unit: (n,).
        count: (n,).
        known: (n_units,).
        after_us: stamps up to here are late.
        until_us: later ones lie in the future.
        newest_us: that came before.
        may_tie: equal stamps of one unit are spikes.
        latest_of_unit: (n_units,) written.
        ring_t_us: (capacity,) written, as the three that follow.
        ring_unit: written.
        ring_count: written.
        ring_settled: written.
        n_admitted: entries that were stored before.
        i_live: number of the first entry that a bin to come may hold.

    Returns:
        How many spikes the entries stand for; `GIVEN_UP`.
    """
    capacity = len(ring_t_us)
    if n_admitted + len(t_us) - capacity > i_live:
        return GIVEN_UP
    n_spikes = i_tied = 0
    for i in range(len(t_us)):
        t, u = t_us[i], unit[i]
        if u < 0 or u >= len(known) or u >= len(latest_of_unit) or not known[u]:
            return GIVEN_UP
        if t <= after_us or t > until_us or t < newest_us or (t == newest_us and not may_tie):
            return GIVEN_UP
        if i == 0 or t > t_us[i - 1] or (may_tie and t == t_us[i - 1]):
            i_tied = i
        elif t < t_us[i - 1] or i - i_tied > MOST_TIED:
            return GIVEN_UP
        for j in range(i_tied, i):
            if unit[j] == u:
                return GIVEN_UP
    for i in range(len(t_us)):
        slot = (n_admitted + i) % capacity
        ring_t_us[slot], ring_unit[slot] = t_us[i], unit[i]
        ring_count[slot], ring_settled[slot] = count[i], False
        latest_of_unit[unit[i]] = t_us[i]
        n_spikes += count[i]
    return n_spikes


@compiled(
    int64(_INT64S, _INT32S, _INT32S, int64, int64, int64, int64, _INT64S, _INT32S, _INT32S, _INT64S)
)
def choose_bin(
    ring_t_us: Int64s,
    ring_unit: Int32s,
    ring_count: Int32s,
    i_live: int,
    n_admitted: int,
    after_us: int,
    until_us: int,
    t_us: Int64s,
    unit: Int32s,
    count: Int32s,
    slots: Int64s,
) -> int:
    """Copy the spikes in `(after_us, until_us]`, in order of arrival, with their slots.

    Args:
        ring_t_us: (capacity,), as the two that follow.
        ring_unit: see there.
        ring_count: see there.
        i_live: number of the first entry to look at.
        n_admitted: number of the one behind the last.
        after_us: see above.
        until_us: see above.
        t_us: written, with room for all entries looked at, as the three that follow.
        unit: written.
        count: written.
        slots: written.

    Returns:
        How many entries.
    """
    n, slot = 0, i_live % len(ring_t_us)
    for _ in range(i_live, n_admitted):
        if after_us < ring_t_us[slot] <= until_us:
            t_us[n], unit[n] = ring_t_us[slot], ring_unit[slot]
            count[n], slots[n] = ring_count[slot], slot
            n += 1
        slot = slot + 1 if slot + 1 < len(ring_t_us) else 0
    return n


@compiled(int64(_READ_64S, _BOOLEANS, _INT32S))
def settle_slots(slots: Int64s, ring_settled: np.ndarray, ring_count: Int32s) -> int:
    """Mark these slots as settled; how many spikes newly are."""
    n_spikes = 0
    for slot in slots:
        if not ring_settled[slot]:
            ring_settled[slot] = True
            n_spikes += ring_count[slot]
    return n_spikes


@compiled(types.UniTuple(int64, 2)(_INT64S, _BOOLEANS, _INT32S, int64, int64, int64))
def close_until(
    ring_t_us: Int64s,
    ring_settled: np.ndarray,
    ring_count: Int32s,
    i_live: int,
    n_admitted: int,
    until_us: int,
) -> tuple[int, int]:
    """Settle entries up to `until_us` that no bin held.

    Returns:
        How many spikes they stand for, and the number of the first entry that is later.
    """
    n_spikes, i_first, slot = 0, n_admitted, i_live % len(ring_t_us)
    for i in range(i_live, n_admitted):
        if ring_t_us[slot] > until_us:
            i_first = min(i_first, i)
        elif not ring_settled[slot]:
            ring_settled[slot] = True
            n_spikes += ring_count[slot]
        slot = slot + 1 if slot + 1 < len(ring_t_us) else 0
    return n_spikes, i_first


@compiled(
    int64(_READ_64S, _READ_32S, _READ_32S, _READ_32S, int64, _INT64S, _INT32S, _FLOAT32S, _FLOAT32S)
)
def order_tokens(
    t_us: Int64s,
    unit: Int32s,
    count: Int32s,
    row_of: Int32s,
    start_us: int,
    order: Int64s,
    row: Int32s,
    t_rel: Float32s,
    weight: Float32s,
) -> int:
    """Tokens in the order (stamp, row), of spikes that are nearly in it.

    Args:
        t_us: (n,) stamps.
        unit: (n,).
        count: (n,).
        row_of: (n_units,) row of each; -1 where unknown.
        start_us: of the bin.
        order: written, index of each token's spike; with room for n, as in those that follow.
        row: written.
        t_rel: written, seconds since the start of the bin.
        weight: written, the count.

    Returns:
        How many tokens; `GIVEN_UP`.
    """
    n, n_shifts = 0, 0
    for i in range(len(t_us)):
        if unit[i] < 0 or unit[i] >= len(row_of):
            return GIVEN_UP
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
            return GIVEN_UP
    for j in range(n):
        t_rel[j] = np.float32((t_us[order[j]] - start_us) * 1e-6)
        weight[j] = np.float32(count[order[j]])
    return n
