"""How long a beat waits after its window for stamped spikes to arrive (DEFINITIONS, "Settle").

Where the last spikes of every bin come just before the wait is over, there is no time to decode
the bin ahead (see `ahead`), and every decode is as late and as uneven as one from scratch. The wait
is then so much longer that there is: decodes are no later for it, and come at a constant time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MEASURE_S = 9.5
START_UP_S = 0.5
LEAST_S = 1e-3
QUANTILE = 0.999
READY_BEATS = 0.998
"""So many of the beats are to have been decoded when their wait is over."""
USUAL_RUN = 0.99
MOST_READYING = 0.2
"""What a decode ahead may add to the wait, as a share of a hop."""
_BIN_S = 50e-6
_N_BINS = 40_000


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcome of the measurement: the wait, and what spikes would have needed it to be."""

    settle_s: float
    needed_s: float


class SettleMeter:
    """Measures arrival minus stamp over the first 10 s of spikes.

    Args:
        hop_s: the settle time is at most this.
        t_start_s: start of the run; spikes stamped within half a second of it waited for us.
    """

    def __init__(self, hop_s: float, t_start_s: float) -> None:
        self.hop_s = hop_s
        self._t_start_s = t_start_s + START_UP_S
        self._counts = np.zeros(_N_BINS, np.int64)
        self._t_first_s: float | None = None
        self._after_end_s: dict[int, float] = {}
        self._runs_s: list[float] = []

    def add(self, lag_s: np.ndarray, t_s: float) -> None:
        """Take in (n,) lags of an arrival at `t_s`."""
        lag_s = lag_s[t_s - lag_s > self._t_start_s]
        if not len(lag_s):
            return
        if self._t_first_s is None:
            self._t_first_s = t_s
        place = np.clip(lag_s / _BIN_S, 0, _N_BINS - 1).astype(np.int64)
        np.add.at(self._counts, place, 1)

    def add_end(self, k: int, after_s: float, t_s: float) -> None:
        """Spikes of bin k arrived at `t_s`; they could be decoded so long after its end."""
        if t_s - after_s > self._t_start_s:
            self._after_end_s[k] = after_s

    def add_run(self, run_s: float) -> None:
        """A bin took this long to decode."""
        self._runs_s.append(run_s)

    def result(self, t_s: float, *, is_ahead: bool = False) -> Settled | None:
        """The settle time, once 10 s of the run's spikes are in; None before.

        Args:
            t_s: now.
            is_ahead: whether bins are decoded ahead.
        """
        if self._t_first_s is None or t_s < self._t_first_s + MEASURE_S:
            return None
        reached = np.cumsum(self._counts) >= QUANTILE * self._counts.sum()
        needed_s = float((np.argmax(reached) + 1) * _BIN_S)
        wait_s = max(needed_s, LEAST_S)
        if is_ahead and self._runs_s and self._after_end_s:
            wait_s = max(wait_s, min(self._ready_s(), wait_s + MOST_READYING * self.hop_s))
        return Settled(min(wait_s, self.hop_s), needed_s)

    def _ready_s(self) -> float:
        """When nearly all beats have read the last of their bin, and decoded it."""
        last_s = np.quantile(list(self._after_end_s.values()), READY_BEATS)
        return float(last_s + np.quantile(self._runs_s, USUAL_RUN))
