"""Grain of a stream's stamps: whether one unit's equal stamps can be two spikes.

A unit fires at most once in about a millisecond. Where stamps are finer than that, a unit and stamp
that come again are one spike sent twice. Where a program stamps whole blocks (one stamp for each
push), a unit's spikes may share a stamp, and nothing was sent twice.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from streams.messages import Float64s, Int32s, Int64s

COARSE_S = 0.9e-3
FINE_SHARE = 0.05
"""If a larger share of distinct stamps is spaced below `COARSE_S`, stamps are fine ..."""
TIED_SHARE, TIED_COARSE_S = 0.1, 0.3e-3
"""... unless so many samples share another unit's stamp, and spacings are this at the
median: samples on a 30 kHz clock tie as often only where they are ten times as dense."""
DOUBLED_SHARE = 0.9
N_SAMPLES = 256
NOTED_EVERY = 16
"""A stream does not change its ways from pull to pull."""


def are_blocks(t_us: Int64s) -> bool:
    """Return True if equal stamps among a recording's (n,) may be two spikes from one unit."""
    # Recordings are sorted or nearly so, where a stable sort is many times as fast as `np.unique`.
    spacings_us = np.diff(np.sort(t_us, kind="stable")).astype(np.float64)
    spacings_us = spacings_us[spacings_us > 0]
    # Spikes of many units come closer than a millisecond; blocks do not.
    n_fine = int(np.count_nonzero(spacings_us < COARSE_S * 1e6))
    return len(spacings_us) > 0 and n_fine < FINE_SHARE * len(spacings_us)


class StampGrain:
    """Watches a stream's stamps where nothing numbers the samples."""

    def __init__(self) -> None:
        self._stamps: deque[float] = deque(maxlen=N_SAMPLES)
        self._is_tied: deque[bool] = deque(maxlen=N_SAMPLES)
        self._is_doubled: deque[bool] = deque(maxlen=N_SAMPLES)
        self._n_pulls = 0
        self.is_coarse = True
        """True if one unit's equal stamps are spikes in one block; True until it is known."""

    def note(self, stamps: Float64s, unit: Int32s) -> None:
        """Take in a pull: (n,) stamps in seconds, (n,) units."""
        stamps, unit = stamps[-N_SAMPLES:], unit[-N_SAMPLES:]
        self._stamps.extend(stamps.tolist())
        self._n_pulls += 1
        if self._n_pulls > NOTED_EVERY and self._n_pulls % NOTED_EVERY:
            return
        # A tie counts only between units: one unit twice at one stamp is judged below.
        is_tied = (stamps[1:] == stamps[:-1]) & (unit[1:] != unit[:-1])
        self._is_tied.extend(is_tied.tolist())
        pairs = np.stack((stamps, unit.astype(np.float64)), axis=1)
        _, n_each = np.unique(pairs, axis=0, return_counts=True)
        self._is_doubled.extend((n_each == 2).tolist())
        self.is_coarse = not self._comes_doubled and self._steps_are_coarse

    @property
    def _steps_are_coarse(self) -> bool:
        spacings_s = np.sort(np.diff(np.unique(np.array(self._stamps))))
        n = len(spacings_s)
        if not n:
            return True
        if np.count_nonzero(spacings_s < COARSE_S) < max(1.0, FINE_SHARE * n):
            return True
        is_tied = sum(self._is_tied) >= TIED_SHARE * max(1, len(self._is_tied))
        return bool(is_tied and spacings_s[n // 2] >= TIED_COARSE_S)

    @property
    def _comes_doubled(self) -> bool:
        n = len(self._is_doubled)
        return n >= N_SAMPLES // 8 and sum(self._is_doubled) >= DOUBLED_SHARE * n
