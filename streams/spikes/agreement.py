"""The move of units' tuning since calibration, told without labels.

Each unit is compared with what the other units decode together: a unit that became another one, or
turned its preferred direction, no longer varies with them as it did. How fast or how much the
subject moves scales all units alike, and is divided out.

Let z be the roots of units' counts in calibration's standard deviations, W a linear readout of the
behaviour, d = z W. Then c_j = cov(z_j, d) - W_j var(z_j) is unit j's covariance with what the
others decode, free of its own noise; C holds all c_j, each by unit j's deviation now. Today's C is
compared with calibration's C0 up to a linear map M of the few dimensions: the share of C that C0 M
explains says how much of the signal is as it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from streams.messages import Float64s

BIN_S = 0.1
"""Counts are taken so often: reaches last half a second and more."""
BLOCK_S = 10.0
"""Means are taken over so long: slower changes of rates are no tuning."""
OVER_S = 240.0
"""The last seconds, which are compared with calibration."""
AT_LEAST_S = 120.0
N_PARTS = 3
TELLING = 3.0
"""By how much what units share must exceed what chance would give."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Units at calibration.

    Attributes:
        keys: U units.
        mean: (U,) of the root of spikes in `BIN_S`.
        deviation: (U,) standard deviation of that.
        readout: (U, K) from counts in deviations to the behaviour.
        shared: (U, K) covariance of each unit with what the others decode.
        reliability: share of the signal that such a stretch finds again in the same units.
        r2: of the decoder on held-out data; what is lost is told in its units.
    """

    keys: tuple[str, ...]
    mean: Float64s
    deviation: Float64s
    readout: Float64s
    shared: Float64s
    reliability: float
    r2: float

    def as_json(self) -> dict[str, Any]:
        """Return it for a bundle's manifest."""
        return {
            "keys": list(self.keys),
            "mean": _rounded(self.mean),
            "deviation": _rounded(self.deviation),
            "readout": _rounded(self.readout),
            "shared": _rounded(self.shared),
            "reliability": round(self.reliability, 4),
            "r2": round(self.r2, 4),
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Reference:
        """Read it from a bundle's manifest.

        Raises:
            ValueError, KeyError, TypeError: it is none.
        """
        arrays = {
            name: np.array(told[name], np.float64)
            for name in ("mean", "deviation", "readout", "shared")
        }
        keys = tuple(map(str, told["keys"]))
        sizes = {len(array) for array in arrays.values()}
        if sizes != {len(keys)} or arrays["readout"].shape != arrays["shared"].shape:
            raise ValueError("its arrays are not of one length")
        return cls(
            keys=keys,
            reliability=float(told["reliability"]),
            r2=float(told["r2"]),
            **arrays,
        )


def _rounded(values: Float64s) -> Any:
    return np.round(values, 5).tolist()


def reference_of(
    keys: tuple[str, ...], counts: Float64s, behavior: Float64s, r2: float, ridge: float = 30.0
) -> Reference | None:
    """Take the reference from labelled seconds.

    Args:
        keys: U units.
        counts: (n, U) spikes in bins of `BIN_S`.
        behavior: (n, K), NaN where unknown.
        r2: of the decoder on held-out data, mean over its outputs' dimensions.
        ridge: in bins.

    Returns:
        None where too little is known, or the units share nothing.
    """
    known = np.isfinite(behavior).all(axis=1)
    if np.count_nonzero(known) * BIN_S < BLOCK_S:
        return None
    roots = np.sqrt(counts)
    mean, deviation = roots.mean(axis=0), roots.std(axis=0)
    z = _standard(roots, mean, deviation)
    x, y = z[known] - z[known].mean(axis=0), behavior[known] - behavior[known].mean(axis=0)
    y = y / np.maximum(y.std(axis=0), 1e-12)
    readout = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y)
    sums = SharedSums(mean, deviation, readout)
    for row in counts:
        sums.add(row)
    parts = sums.parts(N_PARTS)
    reliability = _reliability(parts) if parts else 0.0
    if reliability <= 0.0:
        return None
    shared = np.mean(parts, axis=0)
    return Reference(keys, mean, deviation, readout, shared, reliability, r2)


def _reliability(parts: list[Float64s]) -> float:
    """Share of the signal that the whole stretch would find again, by what its thirds do.

    Noise in a third is three times that of the whole.
    """
    as_before = power = 0.0
    for i in range(N_PARTS):
        before, first, second = (parts[(i + j) % N_PARTS] for j in range(N_PARTS))
        as_before += _product_within(before, first, second)
        power += float((first * second).sum())
    if power <= 0.0 or as_before <= 0.0:
        return 0.0
    of_third = min(as_before / power, 1.0)
    return N_PARTS * of_third / ((N_PARTS - 1) * of_third + 1.0)


