"""The reaching task: shows targets, watches the cursor, says what happened; time is handed in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from streams.simulation.user import Point

TaskName = Literal["centre-out", "random"]
CENTRE: Point = (0.0, 0.0)
REACH_CM = 10.0
BOUND_CM = 16.0
"""The cursor stays this near the centre along each axis."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One target shown; seconds on the caller's clock, cm from the centre."""

    t_start: float
    t_stop: float
    target: Point
    success: bool


class ReachTask:
    """One target after another: acquired by resting in it for `hold_s`, given up at `timeout_s`.

    Args:
        targets: where they appear, without end.
        radius_cm: how close counts as inside.
        hold_s: how long the cursor must stay inside without a break.
        timeout_s: from the target's appearance until it is given up.
    """

    def __init__(
        self,
        targets: Iterator[Point],
        *,
        radius_cm: float = 2.0,
        hold_s: float = 0.4,
        timeout_s: float = 5.0,
    ) -> None:
        self.radius_cm, self.hold_s, self.timeout_s = radius_cm, hold_s, timeout_s
        self.target: Point | None = None
        self.trials: list[Trial] = []
        self.n_acquired = 0
        self.acquisition_s: list[float] = []
        self._targets = targets
        self._t_start = 0.0
        self._t_inside: float | None = None

    def step(self, t_s: float, cursor: Point) -> list[str]:
        """Judge the cursor at `t_s`; the first call shows the first target.

        Returns:
            Marker texts: `trial_start i=3 x=7.071 y=7.071`, `target_entered i=3`,
            `target_left i=3`, `trial_stop i=3 success=1`.
        """
        target = self.target
        if target is None:
            return [self._show(t_s)]
        events = self._watch(t_s, math.dist(cursor, target) <= self.radius_cm)
        held = self._t_inside is not None and t_s - self._t_inside >= self.hold_s - 1e-9
        if held or t_s - self._t_start >= self.timeout_s:
            events += [self._end(Trial(self._t_start, t_s, target, held)), self._show(t_s)]
        return events

    def _watch(self, t_s: float, inside: bool) -> list[str]:
        if inside == (self._t_inside is not None):
            return []
        self._t_inside = t_s if inside else None
        return [f"target_{'entered' if inside else 'left'} i={len(self.trials)}"]

    def _end(self, trial: Trial) -> str:
        self.trials.append(trial)
        if trial.success:
            self.n_acquired += 1
            self.acquisition_s.append(trial.t_stop - trial.t_start)
        return f"trial_stop i={len(self.trials) - 1} success={int(trial.success)}"

    def _show(self, t_s: float) -> str:
        self.target = next(self._targets)
        self._t_start, self._t_inside = t_s, None
        x, y = self.target
        return f"trial_start i={len(self.trials)} x={x:.3f} y={y:.3f}"


def targets_of(task: TaskName, seed: int) -> Iterator[Point]:
    """Return a task's targets, in the order that the seed gives."""
    rng = np.random.default_rng([seed, 7])
    return centre_out(rng) if task == "centre-out" else random_targets(rng)


def centre_out(rng: np.random.Generator, n_targets: int = 8) -> Iterator[Point]:
    """Yield targets on a 10 cm circle, each followed by the centre; every eight cover all."""
    while True:
        for i in rng.permutation(n_targets):
            angle = 2.0 * math.pi * float(i) / n_targets
            yield REACH_CM * math.cos(angle), REACH_CM * math.sin(angle)
            yield CENTRE


def random_targets(rng: np.random.Generator, min_step_cm: float = 6.0) -> Iterator[Point]:
    """Yield targets anywhere in a square, half-width 10 cm, at least 6 cm from the one before."""
    before = CENTRE
    while True:
        x, y = rng.uniform(-REACH_CM, REACH_CM, 2)
        if math.dist(before, (x, y)) >= min_step_cm:
            before = (float(x), float(y))
            yield before
