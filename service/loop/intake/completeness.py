"""Completeness of a bin: can all its spikes have come when it is cut?

A spike says by its stamp that those stamped before it have come (up to the source's disorder, which
the settle time covers). Where nothing stamped after a bin's end has come by its cut, either no unit
fired since, or the source has fallen behind. Two measures tell which, each held against what it was
while the source was on time: for how long nothing newer has come, and how far the newest stamp lies
before the bin's end.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from service.loop.intake.arrivals import Arrival
from service.loop.intake.schedule import Schedule

KEPT_S = 60.0
LEARNT_AFTER_S = 1.0
"""From the first arrival on; nothing is taken for usual before."""
MORE_S, MORE_SPREADS = 2e-3, 1.5
SELDOM_S = 0.1
"""A source whose usual silences are longer, its delay apart, is heard too seldom to tell by one."""


class UsualMost:
    """Each second's largest value in the last minute, and what more would be unusual."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, float]] = deque()

    def add(self, t_s: float, value_s: float) -> None:
        """Take in a value that was usual, at `t_s`."""
        second = int(t_s)
        if self._seconds and self._seconds[-1][0] == second:
            value_s = max(value_s, self._seconds.pop()[1])
        self._seconds.append((second, value_s))
        while self._seconds[0][0] < second - KEPT_S:
            self._seconds.popleft()

    def clear(self) -> None:
        """Forget all."""
        self._seconds.clear()

    @property
    def most_s(self) -> float:
        """The largest; 0 if there is none."""
        return max((value_s for _, value_s in self._seconds), default=0.0)

    @property
    def spread_s(self) -> float:
        """Excess of the largest over a median second's.

        Nothing where blocks come like clockwork. Where only chance makes silences, one and a half
        times as much above the largest is reached once in an hour.
        """
        values_s = sorted(value_s for _, value_s in self._seconds)
        return values_s[-1] - values_s[len(values_s) // 2] if values_s else 0.0


class Completeness:
    """Watches how long, and by how much of a bin, the source is unheard of while it is on time.

    Attributes:
        newest_us: the newest stamp, keep-alives and count bins included; None before the first.

    Args:
        schedule: when beats fall; its t0 moves with a counting source.
        bin_us: bin length if the source counts; None for events.
    """

    def __init__(self, schedule: Schedule, bin_us: int | None = None) -> None:
        self.newest_us: int | None = None
        self._schedule, self._bin_us = schedule, bin_us
        self._t_first_s: float | None = None
        self._t_newest_s = 0.0
        self._silence, self._deficit, self._beyond_delay = UsualMost(), UsualMost(), UsualMost()
        self._open_deficit_s = 0.0
        self._is_doubtful = False
        self._bins_us: set[int] = set()

    def begin_anew(self) -> None:
        """Forget what was usual: another stream has come."""
        self._t_first_s = None
        self._silence.clear()
        self._deficit.clear()
        self._beyond_delay.clear()

    def note(
        self, arrival: Arrival, newest_us: int | None, settle_s: float, *, rejects: bool = False
    ) -> None:
        """Take in an arrival.

        Args:
            arrival: what came.
            newest_us: its newest stamp that does not lie in the future.
            settle_s: what spikes have to arrive in, seconds.
            rejects: some of it was not taken for its stamp; nothing newer comes in its place.
        """
        self._is_doubtful = rejects
        if arrival.bins_us is not None:
            self._bins_us.update(arrival.bins_us.tolist())
        if newest_us is None or (self.newest_us is not None and newest_us <= self.newest_us):
            return
        self._t_newest_s = arrival.t_s
        if self._t_first_s is None:
            self._t_first_s = arrival.t_s
        elif not self._is_usual(arrival, settle_s):
            self._is_doubtful = True  # it is behind now: what is due may be, too
        elif self.newest_us is not None:
            silence_s = self._age_s(self.newest_us, arrival.t_s)
            self._silence.add(arrival.t_s, silence_s)
            self._beyond_delay.add(arrival.t_s, silence_s - settle_s)
            self._deficit.add(arrival.t_s, self._open_deficit_s)
        self._open_deficit_s = 0.0
        self.newest_us = newest_us

    def note_cut(self, end_us: int) -> None:
        """A bin is cut: note by how much the newest stamp lies before its end."""
        if self.newest_us is not None:
            self._open_deficit_s = max(self._open_deficit_s, (end_us - self.newest_us) * 1e-6)

    def lacks(self, end_us: int, t_s: float) -> bool:
        """Return True where the bin that ends there may lack spikes at `t_s`."""
        if self.newest_us is None:
            return True
        if self.newest_us >= end_us:
            return False
        if self._is_doubtful or self._age_s(self.newest_us, t_s) > self._longest_s:
            return True
        return (end_us - self.newest_us) * 1e-6 > self._largest_deficit_s

    def lacks_bins(self, start_us: int, end_us: int) -> bool:
        """Return True where a bin of counts in `(start_us, end_us]` has not come."""
        if self._bin_us is None:
            return False
        wanted = range(end_us, start_us, -self._bin_us)
        if len(self._bins_us) > 4 * len(wanted) + 64:
            self._bins_us = {us for us in self._bins_us if us > start_us}
        return any(us not in self._bins_us for us in wanted)

    def resolves_within(self, end_us: int, longest_s: float) -> bool:
        """Return True if waiting so long after its end tells that the bin is whole, or not."""
        if self.newest_us is None or self.newest_us >= end_us:
            return False
        return self._longest_s <= longest_s

    @property
    def _longest_s(self) -> float:
        """Longest usual silence of the source; infinite if silence tells nothing."""
        if self._t_first_s is None or self._t_newest_s - self._t_first_s < LEARNT_AFTER_S:
            return 0.0
        if self._is_heard_seldom:
            return math.inf
        return self._silence.most_s + MORE_S + MORE_SPREADS * self._silence.spread_s

    @property
    def _largest_deficit_s(self) -> float:
        """Largest usual distance of the newest stamp before a bin's end at its cut."""
        if self._is_heard_seldom:
            return math.inf
        most_s = self._deficit.most_s
        return most_s + (MORE_S + MORE_SPREADS * self._deficit.spread_s if most_s else 0.0)

    @property
    def _is_heard_seldom(self) -> bool:
        return self._beyond_delay.most_s > SELDOM_S

    def _is_usual(self, arrival: Arrival, settle_s: float) -> bool:
        """True if the new part came within the settle time, and nothing before it was lost."""
        if arrival.n_lost:
            return False
        since_us = -1 if self.newest_us is None else self.newest_us
        t_us = arrival.batch.t_us[arrival.batch.t_us > since_us]
        oldest_us = int(np.minimum.reduce(t_us)) if len(t_us) else arrival.newest_keep_alive_us
        if oldest_us is None:
            return False
        return self._age_s(oldest_us, arrival.t_s) <= settle_s

    def _age_s(self, t_us: int, t_s: float) -> float:
        """Seconds from a stamp to `t_s`."""
        return t_s - self._schedule.t0_s - t_us * 1e-6