def _product_within(span_of: Float64s, first: Float64s, second: Float64s) -> float:
    """Return the product of two (U, K) within what a third one spans."""
    span, *_ = np.linalg.svd(span_of, full_matrices=False)
    # Noise in one is not in the other, so that it adds to no product.
    return float(((span.T @ first) * (span.T @ second)).sum())


def _standard(counts: Float64s, mean: Float64s, deviation: Float64s) -> Float64s:
    # A unit that was silent then has no usual deviation: it counts for nothing.
    safe = np.where(deviation > 0, deviation, np.inf)
    z: Float64s = (counts - mean) / safe
    return z


class SharedSums:
    """Sums up what each unit shares with the others, a bin at a time.

    Args:
        mean: (U,) as in `Reference`.
        deviation: (U,).
        readout: (U, K).
        over_s: blocks older than this are forgotten; None keeps all.
    """

    def __init__(
        self, mean: Float64s, deviation: Float64s, readout: Float64s, over_s: float | None = None
    ) -> None:
        self._mean, self._readout = mean, readout
        self._per_root = np.where(deviation > 0, 1.0 / np.maximum(deviation, 1e-12), 0.0)
        n_most = None if over_s is None else round(over_s / BLOCK_S)
        self._blocks: deque[Float64s] = deque(maxlen=n_most)
        self._variances: deque[Float64s] = deque(maxlen=n_most)
        self._begin()

    @property
    def seconds(self) -> float:
        """Length of the blocks that are whole."""
        return len(self._blocks) * BLOCK_S

    @property
    def is_block_begun_anew(self) -> bool:
        """True once a block is whole, until the next bin."""
        return self._n == 0

    def add(self, counts: Float64s) -> None:
        """Take in a bin's (U,) counts."""
        # Roots of Poisson counts vary alike at all rates.
        z = (np.sqrt(counts) - self._mean) * self._per_root
        decoded = z @ self._readout
        self._n += 1
        self._z += z
        self._squares += z * z
        self._decoded += decoded
        self._products += z[:, None] * decoded
        if self._n * BIN_S >= BLOCK_S - 1e-9:
            varied = self._squares - self._z**2 / self._n
            moved = self._products - self._z[:, None] * (self._decoded / self._n)
            self._variances.append(varied / self._n)
            self._blocks.append((moved - self._readout * varied[:, None]) / self._n)
            self._begin()

    def _begin(self) -> None:
        n_units, n_dims = self._readout.shape
        self._n = 0
        self._z, self._squares = np.zeros(n_units), np.zeros(n_units)
        self._decoded, self._products = np.zeros(n_dims), np.zeros((n_units, n_dims))

    def forget_block(self) -> None:
        """Begin the block anew: what came is not to be trusted."""
        self._begin()

    def parts(self, n: int) -> list[Float64s]:
        """Return n times (U, K), each of every n-th block; [] while there are too few."""
        if len(self._blocks) < n:
            return []
        # In units' own deviations: one that became a wild one would outweigh all others.
        variance = np.maximum(np.mean(list(self._variances), axis=0), 0.0)
        deviation = np.sqrt(variance)[:, None]
        scaled = np.array(self._blocks) / np.where(deviation > 0, deviation, np.inf)
        return [scaled[i::n].mean(axis=0) for i in range(n)]


@dataclass(frozen=True, slots=True)
class Moved:
    """The distance of today's units from calibration's.

    Attributes:
        share: of the signal's power that is as it was, 0 to 1: where half of equal units are
            others, a quarter.
        r2_lost: what that costs, and a calibration would bring back.
    """

    share: float
    r2_lost: float


def moved_since(reference: Reference, sums: SharedSums) -> Moved | None:
    """Compare today's units with calibration's; None while too little came, or nobody moves."""
    halves = sums.parts(2)
    if not halves:
        return None
    first, second = halves
    power = float((first * second).sum())
    by_chance = float(np.linalg.norm(first) * np.linalg.norm(second) / np.sqrt(first.size))
    # At rest units share little, and it tells nothing.
    if power < TELLING * by_chance:
        return None
    as_before = _product_within(reference.shared, first, second)
    share = min(max(as_before / (power * reference.reliability), 0.0), 1.0)
    return Moved(share, lost_by(share, reference.r2))


def lost_by(share: float, r2: float) -> float:
    """Return the R2 that is lost where only a share of the tuning's power is as it was.

    A readout of signal S and noise N has R2 = S / (S + N); of the signal the share is left.
    """
    r2 = min(max(r2, 0.0), 1.0)
    left = share * r2
    return r2 - left / max(left + 1.0 - r2, 1e-9)
