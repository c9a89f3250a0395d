"""The user: sees the cursor, plans a velocity every tick, and has a hand that follows the plan."""

from __future__ import annotations

import math
from collections import deque
from typing import Literal

import numpy as np

Point = tuple[float, float]
Control = Literal["hand", "decoder"]
Style = Literal["reach", "steer"]
TICK_S = 0.005
"""The subject thinks, moves and fires in ticks of 5 ms."""
DEAD_TIME_S = 0.1
SMOOTHING_S = 0.025
PLAN_TO_HAND_S = DEAD_TIME_S + 2.0 * SMOOTHING_S
"""Mean delay from the plan to the hand's velocity."""
VISUAL_DELAY_S = 0.13
DECODER_DELAY_S = 0.03
"""What the user has come to expect from plan to cursor on top of the hand's own delay."""
STILL: Point = (0.0, 0.0)


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


class User:
    """Watches the cursor with a visual delay, and plans velocities that bring it to the target.

    A user who reaches plans minimum-jerk reaches (Flash and Hogan 1985) with corrections when one
    has missed. A user who steers, as always under `control="decoder"`, moves all the time: speed
    grows with the distance left and ends at the target. Under a decoder's control a steady pull is
    countered as one counters a side wind. All predict where the cursor will be from what they
    planned but cannot have seen yet (an internal model, Golub et al. 2015); a decoded cursor is
    trusted less.

    Args:
        seed: for the user's noise.
        control: what moves the cursor.
        style: how the hand moves it.
    """

    def __init__(self, seed: int, control: Control, style: Style = "reach") -> None:
        rng = np.random.default_rng([seed, 11])
        self._gaze = _Gaze(rng)
        self._tremor = _Tremor(rng)
        self._mover = _Reacher(rng) if (control, style) == ("hand", "reach") else _Steerer(rng)
        delay_s = VISUAL_DELAY_S + PLAN_TO_HAND_S
        delay_s += DECODER_DELAY_S if control == "decoder" else 0.0
        self._trust = 1.0 if control == "hand" else 0.8
        self._pull = _Pull() if control == "decoder" else None
        self._unseen = deque([STILL] * round(delay_s / TICK_S))
        self._ahead = STILL

    def plan(self, cursor: Point, target: Point | None) -> Point:
        """The velocity wanted in this tick, cm/s.

        Args:
            cursor: where it is now, cm; it is seen 0.13 s later.
            target: where to go; None to rest.
        """
        seen, goal = self._gaze.look(cursor, target)
        here = (
            seen[0] + self._trust * self._ahead[0],
            seen[1] + self._trust * self._ahead[1],
        )
        wanted = STILL if goal is None else self._mover.toward(goal, here)
        pull = STILL
        if self._pull is not None and goal is not None:
            pull = self._pull.feel(seen, self._unseen[0])
        plan = self._tremor.shake((wanted[0] - pull[0], wanted[1] - pull[1]))
        self._expect((plan[0] + pull[0], plan[1] + pull[1]))
        return plan

    def _expect(self, velocity: Point) -> None:
        """Keep the summed movement that is under way and cannot be seen yet."""
        self._unseen.append(velocity)
        old = self._unseen.popleft()
        self._ahead = (
            self._ahead[0] + (velocity[0] - old[0]) * TICK_S,
            self._ahead[1] + (velocity[1] - old[1]) * TICK_S,
        )


