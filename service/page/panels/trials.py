"""Trials: how many succeed, and bits a second after Fitts and as on a grid."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

KEPT_TRIALS, FEWEST = 20, 5
EFFECTIVE_WIDTH = 4.133
"""Widths of a normal distribution that hold 96 % of the endpoints (ISO 9241-411)."""
_FIELD = re.compile(r"(\w+)=(-?[\d.]+(?:e-?\d+)?)")
Place = Callable[[float], list[float] | None]


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial that is over; `start` and `end` are the cursor's places, None where unknown."""

    t_start_s: float
    t_stop_s: float
    target: tuple[float, float] | None
    is_success: bool
    start: list[float] | None
    end: list[float] | None


class TrialsPanel:
    """Keeps the last trials.

    Args:
        place_at: tells where the cursor was at a time.
    """

    def __init__(self, place_at: Place) -> None:
        self._place_at = place_at
        self._trials: deque[Trial] = deque(maxlen=KEPT_TRIALS)
        self._targets: set[tuple[float, float]] = set()
        self._begun: tuple[float, tuple[float, float] | None, list[float] | None] | None = None
        self._n = self._n_success = 0

    def take(self, text: str, t_s: float) -> None:
        """Take in a marker such as `trial_start i=3 x=7.1 y=0` or `trial_stop success=1`."""
        fields = {name: float(number) for name, number in _FIELD.findall(text)}
        if text.startswith("trial_start"):
            target = (fields["x"], fields["y"]) if {"x", "y"} <= set(fields) else None
            if target is not None:
                self._targets.add(target)
            self._begun = (t_s, target, self._place_at(t_s))
        elif text.startswith("trial_stop") and self._begun is not None:
            begun_s, target, start = self._begun
            is_success = fields.get("success", 0.0) > 0.0
            self._trials.append(Trial(begun_s, t_s, target, is_success, start, self._place_at(t_s)))
            self._begun = None
            self._n, self._n_success = self._n + 1, self._n_success + is_success

    def slow(self) -> dict[str, Any]:
        """Return counts and rates of the last trials; None where they cannot be told."""
        return {
            "n": self._n,
            "n_success": self._n_success,
            "over": len(self._trials),
            "fitts_bits_per_s": self._fitts(),
            "grid_bits_per_s": self._grid(),
        }

    def _fitts(self) -> float | None:
        """Throughput with the effective width: mean of log2(D / We + 1), by the mean time."""
        missed, distances, taken_s = [], [], 0.0
        for trial in self._trials:
            start, end, target = trial.start, trial.end, trial.target
            if not trial.is_success or start is None or end is None or target is None:
                continue
            distance = math.dist(start, target)
            if distance > 0:
                axis = [(b - a) / distance for a, b in zip(start, target, strict=True)]
                off = [e - g for e, g in zip(end, target, strict=True)]
                missed.append(sum(a * o for a, o in zip(axis, off, strict=True)))
                distances.append(distance)
                taken_s += trial.t_stop_s - trial.t_start_s
        if len(missed) < FEWEST:
            return None
        mean = sum(missed) / len(missed)
        spread = math.sqrt(sum((m - mean) ** 2 for m in missed) / (len(missed) - 1))
        width = max(EFFECTIVE_WIDTH * spread, 1e-6)
        bits = sum(math.log2(d / width + 1) for d in distances) / len(distances)
        return bits * len(distances) / taken_s

    def _grid(self) -> float | None:
        """log2(targets - 1) times (hits - misses) a second (Nuyujukian et al. 2015)."""
        if len(self._trials) < FEWEST or len(self._targets) < 3:
            return None
        hits = sum(t.is_success for t in self._trials)
        taken_s = sum(t.t_stop_s - t.t_start_s for t in self._trials)
        bits = math.log2(len(self._targets) - 1)
        return bits * max(0, 2 * hits - len(self._trials)) / taken_s
