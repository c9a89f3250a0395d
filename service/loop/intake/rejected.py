"""Rejected spikes: their share in the last second, and the bins that lack them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from service.loop.intake.arrivals import Arrival
from service.loop.intake.schedule import Schedule
from streams.lsl.stamp_check import how_far_off, is_other_clock
from streams.spikes.ring import Fates

FATES = ("late", "future", "invalid", "duplicate")
_counts_of = attrgetter(*FATES)
OVER_S = 1.0
TOLD_SHARE, TOLD_SPIKES = 0.01, 5
"""Above this share of the last second, and so many spikes at least, an event tells of them."""
FAULT_SHARE, FAULT_SPIKES = 0.1, 10
"""Above this one decodes are `fault`."""
BIN_SHARE = 0.01
"""A bin that is known to lack more of its spikes is never `ok`."""
LATE_FOR_S = 1.5
"""A backlog, as after an outage, is a share of one second only."""
TOLD_KEPT = 1000
"""Beats whose validity is remembered."""
LOST_OVER_US = 2_000_000
QUIET_S = 10.0
"""A cause is told of again once its share has been small for so long."""
FOREIGN_FOR_S = 0.5
"""Stamps of another clock only, for so long, are no backlog."""

CAUSES = {
    "late": "spikes come {oldest_ms:.0f} ms after their stamps, and are waited for "
    "{settle_ms:.1f} ms. Let the acquisition program push shorter blocks, or raise "
    "`settle_most_ms` under [beat]",
    "future": "stamps lie {ahead_ms:.1f} ms ahead of LSL's clock. Does the sender stamp "
    'with a clock of its own? `stamps = "arrival"` under [input] does without its stamps',
    "invalid": "samples name no unit or hold no count (NaN, negative, no whole number). Firing "
    "rates and z-scores are no counts, and a channel that always holds NaN is left out by "
    "`ignore_units`; unit -1 on a channel is a sorter's noise, which "
    "`ignore_units = [-1]` under [input] leaves out",
    "duplicate": "the same unit and stamp came again. Does the sender send twice, or round its "
    "stamps? A channel `seq` that counts samples tells spikes apart",
}


@dataclass(frozen=True, slots=True)
class Happened:
    """Something to report: the event, and its detail."""

    event: str
    detail: dict[str, Any]


class RejectedSpikes:
    """Watches a source's rejected spikes; owned by the loop.

    Attributes:
        shares: for each fate in `FATES`, its share of the last second's spikes.
        n_late: in the last second.
        is_fault: one of them is too large for any decode to be trusted.
        other_clock: the source's stamps are from another clock now.

    Args:
        schedule: when beats fall.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.shares: dict[str, float] = dict.fromkeys(FATES, 0.0)
        self.n_late = 0
        self.is_fault = False
        self.other_clock = False
        self.happened: deque[Happened] = deque(maxlen=100)
        self._schedule = schedule
        self._history: deque[tuple[float, int, tuple[int, ...]]] = deque()
        self._n_lacking: dict[int, int] = {}
        self._newest_us: int | None = None
        self._was_ok: dict[int, bool] = {}
        self._t_in_time_s: float | None = None
        self._n_late_for_ok = 0
        self._lacking_until_us: int | None = None
        self._t_told_s = dict.fromkeys(FATES, -np.inf)
        self._age_s = self._oldest_s = 0.0
        self._t_foreign_s: float | None = None

    def note_published(self, k: int, *, ok: bool) -> None:
        """Note that beat k was published: spikes that come late for it lacked in it."""
        self._was_ok[k] = ok
        if len(self._was_ok) > 2 * TOLD_KEPT:
            self._was_ok = {one: self._was_ok[one] for one in list(self._was_ok)[-TOLD_KEPT:]}

    def note(
        self, arrival: Arrival, late_us: np.ndarray, future_us: np.ndarray, n_overflow: int
    ) -> None:
        """Take in an arrival.

        Args:
            arrival: what came.
            late_us: (n,) stamps of spikes whose bins are over.
            future_us: (m,) stamps of its spikes that lie in the future.
            n_overflow: spikes for which the ring had no room.
        """
        for k in self._schedule.beats_of(late_us).tolist():
            self._n_late_for_ok += self._was_ok.get(k, False)
        for t_us in (arrival.invalid_us, future_us):
            if len(t_us):
                self._lacks(t_us)
        span_us = _span_us(arrival)
        if span_us is not None:
            if arrival.n_lost:
                self._note_lost(arrival.n_lost, *span_us)
            self._newest_us = span_us[1]
        if n_overflow and len(arrival.batch):
            self._lacking_until_us = int(arrival.batch.t_us.max())
        if math.isfinite(arrival.age_s):
            first_us, last_us = (0, 0) if span_us is None else span_us
            self._oldest_s = arrival.age_s + (last_us - first_us) * 1e-6
            self._note_age(arrival.t_s, arrival.age_s)

    def _note_lost(self, n_lost: int, first_us: int, last_us: int) -> None:
        """Note lost spikes; they may have fired at any time since the pull before."""
        since_us = first_us if self._newest_us is None else min(first_us, self._newest_us)
        since_us = max(since_us, last_us - LOST_OVER_US)
        for k in self._beats(since_us, last_us):
            self._n_lacking[k] = self._n_lacking.get(k, 0) + n_lost

    @property
    def any_lacks(self) -> bool:
        """True if any bin of late is known to lack spikes."""
        return bool(self._n_lacking) or self._lacking_until_us is not None

    def bin_lacks(self, start_us: int, end_us: int, n_tokens: int) -> bool:
        """Return True where the bin `(start_us, end_us]` is known to lack too many spikes."""
        if self._lacking_until_us is not None and self._lacking_until_us > start_us:
            return True
        n = sum(self._n_lacking.get(k, 0) for k in self._beats(start_us + 1, end_us))
        return n > BIN_SHARE * (n_tokens + n)

    def update_shares(self, t_s: float, fates: Fates, n_in: int, settle_s: float) -> None:
        """Bring the shares up to date, once a beat.

        Args:
            t_s: now.
            fates: all spikes' so far.
            n_in: all spikes so far, those included whose fate is open.
            settle_s: how long spikes are waited for.
        """
        if len(self._n_lacking) > 1000:
            newest = max(self._n_lacking)
            self._n_lacking = {k: n for k, n in self._n_lacking.items() if k > newest - 500}
        now = (t_s, n_in, (*_counts_of(fates), self._n_late_for_ok))
        self._history.append(now)
        while len(self._history) > 1 and self._history[1][0] <= t_s - OVER_S:
            self._history.popleft()
        _, n_before, before = self._history[0]
        if now[2] == before:  # this stands between nearly every spike and its decode
            self.n_late, self.is_fault, self._t_in_time_s = 0, False, t_s
            self.shares = dict.fromkeys(FATES, 0.0)
            return
        n_all = max(1, n_in - n_before)
        counts = [n - was for n, was in zip(now[2], before, strict=True)]
        self.n_late = counts[0]
        self.shares = {fate: n / n_all for fate, n in zip(FATES, counts, strict=False)}
        # Late for a beat that was told to lack spikes is no news, but where it goes on.
        is_grave = [n > FAULT_SHARE * n_all and n >= FAULT_SPIKES for n in counts]
        if not is_grave[0] or self._t_in_time_s is None:
            self._t_in_time_s = t_s
        is_late_for_good = t_s - self._t_in_time_s > LATE_FOR_S
        self.is_fault = any(is_grave[1:]) or is_late_for_good
        for fate, n in zip(FATES, counts, strict=False):
            if n > TOLD_SHARE * n_all and n >= TOLD_SPIKES:
                self._tell(t_s, fate, n / n_all, settle_s)

    def _beats(self, first_us: int, last_us: int) -> range:
        """Beats from the first whose window holds one stamp to that of another."""
        first, last = self._schedule.beats_of(np.array([first_us, last_us])).tolist()
        return range(first, last + 1)

    def _lacks(self, t_us: np.ndarray) -> None:
        for k, n in zip(*np.unique(self._schedule.beats_of(t_us), return_counts=True), strict=True):
            self._n_lacking[int(k)] = self._n_lacking.get(int(k), 0) + int(n)

    def _note_age(self, t_s: float, age_s: float) -> None:
        """Note how old an arrival's newest stamp is: is it from LSL's clock?"""
        self._age_s = age_s
        if not is_other_clock(age_s):
            self._t_foreign_s = None
        elif self._t_foreign_s is None:
            self._t_foreign_s = t_s
        since_s = t_s if self._t_foreign_s is None else self._t_foreign_s
        was, self.other_clock = self.other_clock, t_s - since_s >= FOREIGN_FOR_S
        if self.other_clock and not was:
            text = f"stamps are not of LSL's clock any more: {how_far_off(age_s)}"
            self.happened.append(Happened("other_clock", {"age_s": age_s, "warning": text}))
        elif was and not self.other_clock:
            self.happened.append(Happened("lsl_clock_again", {"age_s": age_s}))

    def _tell(self, t_s: float, fate: str, share: float, settle_s: float) -> None:
        is_new = t_s - self._t_told_s[fate] > QUIET_S
        self._t_told_s[fate] = t_s
        if not is_new:
            return
        cause = CAUSES[fate].format(
            oldest_ms=self._oldest_s * 1e3, settle_ms=settle_s * 1e3, ahead_ms=-self._age_s * 1e3
        )
        text = f"{share:.1%} of the spikes of the last second were {fate}: {cause}"
        self.happened.append(
            Happened("spikes_rejected", {"fate": fate, "share": share, "warning": text})
        )

    def drain(self) -> Iterator[Happened]:
        """Yield what happened since the last time."""
        while self.happened:
            yield self.happened.popleft()


def _span_us(arrival: Arrival) -> tuple[int, int] | None:
    """An arrival's first and last stamp, keep-alives included; None if it has none."""
    alive_us, t_us = arrival.newest_keep_alive_us, arrival.batch.t_us
    if not len(t_us):
        return None if alive_us is None else (alive_us, alive_us)
    last_us = int(np.maximum.reduce(t_us))
    return int(np.minimum.reduce(t_us)), last_us if alive_us is None else max(last_us, alive_us)
