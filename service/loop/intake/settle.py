"""Settle time: the wait after a window for its spikes to arrive (docs/architecture.md, "Time").

If every bin's last spikes arrive just before the wait is over, no time is left to predecode
the bin, and every decode is as late and as uneven as one from scratch. The wait is then extended
until there is time: decodes are no later for it, and leave at a constant time.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from service.loop.intake.arrivals import Arrival

MEASURE_S = 9.5
RUNS_KEPT = 10_000
"""Of the newest bins: a source may be silent for days before it can be measured."""
START_UP_S = 0.5
LEAST_S = 1e-3
QUANTILE = 0.999
READY_BEATS = 0.998
"""Share of the beats that are to be decoded when their wait is over."""
USUAL_RUN = 0.99
MOST_READYING = 0.2
"""Share of a hop that predecoding may add to the wait at most."""
CLOCK_ERROR_S = 1e-3
"""Error of the clock offset between two hosts."""
GROWN_BY_S = 1e-3
"""Room above the oldest spike where the settle time grows."""
OLDEST_OVER_S = 1.0
SHRINKS_BY = 0.25
"""Of a hop, from one beat to the next."""
LATE_SHARE, LATE_SPIKES, LATE_FOR_S = 0.01, 10, 3.0
"""Late for good: more than this share of each second, and so many spikes, for so long."""
SLICE_S, N_HICCUPS, HICCUP, HICCUP_S = 0.5, 2, 2.0, 5e-3
"""Up to so many slices of the measurement may hold a standstill of the machine: a lag that is far
beyond the worst of the others is left out."""
_BIN_S = 50e-6
_N_BINS = 40_000


@dataclass(frozen=True, slots=True)
class Settled:
    """The measured wait, and the wait that the spikes needed."""

    settle_s: float
    needed_s: float


class SettleMeter:
    """Measures arrival minus stamp over the first 10 s.

    Args:
        hop_s: between beats.
        t_start_s: start of the run; spikes stamped within half a second of it waited for us.
        most_s: the settle time is at most this.
    """

    def __init__(self, hop_s: float, t_start_s: float, most_s: float = 0.5) -> None:
        self.hop_s, self.most_s = hop_s, most_s
        self._t_start_s = t_start_s + START_UP_S
        self._counts = np.zeros(_N_BINS, np.int64)
        self._worst_s: dict[int, float] = {}
        self._t_first_s: float | None = None
        self._after_end_s: dict[int, float] = {}
        self._runs_s: deque[float] = deque(maxlen=RUNS_KEPT)

    def add(self, lag_s: np.ndarray, t_s: float) -> None:
        """Take in an arrival's (n,) lags at `t_s`; stamps ahead of the clock tell no delay."""
        lag_s = lag_s[(t_s - lag_s > self._t_start_s) & (lag_s >= -CLOCK_ERROR_S)]
        if not len(lag_s):
            return
        if self._t_first_s is None:
            self._t_first_s = t_s
        place = np.clip(lag_s / _BIN_S, 0, _N_BINS - 1).astype(np.int64)
        np.add.at(self._counts, place, 1)
        i_slice = int((t_s - self._t_first_s) / SLICE_S)
        self._worst_s[i_slice] = max(self._worst_s.get(i_slice, 0.0), float(lag_s.max()))

    def add_end(self, k: int, after_s: float, t_s: float) -> None:
        """Note that bin k's spikes arrived at `t_s` and could be decoded so long after its end."""
        if t_s - after_s > self._t_start_s:
            self._after_end_s[k] = after_s

    def add_run(self, run_s: float) -> None:
        """Note how long a bin's decoding took."""
        self._runs_s.append(run_s)

    def result(self, t_s: float, *, predecodes: bool = False) -> Settled | None:
        """Return the settle time once 10 s of the run's spikes are in; None before.

        Args:
            t_s: now.
            predecodes: bins are predecoded until the cut.
        """
        if self._t_first_s is None or t_s < self._t_first_s + MEASURE_S:
            return None
        reached = np.cumsum(self._counts) >= QUANTILE * self._counts.sum()
        needed_s = self._without_hiccups(float((np.argmax(reached) + 1) * _BIN_S))
        wait_s = max(needed_s, LEAST_S)
        if predecodes and self._runs_s and self._after_end_s:
            wait_s = max(wait_s, min(self._ready_s(), wait_s + MOST_READYING * self.hop_s))
        return Settled(min(wait_s, self.most_s), needed_s)

    def _without_hiccups(self, needed_s: float) -> float:
        worst_s = sorted(self._worst_s.values(), reverse=True)
        if len(worst_s) <= 5 * N_HICCUPS:
            return needed_s
        usual_s = worst_s[N_HICCUPS]
        return usual_s if needed_s > HICCUP * usual_s + HICCUP_S else needed_s

    def _ready_s(self) -> float:
        """Time by which nearly all beats have read the last of their bin and decoded it."""
        last_s = np.quantile(list(self._after_end_s.values()), READY_BEATS)
        return float(last_s + np.quantile(self._runs_s, USUAL_RUN))


