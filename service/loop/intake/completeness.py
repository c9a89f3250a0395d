"""Completeness of a bin: can all its spikes have come when it is cut?

A spike says by its stamp that those stamped before it have come (up to the source's disorder, which
the settle time covers). Where nothing stamped after a bin's end has come by its cut, either no unit
fired since, or the source has fallen behind. Three measures tell which, each held against what it
was while the source was on time: for how long nothing newer has come, how far the newest stamp lies
before the bin's end, and how far stamps lie apart. A network that delays a packet now and then does
not make longer silences usual: what is usual are the stamps' distances, and the delay of most.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

import numpy as np

from service.loop.intake.arrivals import Arrival
from service.loop.intake.schedule import Schedule
from streams.messages import Int64s

KEPT_S = 60.0
LEARNT_AFTER_S = 1.0
"""From the first arrival on; nothing is taken for usual before."""
MORE_S, MORE_SPREADS = 2e-3, 1.0
DELAYS_A_SECOND = 100
"""As many tell a median; more would be sorted on a beat's way."""
SELDOM_S = 0.1
"""A source whose usual intervals are longer is heard too seldom to tell by a silence."""


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

        Nothing where blocks come like clockwork. Where only chance makes silences, one three times
        in an hour exceeds the largest of the last minute by as much: most of them are heard of
        before the bin is cut.
        """
        values_s = sorted(value_s for _, value_s in self._seconds)
        return values_s[-1] - values_s[len(values_s) // 2] if values_s else 0.0


class UsualIntervals:
    """Intervals between stamps, one arrival's from the one before.

    Attributes:
        newest_us: the newest stamp; None before the first.
    """

    def __init__(self) -> None:
        self.newest_us: int | None = None
        self._intervals = UsualMost()

    def add(self, t_s: float, oldest_us: int) -> None:
        """Take in the oldest stamp of those that arrived at `t_s`, on time."""
        if self.newest_us is not None:
            self._intervals.add(t_s, (oldest_us - self.newest_us) * 1e-6)

    def clear(self) -> None:
        """Forget what was usual."""
        self._intervals.clear()

    @property
    def longest_s(self) -> float:
        """Longest usual one; infinite if it tells nothing."""
        most_s = self._intervals.most_s
        return math.inf if most_s > SELDOM_S else most_s + MORE_SPREADS * self._intervals.spread_s

    def until_s(self, end_us: int) -> float:
        """Seconds from the newest stamp until `end_us`; 0 before the first, which tells nothing."""
        return 0.0 if self.newest_us is None else (end_us - self.newest_us) * 1e-6


class UsualDelay:
    """Delay of most arrivals: the largest of the last minute's medians, each of one second."""

    def __init__(self) -> None:
        self._medians, self._delays_s, self._second = UsualMost(), list[float](), 0

    def add(self, t_s: float, delay_s: float) -> None:
        """Take in an arrival's delay, at `t_s`."""
        if int(t_s) != self._second and self._delays_s:
            self._medians.add(float(self._second), median(self._delays_s))
            self._delays_s.clear()
        self._second = int(t_s)
        if len(self._delays_s) < DELAYS_A_SECOND:
            self._delays_s.append(delay_s)

    def clear(self) -> None:
        """Forget all."""
        self._medians.clear()
        self._delays_s.clear()

    @property
    def most_s(self) -> float:
        """Seconds; 0 before the first second is over."""
        return self._medians.most_s


