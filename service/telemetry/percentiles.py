"""Percentiles: from the samples of a finished run, from the histogram of a running one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p999": 0.999}


def percentiles(samples: Sequence[float]) -> dict[str, float]:
    """Return the samples' `p50 p95 p99 p999 max`, in their unit; NaN if there are none."""
    if not len(samples):
        return dict.fromkeys((*QUANTILES, "max"), math.nan)
    values = np.asarray(samples, dtype=np.float64)
    result = {name: float(np.quantile(values, q)) for name, q in QUANTILES.items()}
    return result | {"max": float(values.max())}


class Histogram:
    """Counts non-negative values in bins of equal ratio: bounded memory, no allocation to add.

    Args:
        low: the first bin's lower edge; smaller values count there.
        high: the last bin's upper edge; larger values count there.
        n_bins: number of bins.
    """

    def __init__(self, low: float, high: float, n_bins: int = 400) -> None:
        self._log_low = math.log(low)
        self._per_log = n_bins / (math.log(high) - self._log_low)
        self._counts = [0] * n_bins
        self.n = 0
        self.max = 0.0

    def add(self, value: float, n: int = 1) -> None:
        """Count a value `n` times."""
        place = int((math.log(max(value, 1e-12)) - self._log_low) * self._per_log)
        self._counts[min(max(place, 0), len(self._counts) - 1)] += n
        self.n += n
        self.max = max(self.max, value)

    def quantile(self, q: float) -> float:
        """Return the upper edge of the bin that holds the quantile; NaN if empty."""
        if not self.n:
            return math.nan
        wanted, seen = q * self.n, 0
        for i, count in enumerate(self._counts):
            seen += count
            if seen >= wanted:
                edge = math.exp(self._log_low + (i + 1) / self._per_log)
                return min(edge, self.max)
        return self.max

    def summary(self) -> dict[str, float]:
        """Return `p50 p95 p99 p999 max`."""
        return {name: self.quantile(q) for name, q in QUANTILES.items()} | {"max": self.max}
