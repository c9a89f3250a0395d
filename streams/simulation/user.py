"""The user: sees the cursor, plans a velocity every tick, and has a hand that follows the plan."""

from __future__ import annotations

import math
from collections import deque
from typing import Literal

import numpy as np

Point = tuple[float, float]
STILL: Point = (0.0, 0.0)
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


class Hand:
    """Follows the plan 0.1 s later, smoothed twice over 25 ms (a critically damped limb)."""

    def __init__(self) -> None:
        n_dead = round(DEAD_TIME_S / TICK_S)
        self._on_its_way: deque[Point] = deque([STILL] * n_dead, maxlen=n_dead)
        self._share = 1.0 - math.exp(-TICK_S / SMOOTHING_S)
        self._first = self._second = 0j
        self.velocity: Point = STILL

    def step(self, plan: Point) -> Point:
        """The hand's velocity one tick later, cm/s."""
        self._first += self._share * (complex(*self._on_its_way[0]) - self._first)
        self._second += self._share * (self._first - self._second)
        self._on_its_way.append(plan)
        self.velocity = _point(self._second)
        return self.velocity


def _point(vector: complex) -> Point:
    return vector.real, vector.imag


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
        self._unseen = deque([0j] * round(delay_s / TICK_S))
        self._ahead = 0j

    def plan(self, cursor: Point, target: Point | None) -> Point:
        """The velocity wanted in this tick, cm/s.

        Args:
            cursor: where it is now, cm; it is seen 0.13 s later.
            target: where to go; None to rest.
        """
        # Inside, points and velocities are complex numbers: x is real, y imaginary.
        seen, goal = self._gaze.look(complex(*cursor), None if target is None else complex(*target))
        here = seen + self._trust * self._ahead
        wanted = 0j if goal is None else self._mover.toward(goal, here)
        pull = 0j
        if self._pull is not None and goal is not None:
            pull = self._pull.feel(seen, self._unseen[0])
        plan = self._tremor.shake(wanted - pull)
        self._expect(plan + pull)
        return _point(plan)

    def _expect(self, velocity: complex) -> None:
        """Keep the summed movement that is under way and cannot be seen yet."""
        self._unseen.append(velocity)
        self._ahead += (velocity - self._unseen.popleft()) * TICK_S


class _Gaze:
    """Return what the user sees: the cursor 0.13 s ago, and the target once it is reacted to."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._coming: deque[tuple[complex, complex | None]] = deque()
        self._n_delay = round(VISUAL_DELAY_S / TICK_S)
        self._shown: complex | None = None
        self._goal: complex | None = None
        self._n_wait = 0

    def look(self, cursor: complex, target: complex | None) -> tuple[complex, complex | None]:
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
        self._last: complex | None = None
        self._pull = 0j

    def feel(self, seen: complex, expected: complex) -> complex:
        """Learn from the newest movement seen and the velocity that was expected."""
        last, self._last = seen if self._last is None else self._last, seen
        pull = self._pull + self._SHARE * ((seen - last) / TICK_S - expected)
        most = self._MOST_CM_S
        self._pull = complex(*(max(-most, min(most, along)) for along in _point(pull)))
        return self._pull


class _Tremor:
    """Draw the plan's noise: one part grows with speed (Harris and Wolpert 1998)."""

    _KEEP = math.exp(-TICK_S / 0.1)

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._noise = [0.0] * 4

    def shake(self, plan: complex) -> complex:
        fresh = math.sqrt(1.0 - self._KEEP**2)
        draws = self._rng.standard_normal(4).tolist()
        self._noise = [self._KEEP * n + fresh * d for n, d in zip(self._noise, draws, strict=True)]
        along, across, x, y = self._noise
        return plan * complex(1.0 + 0.15 * along, 0.12 * across) + 0.6 * complex(x, y)


class _Steerer:
    """Steer a decoded cursor continuously: fast when far, gently to a stop when near."""

    GAIN_HZ = 4.5
    _SHARE = 1.0 - math.exp(-TICK_S / 0.05)

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._goal: complex | None = None
        self._top_cm_s = 0.0
        self._velocity = 0j

    def toward(self, goal: complex, here: complex) -> complex:
        if goal != self._goal:
            self._goal = goal
            self._top_cm_s = 27.0 * math.exp(self._rng.normal(0.0, 0.15))
        away = abs(goal - here)
        speed = min(self.GAIN_HZ * away, self._top_cm_s) / max(away, 1e-9)
        self._velocity += self._SHARE * ((goal - here) * speed - self._velocity)
        return self._velocity


class _Reacher:
    """Reach ballistically, each time with an aiming error, and correct after a look."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._goal: complex | None = None
        self._step = 0j
        self._t_s = self._duration_s = self._dwell_s = 0.0

    def toward(self, goal: complex, here: complex) -> complex:
        if goal != self._goal:
            self._goal = goal
            self._launch(goal, here)
        self._t_s += TICK_S
        if self._t_s >= self._duration_s + self._dwell_s and abs(goal - here) > 0.8:
            self._launch(goal, here)
        share = self._t_s / self._duration_s
        if share >= 1.0:
            return 0j
        speed = 30.0 * share**2 * (1.0 - share) ** 2 / self._duration_s
        return self._step * speed

    def _launch(self, goal: complex, here: complex) -> None:
        length = abs(goal - here)
        error = self._rng.normal(0.0, 0.07 * length, 2)
        self._step = goal - here + complex(*error)
        usual_s = 0.25 + 0.14 * math.log2(1.0 + length / 1.75)
        self._duration_s = usual_s * math.exp(self._rng.normal(0.0, 0.15))
        self._dwell_s = self._rng.uniform(0.1, 0.3)
        self._t_s = 0.0
