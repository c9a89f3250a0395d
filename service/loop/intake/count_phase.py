"""Phase of a counting source: its bins drift against their nominal rate, and beats follow them.

A device whose crystal runs .1 % fast ends every thousandth bin a whole bin early. Where bins were
snapped to a fixed grid, some beats would hold two and others none. Here the grid moves with the
bins: each bin keeps its own number, and beat k ends with bin k x (bins a beat) for ever.
"""

from __future__ import annotations

import numpy as np

from streams.messages import Float64s, Int64s

PHASE_GAIN, RATE_GAIN = 0.1, 0.005
"""Of an alpha-beta filter, near critical damping: stamps that jitter by 1 ms move it by .2 ms."""


class CountPhase:
    """Numbers a source's bins by their stamps, and follows their drift.

    Attributes:
        moved_s: by how much the grid has moved since t0.

    Args:
        bin_s: nominal bin length.
    """

    def __init__(self, bin_s: float) -> None:
        self.moved_s = 0.0
        self._bin_s = bin_s
        self._bin_us = round(bin_s * 1e6)
        self._drift = 0.0
        self._newest_s = -np.inf
        self._newest_m = 0

    @property
    def leeway_us(self) -> int:
        """Bound of how much later than its stamp a bin's number may put it."""
        return self._bin_us // 2

    def begin_anew(self) -> None:
        """Forget the drift: another device, or the same after a restart, has come."""
        self._drift, self._newest_s = 0.0, -np.inf

    def ends_us(self, since_t0_s: Float64s) -> Int64s:
        """Return the ends for bins with these stamps, (n,) microseconds on the moving grid.

        Args:
            since_t0_s: (n,) stamps in seconds since t0, as they arrived; they move the grid.
        """
        return np.array([self._number(float(t_s)) for t_s in since_t0_s], np.int64) * self._bin_us

    def _number(self, t_s: float) -> int:
        n_on = (t_s - self.moved_s) / self._bin_s
        if t_s <= self._newest_s:  # again, or out of order: it moves nothing
            return round(n_on)
        is_first = self._newest_s == -np.inf
        if not is_first:
            n_bins = max(1, round((t_s - self._newest_s) / self._bin_s))
            self.moved_s += self._drift * n_bins
            n_on = (t_s - self.moved_s) / self._bin_s
        m = round(n_on) if is_first else max(round(n_on), self._newest_m + 1)
        error_s = t_s - self.moved_s - m * self._bin_s
        self.moved_s += error_s if is_first else PHASE_GAIN * error_s
        self._drift += 0.0 if is_first else RATE_GAIN * error_s
        self._newest_s, self._newest_m = t_s, m
        return m
