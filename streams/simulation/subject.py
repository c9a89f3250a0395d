"""A subject at the reaching task: it looks, plans, moves and fires each tick; without a clock."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from streams.messages import Float64s, SpikeBatch
from streams.simulation.cortex import MotorCortex
from streams.simulation.user import STILL, TICK_S, Control, Hand, Point, User

TaskName = Literal["centre-out", "random"]
CENTRE: Point = (0.0, 0.0)
REACH_CM, N_AROUND, NEAREST_CM = 10.0, 8, 6.0
BOUND_CM = 16.0
"""The cursor stays this near the centre along each axis."""
_STEPS_PER_TICK = round(TICK_S * 1e3)


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


def centre_out(rng: np.random.Generator) -> Iterator[Point]:
    """Yield targets on a 10 cm circle, each followed by the centre; every eight cover all."""
    while True:
        for i in rng.permutation(N_AROUND):
            angle = 2.0 * math.pi * float(i) / N_AROUND
            yield REACH_CM * math.cos(angle), REACH_CM * math.sin(angle)
            yield CENTRE


def random_targets(rng: np.random.Generator) -> Iterator[Point]:
    """Yield targets anywhere in a square, half-width 10 cm, at least 6 cm from the one before."""
    before = CENTRE
    while True:
        x, y = rng.uniform(-REACH_CM, REACH_CM, 2)
        if math.dist(before, (x, y)) >= NEAREST_CM:
            before = (float(x), float(y))
            yield before


@dataclass(frozen=True, slots=True)
class Tick:
    """Events up to `t_s`, seconds since the subject's start; cm and cm/s.

    Attributes:
        plan: the velocity that the user wants.
        velocity: the hand's, which the plan causes about 0.15 s later: it drove the spikes.
        cursor: where the cursor is.
        target: where it should be; None while there is no task yet.
        events: markers that fall on this instant.
    """

    t_s: float
    plan: Point
    velocity: Point
    cursor: Point
    target: Point | None
    events: tuple[str, ...]


class TaskBehavior:
    """User, hand, cursor and task, tick by tick.

    Args:
        user: plans velocities.
        task: shows targets; it starts with the first tick that is `engaged`.
        control: what moves the cursor, the hand or the velocity handed to `step`.
    """

    def __init__(self, user: User, task: ReachTask, control: Control) -> None:
        self.task = task
        self.cursor = CENTRE
        self._user, self._control = user, control
        self._hand = Hand()
        self._i_tick = 0

    def switch(self, user: User, control: Control) -> None:
        """From now on another control moves the cursor, with plans made for it."""
        self._user, self._control = user, control

    def step(self, decoded: Point = STILL, *, engaged: bool = True) -> Tick:
        """Live through one tick.

        Args:
            decoded: the cursor's velocity under a decoder's control, cm/s.
            engaged: False while the user rests at the centre, waiting for a decoder.
        """
        self._i_tick += 1
        t_s = self._i_tick * TICK_S
        velocity = self._hand.velocity if self._control == "hand" else decoded
        self.cursor = _moved(self.cursor, velocity) if engaged else CENTRE
        events = tuple(self.task.step(t_s, self.cursor)) if engaged else ()
        plan = self._user.plan(self.cursor, self.task.target if engaged else None)
        moved = self._hand.step(plan)
        return Tick(t_s, plan, moved, self.cursor, self.task.target, events)


class Subject:
    """Behaviour and cortex together: what a live loop steps.

    Args:
        cortex: fires.
        behavior: thinks and moves.
    """

    def __init__(self, cortex: MotorCortex, behavior: TaskBehavior) -> None:
        self.cortex, self.behavior = cortex, behavior
        self._plan, self._cursor = STILL, CENTRE

    def step(self, decoded: Point = STILL, *, engaged: bool = True) -> tuple[Tick, SpikeBatch]:
        """Take one tick; return it with the spikes in its 5 ms (microseconds since the start)."""
        tick = self.behavior.step(decoded, engaged=engaged)
        plan = ramp(np.array([self._plan, tick.plan]))
        position = ramp(np.array([self._cursor, tick.cursor]))
        self._plan, self._cursor = tick.plan, tick.cursor
        return tick, self.cortex.advance(plan, position)


def ramp(at_ticks: Float64s) -> Float64s:
    """From values at ticks to values at each millisecond between, the first tick left out.

    Args:
        at_ticks: (n + 1, d).

    Returns:
        (5 n, d).
    """
    share = (np.arange(_STEPS_PER_TICK) + 1.0) / _STEPS_PER_TICK
    step = np.diff(at_ticks, axis=0)[:, None, :] * share[None, :, None]
    return (at_ticks[:-1, None, :] + step).reshape(-1, at_ticks.shape[1])


def _moved(cursor: Point, velocity: Point) -> Point:
    """The cursor a tick later, stopped at the bounds."""
    x, y = cursor[0] + velocity[0] * TICK_S, cursor[1] + velocity[1] * TICK_S
    return max(-BOUND_CM, min(BOUND_CM, x)), max(-BOUND_CM, min(BOUND_CM, y))
