"""From plan to movement: what the hand does with an intended velocity."""

from __future__ import annotations

import math
from collections import deque

TICK_S = 0.005
"""The subject thinks, moves and fires in ticks of 5 ms."""
DEAD_TIME_S = 0.1
SMOOTHING_S = 0.025
PLAN_TO_HAND_S = DEAD_TIME_S + 2.0 * SMOOTHING_S
"""Mean delay from the plan to the hand's velocity."""

Point = tuple[float, float]


class Hand:
    """Follows the plan 0.1 s later, smoothed twice over 25 ms (a critically damped limb)."""

    def __init__(self) -> None:
        n_dead = round(DEAD_TIME_S / TICK_S)
        self._on_its_way: deque[Point] = deque([(0.0, 0.0)] * n_dead, maxlen=n_dead)
        self._share = 1.0 - math.exp(-TICK_S / SMOOTHING_S)
        self._first = (0.0, 0.0)
        self.velocity: Point = (0.0, 0.0)

    def step(self, plan: Point) -> Point:
        """The hand's velocity one tick later, cm/s."""
        arrived = self._on_its_way[0]
        self._on_its_way.append(plan)
        self._first = _toward(self._first, arrived, self._share)
        self.velocity = _toward(self.velocity, self._first, self._share)
        return self.velocity


def _toward(here: Point, there: Point, share: float) -> Point:
    return (here[0] + share * (there[0] - here[0]), here[1] + share * (there[1] - here[1]))
