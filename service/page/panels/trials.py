"""Trials: how many succeed, and bits a second after Fitts and as on a grid."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any

from service.page.scores import ScoredTrial, fitts_bits_per_s, grid_bits_per_s

KEPT_TRIALS = 20
_FIELD = re.compile(r"(\w+)=(-?[\d.]+(?:e-?\d+)?)")
Place = Callable[[float], list[float] | None]


class TrialsPanel:
    """Keeps the last trials.

    Args:
        place_at: tells where the cursor was at a time.
    """

    def __init__(self, place_at: Place) -> None:
        self._place_at = place_at
        self._trials: deque[ScoredTrial] = deque(maxlen=KEPT_TRIALS)
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
            end = self._place_at(t_s)
            self._trials.append(ScoredTrial(t_s - begun_s, is_success, target, start, end))
            self._begun = None
            self._n, self._n_success = self._n + 1, self._n_success + is_success

    def slow(self) -> dict[str, Any]:
        """Return counts and rates of the last trials; None where they cannot be told."""
        return {
            "n": self._n,
            "n_success": self._n_success,
            "over": len(self._trials),
            "fitts_bits_per_s": fitts_bits_per_s(self._trials),
            "grid_bits_per_s": grid_bits_per_s(self._trials, len(self._targets)),
        }
