"""The beats' time grid, and its alignment with the blocks of a source.

A bin that ends in the middle of a block waits for the rest of the block. So the grid slides, by at
most a thousandth of the time, until windows end where blocks end. Then it follows the source's
clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from streams.messages import Int64s

CELL_S = 1e-4
"""Shifts are tried this far apart; it is also the least distance to a block's end that is kept."""
MOST_CELLS = 200
OVER_S, LEAST_S, AGAIN_AFTER_S = 2.0, 0.25, 1.0
GAIN_S, MOST_OF_GAIN = 2e-4, 0.75
"""A shift is worth so much less waiting; the nearest shift that brings most of it is chosen."""
MOST_FORTH_S = 5e-4
BACK, FORTH = 1e-3, 1e-4
"""Sliding, as a share of the time. Forth it is slower: a spike that is stamped between a window's
old and new end has come with the block, as it lies less than `CELL_S` beyond the old one."""
PHASES_KEPT = 1000


class Schedule:
    """Times of beats: beat k ends its window at `t0_s`, plus k hops, plus the phase; k = 1, 2, ...

    Attributes:
        t0_s: on the daemon's clock; it moves with a drifting source of counts.
        zero_s: `t0_s` without that drift: stamps count from here.

    Args:
        t0_s: at the start.
        hop_us: between beats.
    """

    def __init__(self, t0_s: float, hop_us: int) -> None:
        self.t0_s, self.hop_us, self.hop_s = t0_s, hop_us, hop_us * 1e-6
        self.zero_s = t0_s
        # Never changed, always replaced: other threads ask when beats fell.
        self._phases: tuple[tuple[int, int], ...] = ((0, 0),)

    @property
    def phase_us(self) -> int:
        """The slide of the beats to come."""
        return self._phases[-1][1]

    def move(self, moved_s: float) -> None:
        """Move all beats so far from where they fell at the start."""
        self.t0_s = self.zero_s + moved_s

    def slide(self, by_us: int, k_from: int) -> None:
        """Move the ends of beat k's bin, and of all after it."""
        self._phases = (*self._phases[1 - PHASES_KEPT :], (k_from, self.phase_us + by_us))

    def end_us(self, k: int) -> int:
        """Return the end of beat k's bin, microseconds since t0; bins of the past stay."""
        phase_us = next((us for k_from, us in reversed(self._phases) if k_from <= k), 0)
        return k * self.hop_us + phase_us

    def beats_of(self, t_us: Int64s) -> Int64s:
        """Return the first beat whose window ends at or after each stamp, (n,)."""
        return -(-(t_us - self.phase_us) // self.hop_us)

    def window_end_s(self, k: int) -> float:
        """Return beat k's `t_window`."""
        return self.t0_s + self.end_us(k) * 1e-6

    def newest_due(self, t_s: float, settle_s: float) -> int:
        """Return the newest beat whose cutting may start at `t_s`."""
        return int((t_s - settle_s - self.t0_s - self.phase_us * 1e-6) / self.hop_s)


class BlockAlignment:
    """Slides a schedule until its windows wait least for the source's blocks.

    Args:
        schedule: what slides.
        heard_until_s: stamps that the blocks heard so far reach to, seconds; the schedule is
            aligned with them at once.
    """

    def __init__(self, schedule: Schedule, heard_until_s: Sequence[float] = ()) -> None:
        self._schedule = schedule
        self._until_s: deque[float] = deque()
        self._t_aimed_s = -np.inf
        self._left_us = 0
        for until_s in heard_until_s:
            self.note(until_s)
        self._aim(schedule.hop_s)
        schedule.slide(self._left_us, 0)
        self._left_us = 0

    def begin_anew(self) -> None:
        """Forget the blocks: another stream has come."""
        self._until_s.clear()
        self._left_us = 0

    def note(self, until_s: float) -> None:
        """Note that everything stamped up to `until_s` has come, seconds on the daemon's clock."""
        if not self._until_s or until_s > self._until_s[-1]:
            self._until_s.append(until_s)
        while self._until_s[0] < self._until_s[-1] - OVER_S:
            self._until_s.popleft()

    def slide(self, t_s: float, settle_s: float, k_next: int) -> None:
        """Slide beat `k_next` by what one beat may; once a second look where to."""
        if t_s - self._t_aimed_s >= AGAIN_AFTER_S:
            self._t_aimed_s = t_s
            self._aim(settle_s)
        hop_us = self._schedule.hop_us
        by_us = min(max(self._left_us, -round(BACK * hop_us)), max(1, round(FORTH * hop_us)))
        if by_us:
            self._schedule.slide(by_us, k_next)
            self._left_us -= by_us

    def _aim(self, settle_s: float) -> None:
        """Choose the shift with the least mean wait: back, or forth by a little.

        Stamps tell how much of the last block lies beyond a window's end. When blocks arrived tells
        less: they are noticed later while a beat is under way.
        """
        schedule, until_s = self._schedule, np.array(self._until_s)
        if len(until_s) < 10 or until_s[-1] - until_s[0] < LEAST_S:
            return
        # Where windows would have ended, had they been where they are now.
        begun_s, hop_s = schedule.t0_s + schedule.phase_us * 1e-6, schedule.hop_s
        n_first, n_last = (np.array([until_s[0], until_s[-1]]) - begun_s) / hop_s
        ends_s = begun_s + hop_s * np.arange(np.ceil(n_first) + 1, n_last)
        if len(ends_s) < 5:
            return
        n_cells = min(MOST_CELLS, round(hop_s / CELL_S))
        shifts_s = -hop_s / n_cells * np.arange(n_cells)
        tried_s = ends_s + shifts_s[:, None]  # (n_cells, n_beats)
        i_until = np.minimum(np.searchsorted(until_s, tried_s), len(until_s) - 1)
        beyond_s = np.maximum(until_s[i_until] - tried_s, 0.0)
        waits_s = np.minimum(beyond_s, settle_s).mean(axis=1)
        # Beside a cell where a window just misses its block, the next jitter misses it too.
        near_s = np.maximum(waits_s, np.maximum(np.roll(waits_s, 1), np.roll(waits_s, -1)))
        gain_s = float(near_s[0] - near_s.min())
        if gain_s < GAIN_S:
            self._left_us = 0
            return
        # Several blocks end in a hop, and chance prefers one. The nearest that is good will do.
        good_s = shifts_s[near_s <= near_s.min() + max(0.5 * GAIN_S, (1.0 - MOST_OF_GAIN) * gain_s)]
        back_s, forth_s = -float(good_s.max()), hop_s + float(good_s.min())
        left_s = forth_s if forth_s < min(MOST_FORTH_S, back_s) else -back_s
        self._left_us = round(left_s * 1e6)
