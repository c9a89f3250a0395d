"""Predict the next block, so that nothing long begins just before it arrives."""

from __future__ import annotations

import math
from collections import deque

SAME_BLOCK_S = 0.5e-3
"""Arrivals closer than this to the one before are of the same block."""
N_KEPT = 16


class BlockPredictor:
    """Predicts when the next block may arrive."""

    def __init__(self) -> None:
        self._t_first = self._t_newest = -math.inf
        self._apart_s: deque[float] = deque([math.inf], maxlen=N_KEPT)

    def note(self, t_s: float) -> None:
        """Note an arrival at `t_s`."""
        is_new, self._t_newest = t_s - self._t_newest > SAME_BLOCK_S, t_s
        if is_new:
            self._apart_s.append(t_s - self._t_first)
            self._t_first = t_s

    @property
    def t_newest(self) -> float | None:
        """The newest arrival's time; None before the first."""
        return self._t_newest if math.isfinite(self._t_newest) else None

    def may_come(self, t_from: float, t_until: float) -> bool:
        """Return True if the next block may arrive in between.

        It comes no sooner after the newest one than any did of late. A source whose block is
        overdue by as much again sends in no blocks, and may be heard of at any time or never: then
        nobody knows, and the answer is no.
        """
        shortest_s = min(self._apart_s)
        t_next = self._t_first + shortest_s
        return t_next < t_until and t_from < t_next + shortest_s
