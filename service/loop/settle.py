"""How long a beat waits after its window for stamped spikes to arrive (DEFINITIONS, "Settle")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MEASURE_S = 9.5
START_UP_S = 0.5
LEAST_S = 1e-3
QUANTILE = 0.999
_BIN_S = 50e-6
_N_BINS = 40_000


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcome of the measurement: the wait, and what it would have needed to be."""

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

    def add(self, lag_s: np.ndarray, t_s: float) -> None:
        """Take in (n,) lags of an arrival at `t_s`."""
        lag_s = lag_s[t_s - lag_s > self._t_start_s]
        if not len(lag_s):
            return
        if self._t_first_s is None:
            self._t_first_s = t_s
        place = np.clip(lag_s / _BIN_S, 0, _N_BINS - 1).astype(np.int64)
        np.add.at(self._counts, place, 1)

    def result(self, t_s: float) -> Settled | None:
        """The settle time, once 10 s of the run's spikes are in; None before."""
        if self._t_first_s is None or t_s < self._t_first_s + MEASURE_S:
            return None
        reached = np.cumsum(self._counts) >= QUANTILE * self._counts.sum()
        needed_s = float((np.argmax(reached) + 1) * _BIN_S)
        return Settled(min(max(needed_s, LEAST_S), self.hop_s), needed_s)