class SettleTime:
    """The settle time in force; one thread owns it.

    While it is measured it follows the oldest spike of the last second. Once measured it is kept,
    until spikes come late for good: then it grows and says so. A stream that was lost and is back
    is measured anew.

    Attributes:
        settle_s: how long spikes are waited for after a window's end.
        settling: it is still being measured.
        from_beat: the beat from which on it holds.
        needed_s: what the source would have needed; None while it is being measured.

    Args:
        settle_ms: as configured.
        hop_s: between beats.
        most_s: bound for an automatic settle time.
    """

    def __init__(self, settle_ms: float | Literal["auto"], hop_s: float, most_s: float) -> None:
        self.is_auto = settle_ms == "auto"
        self.settle_s = hop_s if settle_ms == "auto" else settle_ms * 1e-3
        self.settling, self.from_beat = self.is_auto, 0 if self.is_auto else 1
        self.needed_s: float | None = None
        self._hop_s, self._most_s, self._aim_s = hop_s, most_s, self.settle_s
        self._meter: SettleMeter | None = None
        self._t_begin_s = 0.0
        self._oldest_s: deque[tuple[float, float]] = deque()
        self._t_in_time_s = 0.0

    def begin(self, t_s: float) -> None:
        """Measure from `t_s` on, if that is asked for."""
        self._t_begin_s = self._t_in_time_s = t_s
        if self.is_auto:
            self.settling, self.needed_s = True, None
            self._meter = SettleMeter(self._hop_s, t_s, self._most_s)

    def note(self, arrival: Arrival, t0_s: float, t_ready_s: float) -> None:
        """Take in an arrival that could be decoded at `t_ready_s`."""
        t_us, t_s = arrival.batch.t_us, arrival.t_s
        if not self.is_auto or not len(t_us):
            return
        oldest_s = t_s - t0_s - int(np.minimum.reduce(t_us)) * 1e-6
        # What was stamped before we listened waited for us.
        if oldest_s <= min(self._most_s, t_s - self._t_begin_s):
            while self._oldest_s and self._oldest_s[-1][1] <= oldest_s:
                self._oldest_s.pop()  # the first is the largest of the last second
            self._oldest_s.append((t_s, oldest_s))
        while self._oldest_s and self._oldest_s[0][0] < t_s - OLDEST_OVER_S:
            self._oldest_s.popleft()
        if self._meter is None:
            return
        self._aim_s = max(self._hop_s, min(self._grown_s, self._most_s))
        self.settle_s = max(self.settle_s, self._aim_s)
        self._meter.add(t_s - t0_s - t_us * 1e-6, t_s)
        hop_us = round(self._hop_s * 1e6)
        for k in np.unique(-(-t_us // hop_us)).tolist():
            self._meter.add_end(k, t_ready_s - t0_s - k * self._hop_s, t_s)

    def note_run(self, run_s: float) -> None:
        """Note how long a bin's decoding took."""
        if self._meter is not None:
            self._meter.add_run(run_s)

    def fix(self, k: int, t_s: float, *, predecodes: bool) -> dict[str, Any] | None:
        """Fix the settle time once it is measured; return the report then, None before."""
        settled = None if self._meter is None else self._meter.result(t_s, predecodes=predecodes)
        if settled is None:
            return None
        if self._grown_s > HICCUP * settled.settle_s + HICCUP_S:  # it has just changed
            self._meter = SettleMeter(self._hop_s, t_s, self._most_s)
            return None
        self._meter, self.settling, self._aim_s = None, False, settled.settle_s
        self.settle_s = max(self.settle_s, self._aim_s)
        n_shrinking = math.ceil((self.settle_s - self._aim_s) / (SHRINKS_BY * self._hop_s))
        self.from_beat = k + 1 + n_shrinking
        self.needed_s, self._t_in_time_s = settled.needed_s, t_s
        return self._told(settled.needed_s)

    def shrink(self) -> None:
        """Come nearer to the aim, once a beat; at once would skip beats."""
        self.settle_s = max(self._aim_s, self.settle_s - SHRINKS_BY * self._hop_s)

    def grow(self, k: int, t_s: float, late_share: float, n_late: int) -> dict[str, Any] | None:
        """Lengthen the wait if spikes keep coming late; return the report then.

        Args:
            k: the newest beat.
            t_s: now.
            late_share: of the last second's spikes.
            n_late: how many that are.
        """
        oldest_s = self._grown_s - GROWN_BY_S
        if late_share <= LATE_SHARE or n_late < LATE_SPIKES or oldest_s <= self.settle_s:
            self._t_in_time_s = t_s
        can_grow = self.is_auto and not self.settling and self.settle_s < self._most_s
        if not can_grow or t_s - self._t_in_time_s < LATE_FOR_S:
            return None
        before_s, needed_s = self.settle_s, self._grown_s
        self.settle_s = self._aim_s = min(needed_s, self._most_s)
        self.needed_s = needed_s
        self.from_beat, self._t_in_time_s = k + 1, t_s
        warning = (
            f"{late_share:.1%} of the spikes of the last second came later than the settle time of "
            f"{before_s * 1e3:.1f} ms: it is {self.settle_s * 1e3:.1f} ms now"
        )
        return self._told(needed_s) | {"warning": warning}

    @property
    def _grown_s(self) -> float:
        """Wait that the last second's oldest spike needed."""
        return (self._oldest_s[0][1] if self._oldest_s else 0.0) + GROWN_BY_S

    def _told(self, needed_s: float) -> dict[str, Any]:
        detail: dict[str, Any] = {"settle_ms": self._aim_s * 1e3, "needed_ms": needed_s * 1e3}
        if needed_s > self._most_s:
            detail["warning"] = (
                f"spikes arrive {needed_s * 1e3:.0f} ms after their stamps, and are waited for "
                f"{self._most_s * 1e3:g} ms at most (`settle_most_ms` under [beat]): what comes "
                "later is not decoded"
            )
        elif needed_s > self._hop_s:
            detail["note"] = (
                f"spikes arrive up to {needed_s * 1e3:.0f} ms after their stamps, more than a hop "
                f"of {self._hop_s * 1e3:g} ms: every decode is that much later. Let the "
                "acquisition program push shorter blocks if that is too late"
            )
        return detail
