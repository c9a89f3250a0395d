"""Completeness of a bin: whether its spikes can all have come when it is cut.

A spike says by its stamp that those stamped before it have come (up to the source's disorder, which
the settle time covers). Where nothing stamped after a bin's end has come by its cut, either no unit
fired since, or the source has fallen behind. How long this source is unheard of while it is on time
was measured; a longer silence means that the bin may lack spikes.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from service.loop.outcome import Schedule
from service.loop.source import Arrival

KEPT_S = 60.0
LEARNT_AFTER_S = 1.0
"""From the first arrival on; nothing is taken for usual before."""
MORE, MORE_S, MORE_GAPS = 0.05, 2e-3, 4.0
"""A silence may exceed the longest of late by this share, or by so much and so many mean gaps
between spikes: of silences that only chance makes, one in an hour is as long."""
SELDOM_S = 0.1
"""A source whose usual silences are longer, its delay apart, is heard too seldom to tell by one."""


class Completeness:
    """Watches how long the source is unheard of while it is on time.

    Attributes:
        newest_us: the newest stamp, keep-alives and bins of counts included; None before the first.

    Args:
        schedule: when beats fall; its t0 moves with a source of counts.
        bin_us: length of the source's bins where it counts; None for events.
    """

    def __init__(self, schedule: Schedule, bin_us: int | None = None) -> None:
        self.newest_us: int | None = None
        self._schedule, self._bin_us = schedule, bin_us
        self._t_first_s: float | None = None
        self._t_newest_s = self._settle_s = 0.0
        self._seconds: deque[tuple[int, float, int]] = deque()
        self._bins_us: set[int] = set()

    def begin_anew(self) -> None:
        """Forget what was usual: another stream has come."""
        self._t_first_s = None
        self._seconds.clear()

    def note(self, arrival: Arrival, newest_us: int | None, settle_s: float) -> None:
        """Take in an arrival.

        Args:
            arrival: what came.
            newest_us: the newest stamp of it that does not lie in the future.
            settle_s: what spikes have to arrive in, seconds.
        """
        if arrival.bins_us is not None:
            self._bins_us.update(arrival.bins_us.tolist())
        if newest_us is None or (self.newest_us is not None and newest_us <= self.newest_us):
            return
        self._t_newest_s, self._settle_s = arrival.t_s, settle_s
        if self._t_first_s is None:
            self._t_first_s = arrival.t_s
        elif self.newest_us is not None and self._is_on_time(arrival, settle_s):
            silence_s = self._age_s(self.newest_us, arrival.t_s)
            self._learn(arrival.t_s, silence_s, 1 + len(arrival.batch))
        self.newest_us = newest_us

    def lacks(self, end_us: int, t_s: float) -> bool:
        """Return True where the bin that ends there may lack spikes at `t_s`."""
        if self.newest_us is None:
            return True
        if self.newest_us >= end_us:
            return False
        return self._age_s(self.newest_us, t_s) > self.limit_s

    def lacks_bins(self, start_us: int, end_us: int) -> bool:
        """Return True where a bin of counts in `(start_us, end_us]` has not come."""
        if self._bin_us is None:
            return False
        wanted = range(end_us, start_us, -self._bin_us)
        if len(self._bins_us) > 4 * len(wanted) + 64:
            self._bins_us = {us for us in self._bins_us if us > start_us}
        return any(us not in self._bins_us for us in wanted)

    def resolves_within(self, end_us: int, longest_s: float) -> bool:
        """Return True where a wait of so long after its end tells whether the bin is whole."""
        if self.newest_us is None or self.newest_us >= end_us:
            return False
        return self.limit_s <= longest_s

    @property
    def limit_s(self) -> float:
        """How long the source may be unheard of; infinite where that tells nothing."""
        if self._t_first_s is None or self._t_newest_s - self._t_first_s < LEARNT_AFTER_S:
            return 0.0
        longest_s = max((silence_s for _, silence_s, _ in self._seconds), default=0.0)
        if longest_s > SELDOM_S + self._settle_s:
            return math.inf
        gap_s = len(self._seconds) / max(1, sum(n for _, _, n in self._seconds))
        return longest_s + max(MORE * longest_s, MORE_S + MORE_GAPS * gap_s)

    def _is_on_time(self, arrival: Arrival, settle_s: float) -> bool:
        """Whether what is new of it came within the settle time."""
        since_us = -1 if self.newest_us is None else self.newest_us
        t_us = arrival.batch.t_us[arrival.batch.t_us > since_us]
        oldest_us = int(np.minimum.reduce(t_us)) if len(t_us) else arrival.newest_keep_alive_us
        if oldest_us is None:
            return False
        return self._age_s(oldest_us, arrival.t_s) <= settle_s

    def _age_s(self, t_us: int, t_s: float) -> float:
        """Seconds from a stamp to `t_s`."""
        return t_s - self._schedule.t0_s - t_us * 1e-6

    def _learn(self, t_s: float, silence_s: float, n_stamps: int) -> None:
        second = int(t_s)
        if self._seconds and self._seconds[-1][0] == second:
            _, longest_s, n = self._seconds.pop()
            silence_s, n_stamps = max(silence_s, longest_s), n_stamps + n
        self._seconds.append((second, silence_s, n_stamps))
        while self._seconds[0][0] < second - KEPT_S:
            self._seconds.popleft()