class Completeness:
    """Watches how long, and by how much of a bin, the source is unheard of while it is on time.

    Args:
        schedule: when beats fall; its t0 moves with a counting source.
        bin_us: bin length if the source counts; None for events.
    """

    def __init__(self, schedule: Schedule, bin_us: int | None = None) -> None:
        self._schedule, self._bin_us = schedule, bin_us
        self._t_first_s: float | None = None
        self._t_newest_s = 0.0
        self._stamps, self._spikes = UsualIntervals(), UsualIntervals()
        self._deficit, self._delay = UsualMost(), UsualDelay()
        self._open_deficit_s = 0.0
        self._is_doubtful = self._has_hole = False
        self._bins_us: set[int] = set()

    @property
    def newest_us(self) -> int | None:
        """The newest stamp, keep-alives and count bins included; None before the first."""
        return self._stamps.newest_us

    def begin_anew(self) -> None:
        """Forget what was usual: another stream has come."""
        self._t_first_s = None
        for usual in (self._stamps, self._spikes, self._deficit, self._delay):
            usual.clear()

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
        # An interval in which something was lost, or was not taken, tells of no silence.
        self._has_hole = self._has_hole or rejects or arrival.n_lost > 0
        if arrival.bins_us is not None:
            self._bins_us.update(arrival.bins_us.tolist())
        if newest_us is None or (self.newest_us is not None and newest_us <= self.newest_us):
            return
        self._t_newest_s = arrival.t_s
        t_us = arrival.batch.t_us
        oldest_spike_us = _least_beyond(self._spikes.newest_us, t_us)
        oldest_us = _least_beyond(self.newest_us, t_us)
        if oldest_us is None:
            oldest_us = arrival.newest_keep_alive_us
        if self._t_first_s is None:
            self._t_first_s = arrival.t_s
        elif (
            arrival.n_lost
            or oldest_us is None
            or (delay_s := self._age_s(oldest_us, arrival.t_s)) > settle_s
        ):
            self._is_doubtful = True  # it is behind now: what is due may be, too
        elif not self._has_hole:
            self._delay.add(arrival.t_s, delay_s)
            self._deficit.add(arrival.t_s, self._open_deficit_s)
            self._stamps.add(arrival.t_s, oldest_us)
            if oldest_spike_us is not None:
                self._spikes.add(arrival.t_s, oldest_spike_us)
        self._open_deficit_s = 0.0
        self._has_hole = rejects
        self._stamps.newest_us = newest_us
        if oldest_spike_us is not None:
            self._spikes.newest_us = min(int(np.maximum.reduce(t_us)), newest_us)

    def note_cut(self, end_us: int) -> None:
        """A bin is cut: note by how much the newest stamp lies before its end."""
        self._open_deficit_s = max(self._open_deficit_s, self._stamps.until_s(end_us))

    def lacks(self, end_us: int, t_s: float, *, in_order: bool = True) -> bool:
        """Return True where a bin may lack spikes.

        Args:
            end_us: where it ends.
            t_s: when it is cut.
            in_order: what has come after its end tells that all before has. Otherwise spikes fall
                behind later ones: if the source falls silent then, some may be on their way.
        """
        if self.newest_us is None:
            return True
        if self.newest_us >= end_us:
            return not in_order and self._has_learnt and self._is_silent(self.newest_us, t_s)
        return (
            self._is_doubtful
            or self._is_silent(self.newest_us, t_s)
            or self._stamps.until_s(end_us) > self._largest_deficit_s
            or self._spikes.until_s(end_us) > self._spikes.longest_s
        )

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

    def _is_silent(self, newest_us: int, t_s: float) -> bool:
        return self._age_s(newest_us, t_s) > self._longest_s

    @property
    def _has_learnt(self) -> bool:
        t_first_s = self._t_first_s
        return t_first_s is not None and self._t_newest_s - t_first_s >= LEARNT_AFTER_S

    @property
    def _longest_s(self) -> float:
        """Longest usual silence of the source; infinite if silence tells nothing."""
        if not self._has_learnt:
            return 0.0
        return self._stamps.longest_s + self._delay.most_s + MORE_S

    @property
    def _largest_deficit_s(self) -> float:
        """Largest usual distance of the newest stamp before a bin's end at its cut."""
        longest_s, most_s = self._stamps.longest_s, self._deficit.most_s
        if longest_s == math.inf:
            return math.inf
        more_s = MORE_S + MORE_SPREADS * self._deficit.spread_s if most_s else 0.0
        return min(longest_s, most_s + more_s)

    def _age_s(self, t_us: int, t_s: float) -> float:
        """Seconds from a stamp to `t_s`."""
        return t_s - self._schedule.t0_s - t_us * 1e-6


def _least_beyond(since_us: int | None, t_us: Int64s) -> int | None:
    """Return the least of (n,) stamps beyond one; None if there is none."""
    beyond_us = t_us if since_us is None else t_us[t_us > since_us]
    return int(np.minimum.reduce(beyond_us)) if len(beyond_us) else None
