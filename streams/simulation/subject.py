"""A subject at a task: each tick it looks, plans, moves and fires; no clock, no sockets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streams.messages import Float64s, SpikeBatch
from streams.simulation.cortex import MotorCortex
from streams.simulation.task import BOUND_CM, CENTRE, ReachTask
from streams.simulation.user import STILL, TICK_S, Control, Hand, Point, User

_STEPS_PER_TICK = round(TICK_S * 1e3)


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