class _Gaze:
    """Return what the user sees: the cursor 0.13 s ago, and the target once it is reacted to."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._coming: deque[tuple[Point, Point | None]] = deque()
        self._n_delay = round(VISUAL_DELAY_S / TICK_S)
        self._shown: Point | None = None
        self._goal: Point | None = None
        self._n_wait = 0

    def look(self, cursor: Point, target: Point | None) -> tuple[Point, Point | None]:
        self._coming.append((cursor, target))
        seen, shown = self._coming[0]
        if len(self._coming) > self._n_delay:
            self._coming.popleft()
        if shown != self._shown:
            self._shown = shown
            self._n_wait = round(max(0.04, self._rng.normal(0.1, 0.03)) / TICK_S)
        elif self._n_wait > 0:
            self._n_wait -= 1
        if self._n_wait == 0:
            self._goal = self._shown
        return seen, self._goal


class _Pull:
    """Estimate what moves the cursor beside the plan, over 2 s: a decoder's bias, mostly."""

    _SHARE = TICK_S / 2.0
    _MOST_CM_S = 8.0

    def __init__(self) -> None:
        self._last: Point | None = None
        self._pull = [0.0, 0.0]

    def feel(self, seen: Point, expected: Point) -> Point:
        """Learn from the newest movement seen and the velocity that was expected."""
        last, self._last = self._last or seen, seen
        for i in range(2):
            surprise = (seen[i] - last[i]) / TICK_S - expected[i]
            pull = self._pull[i] + self._SHARE * surprise
            self._pull[i] = max(-self._MOST_CM_S, min(self._MOST_CM_S, pull))
        return self._pull[0], self._pull[1]


class _Tremor:
    """Draw the plan's noise: one part grows with speed (Harris and Wolpert 1998)."""

    _KEEP = math.exp(-TICK_S / 0.1)

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._noise = [0.0] * 4

    def shake(self, plan: Point) -> Point:
        fresh = math.sqrt(1.0 - self._KEEP**2)
        draws = self._rng.standard_normal(4).tolist()
        self._noise = [self._KEEP * n + fresh * d for n, d in zip(self._noise, draws, strict=True)]
        along, across, x, y = self._noise
        return (
            plan[0] * (1.0 + 0.15 * along) - plan[1] * 0.12 * across + 0.6 * x,
            plan[1] * (1.0 + 0.15 * along) + plan[0] * 0.12 * across + 0.6 * y,
        )


class _Steerer:
    """Steer a decoded cursor continuously: fast when far, gently to a stop when near."""

    GAIN_HZ = 4.5
    _SHARE = 1.0 - math.exp(-TICK_S / 0.05)

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._goal: Point | None = None
        self._top_cm_s = 0.0
        self._velocity = STILL

    def toward(self, goal: Point, here: Point) -> Point:
        if goal != self._goal:
            self._goal = goal
            self._top_cm_s = 27.0 * math.exp(self._rng.normal(0.0, 0.15))
        away = math.dist(goal, here)
        speed = min(self.GAIN_HZ * away, self._top_cm_s) / max(away, 1e-9)
        x, y = self._velocity
        x += self._SHARE * ((goal[0] - here[0]) * speed - x)
        y += self._SHARE * ((goal[1] - here[1]) * speed - y)
        self._velocity = (x, y)
        return self._velocity


class _Reacher:
    """Reach ballistically, each time with an aiming error, and correct after a look."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._goal: Point | None = None
        self._step = STILL
        self._t_s = self._duration_s = self._dwell_s = 0.0

    def toward(self, goal: Point, here: Point) -> Point:
        if goal != self._goal:
            self._goal = goal
            self._launch(goal, here)
        self._t_s += TICK_S
        if self._t_s >= self._duration_s + self._dwell_s and math.dist(goal, here) > 0.8:
            self._launch(goal, here)
        share = self._t_s / self._duration_s
        if share >= 1.0:
            return STILL
        speed = 30.0 * share**2 * (1.0 - share) ** 2 / self._duration_s
        return self._step[0] * speed, self._step[1] * speed

    def _launch(self, goal: Point, here: Point) -> None:
        length = math.dist(goal, here)
        error = self._rng.normal(0.0, 0.07 * length, 2)
        self._step = (goal[0] - here[0] + float(error[0]), goal[1] - here[1] + float(error[1]))
        usual_s = 0.25 + 0.14 * math.log2(1.0 + length / 1.75)
        self._duration_s = usual_s * math.exp(self._rng.normal(0.0, 0.15))
        self._dwell_s = self._rng.uniform(0.1, 0.3)
        self._t_s = 0.0
