"""The task program's side of the loop: decodes come in, a velocity for the cursor comes out."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from streams.r2 import r2_of_sums
from streams.simulation.user import TICK_S, Point

BLOCK = re.compile(r"^block (?P<kind>open-loop|closed-loop|rest)(?: assist=(?P<assist>[\d.]+))?$")
"""Event that a calibration sends when a block begins; a task program obeys it."""
SILENCE_S = 0.2
"""Without a decode for this long the cursor stands still."""
_KEPT_TICKS = round(3.0 / TICK_S)


@dataclass(frozen=True, slots=True)
class Block:
    """A block: `open-loop`, `closed-loop` with a share of assistance, or `rest`."""

    kind: str
    assist: float = 0.0


def block_of(event: Mapping[str, Any]) -> Block | None:
    """Read the block that the daemon's event announces; None where it announces none."""
    text = event["detail"].get("text", "") if event["event"] == "mark" else ""
    match = BLOCK.match(text)
    return Block(match["kind"], min(1.0, float(match["assist"] or 0.0))) if match else None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A decode that may be trusted: the velocity at `t_s`, on the daemon's clock."""

    t_s: float
    velocity: Point


class DecodedVelocity:
    """The newest decode's output `velocity`, cm/s, to move by; zero when it may not be trusted."""

    def __init__(self) -> None:
        self.connected = False
        self._velocity: Point = (0.0, 0.0)
        self._t_received = -math.inf

    def take(self, decode: Mapping[str, Any], now_s: float) -> Estimate | None:
        """Obey a decode from the wire; returns it where its validity is ok, else None."""
        self._t_received = now_s
        value = (decode.get("value") or {}).get("velocity")
        if decode.get("validity") != "ok" or value is None or None in value:
            self._velocity = (0.0, 0.0)
            return None
        self.connected = True
        self._velocity = (float(value[0]), float(value[1]))
        return Estimate(decode["t_window"] + decode.get("lead_s", 0.0), self._velocity)

    def at(self, now_s: float) -> Point:
        """Return the cursor's velocity now, cm/s."""
        if now_s - self._t_received > SILENCE_S:
            return (0.0, 0.0)
        return self._velocity


def guided(velocity: Point, cursor: Point, target: Point | None, assist: float) -> Point:
    """Mix the decoded velocity with the one that leads straight to the target.

    Args:
        velocity: decoded, cm/s.
        cursor: cm.
        target: cm; None for no assistance.
        assist: share that the latter has, 0 to 1.
    """
    if target is None or assist <= 0.0:
        return velocity
    away = math.dist(target, cursor)
    speed = min(3.0 * away, 20.0) / max(away, 1e-9)
    return (
        (1.0 - assist) * velocity[0] + assist * speed * (target[0] - cursor[0]),
        (1.0 - assist) * velocity[1] + assist * speed * (target[1] - cursor[1]),
    )


class VelocityScore:
    """Decodes' R2 against the velocity that drove the spikes, kept in running sums.

    R2 = 1 - SSE/SST per dimension, SST about the scored mean; the driving velocity is
    interpolated linearly at the time that the decode stands for.
    """

    def __init__(self) -> None:
        self.n_scored = 0
        self._driving: deque[tuple[float, Point]] = deque(maxlen=_KEPT_TICKS)
        self._waiting: deque[Estimate] = deque(maxlen=_KEPT_TICKS)
        self._sums = np.zeros((4, 2))

    def expect(self, estimate: Estimate) -> None:
        """Score this once the velocity at its time is known; estimates come in time order."""
        self._waiting.append(estimate)

    def drove(self, t_s: float, velocity: Point) -> None:
        """The driving velocity at the newest tick; scores what waited for it."""
        self._driving.append((t_s, velocity))
        while self._waiting and self._waiting[0].t_s <= t_s:
            self._score(self._waiting.popleft())

    def r2(self) -> tuple[float, float] | None:
        """Per dimension; None while fewer than two are scored or the velocity never varied."""
        if self.n_scored < 2:
            return None
        x, y = r2_of_sums(self._sums).tolist()
        return None if math.isnan(x) or math.isnan(y) else (x, y)

    def _score(self, estimate: Estimate) -> None:
        t_last = self._driving[-1][0]
        n_back = (t_last - estimate.t_s) / TICK_S
        i = len(self._driving) - 1 - math.ceil(n_back)
        if i < 0 or len(self._driving) < 2:
            return
        share = math.ceil(n_back) - n_back
        before, after = self._driving[i][1], self._driving[min(i + 1, len(self._driving) - 1)][1]
        self.n_scored += 1
        for i, (a, b) in enumerate(zip(before, after, strict=True)):
            driving = a + share * (b - a)
            error = estimate.velocity[i] - driving
            self._sums[:, i] += (1.0, driving, driving**2, error**2)
