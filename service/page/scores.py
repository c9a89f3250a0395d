"""Running scores: R2 of decodes against what was done, and bits a second over the last trials."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streams.messages import Float64s
from streams.r2 import r2_score
from streams.sessions.session import Behavior

OVER_S, GAP_S = 30.0, 0.1
FEWEST_DECODES, FEWEST_TRIALS = 50, 5
WIDTHS_PER_SD = 4.133
"""Width that holds 96 % of normal endpoints, in standard deviations (ISO 9241-411)."""


class RunningR2:
    """R2 of the last seconds, as `calibration` computes it: behaviour interpolated, gaps left out.

    Args:
        over_s: how far back.
        max_gap_s: behaviour is not bridged across longer gaps.
    """

    def __init__(self, over_s: float = OVER_S, max_gap_s: float = GAP_S) -> None:
        self._over_s, self._max_gap_s = over_s, max_gap_s
        self._decoded: deque[tuple[float, Sequence[float]]] = deque()
        self._actual: deque[tuple[float, Sequence[float]]] = deque()

    def add_decoded(self, t_s: float, value: Sequence[float]) -> None:
        """Take in a decode that is `ok`.

        Args:
            t_s: the time that it estimates, `t_window + lead_s`.
            value: (dims,).
        """
        _keep(self._decoded, t_s, value, self._over_s)

    def add_actual(self, t_s: float, value: Sequence[float]) -> None:
        """Take in a sample of the behaviour, (dims,); NaN where it is unknown."""
        _keep(self._actual, t_s, value, self._over_s + self._max_gap_s)

    def r2(self) -> list[float] | None:
        """Score each dimension; None while too little can be compared.

        A dimension that does not vary is NaN.
        """
        if len(self._decoded) < FEWEST_DECODES or len(self._actual) < 2:
            return None
        actual = self._behavior().at(_times(self._decoded), self._max_gap_s)
        if np.count_nonzero(np.isfinite(actual).all(axis=1)) < FEWEST_DECODES:
            return None
        return r2_score(_values(self._decoded)[:, : actual.shape[1]], actual)

    def _behavior(self) -> Behavior:
        return Behavior(_times(self._actual), _values(self._actual), unit="")


@dataclass(frozen=True, slots=True)
class ScoredTrial:
    """A trial that is over.

    Attributes:
        seconds: from the target's appearance to the trial's end.
        is_success: the target was acquired.
        target: where it was, any unit; None where unknown.
        start: the cursor's place at the beginning; None where unknown.
        end: the cursor's place at the end; None where unknown.
    """

    seconds: float
    is_success: bool
    target: Sequence[float] | None = None
    start: Sequence[float] | None = None
    end: Sequence[float] | None = None


def fitts_bits_per_s(trials: Sequence[ScoredTrial]) -> float | None:
    """Throughput with the effective width (ISO 9241-411), over the trials that succeeded.

    Bits are log2(D / We + 1). D is the mean distance from start to target, We is 4.133 standard
    deviations of where movements ended, along the way to the target.

    Returns:
        None while fewer than five succeeded with known places.
    """
    distances, off, taken_s = [], [], []
    for trial in trials:
        if trial.start is None or trial.end is None or trial.target is None:
            continue
        distance = math.dist(trial.start, trial.target)
        if not trial.is_success or not distance > 0.0:
            continue
        way = np.subtract(trial.target, trial.start) / distance
        distances.append(distance)
        off.append(float(np.subtract(trial.end, trial.target) @ way))
        taken_s.append(trial.seconds)
    if len(distances) < FEWEST_TRIALS:
        return None
    width = max(WIDTHS_PER_SD * float(np.std(off, ddof=1)), 1e-6)
    bits = math.log2(float(np.mean(distances)) / width + 1.0)
    return bits / float(np.mean(taken_s))


def grid_bits_per_s(trials: Sequence[ScoredTrial], n_targets: int) -> float | None:
    """Achieved bit rate, log2(N - 1) max(hits - misses, 0) / t (Nuyujukian et al. 2015).

    Args:
        trials: the last ones.
        n_targets: how many could have been chosen each time.

    Returns:
        None with fewer than five trials or three targets.
    """
    if len(trials) < FEWEST_TRIALS or n_targets < 3:
        return None
    n_hits = sum(trial.is_success for trial in trials)
    n_net = max(0, 2 * n_hits - len(trials))
    return math.log2(n_targets - 1) * n_net / sum(trial.seconds for trial in trials)


def _keep(
    held: deque[tuple[float, Sequence[float]]], t_s: float, value: Sequence[float], over_s: float
) -> None:
    """Append a sample, and drop what is too old; one that goes back in time begins anew."""
    if held and t_s <= held[-1][0]:
        held.clear()
    held.append((t_s, value))
    while held[0][0] < t_s - over_s:
        held.popleft()


def _times(held: deque[tuple[float, Sequence[float]]]) -> Float64s:
    return np.array([t_s for t_s, _ in held], np.float64)


def _values(held: deque[tuple[float, Sequence[float]]]) -> Float64s:
    return np.array([value for _, value in held], np.float64)
