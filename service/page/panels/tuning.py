"""Preferred directions, estimated while running from spikes and velocity."""

from __future__ import annotations

import numpy as np

BIN_S, MEMORY_S, AT_LEAST_S = 0.1, 120.0, 10.0
TELLING_Z = 4.0


class Tuning:
    """Regresses each unit's counts in bins of 0.1 s on the velocity; forgets over two minutes.

    With s = sum of bins, v = velocity and n = counts, all sums decay, so that cov(n, v) and var(v)
    of the recent past stay known at a constant cost.
    """

    def __init__(self) -> None:
        self._weight = 0.0
        self._sum_v, self._sum_vv = np.zeros(2), np.zeros((2, 2))
        self._sum_n, self._sum_nn = np.zeros(0), np.zeros(0)
        self._sum_nv = np.zeros((0, 2))

    def add(self, counts: np.ndarray, velocity: np.ndarray) -> None:
        """Take in one bin: (n_units,) counts and the mean velocity, (2,)."""
        more = len(counts) - len(self._sum_n)
        if more > 0:
            self._sum_n, self._sum_nn = (
                np.pad(self._sum_n, (0, more)),
                np.pad(self._sum_nn, (0, more)),
            )
            self._sum_nv = np.pad(self._sum_nv, ((0, more), (0, 0)))
        keep = 1.0 - BIN_S / MEMORY_S
        self._weight = self._weight * keep + 1.0
        self._sum_v = self._sum_v * keep + velocity
        self._sum_vv = self._sum_vv * keep + np.outer(velocity, velocity)
        self._sum_n = self._sum_n * keep + counts
        self._sum_nn = self._sum_nn * keep + counts * counts
        self._sum_nv = self._sum_nv * keep + np.outer(counts, velocity)

    @property
    def is_known(self) -> bool:
        """True once enough was seen, and the velocity varied."""
        return self._weight * BIN_S >= AT_LEAST_S and bool(np.linalg.det(self._cov_v()) > 1e-12)

    def _cov_v(self) -> np.ndarray:
        mean = self._sum_v / max(self._weight, 1.0)
        cov: np.ndarray = self._sum_vv / max(self._weight, 1.0) - np.outer(mean, mean)
        return cov

    def directions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (n_units,) preferred directions (radians), whether each is tuned, and its R2."""
        n = len(self._sum_n)
        if not self.is_known:
            return np.zeros(n), np.zeros(n, bool), np.zeros(n)
        mean_v, mean_n = self._sum_v / self._weight, self._sum_n / self._weight
        cov_nv = self._sum_nv / self._weight - np.outer(mean_n, mean_v)
        var_n = np.maximum(self._sum_nn / self._weight - mean_n**2, 1e-12)
        slope = cov_nv @ np.linalg.inv(self._cov_v())
        r2 = np.clip(np.einsum("ij,ij->i", slope, cov_nv) / var_n, 0.0, 1.0)
        # With no tuning, weight * R2 is chi-squared with two degrees of freedom.
        is_tuned = self._weight * r2 > TELLING_Z**2
        return np.arctan2(slope[:, 1], slope[:, 0]), is_tuned, r2
