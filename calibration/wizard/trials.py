"""Trials so far: how many, and how well they cover the directions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from streams.messages import Float64s
from streams.sessions.session import Session

N_SECTORS = 8
LEAST_BALANCE = 0.1
NAMES = ("E", "NE", "N", "NW", "W", "SW", "S", "SE")


@dataclass(frozen=True, slots=True)
class Count:
    """Trials by direction.

    Attributes:
        n: trials.
        sectors: how many went to each eighth of the circle, from east counter-clockwise.
        balance: 1 where all directions are met alike, 0 where all lie on one line.
        n_directed: trials whose direction is known.
    """

    n: int = 0
    sectors: tuple[int, ...] = field(default_factory=lambda: (0,) * N_SECTORS)
    balance: float = 0.0
    n_directed: int = 0


def count_trials(session: Session, body: str) -> Count:
    """Count the trials of a session, by the direction from where the body was to the target."""
    trials = session.trials
    if trials is None or not len(trials):
        return Count()
    angles = _directions(session, body)
    known = angles[np.isfinite(angles)]
    sector = np.round(known / (2.0 * math.pi / N_SECTORS)).astype(np.int64) % N_SECTORS
    counts = np.bincount(sector, minlength=N_SECTORS)
    return Count(len(trials), tuple(counts.tolist()), _balance(known), len(known))


def _directions(session: Session, body: str) -> Float64s:
    """(n_trials,) radians, NaN where target or movement is unknown."""
    trials = session.trials
    name = f"processing/behavior/Position/{body}_position"
    if trials is None or name not in session.behavior:
        return np.zeros(0)
    moved = session.behavior[name]
    begin = moved.at(trials.start_s, 0.5)
    end = np.asarray(trials.columns["target"], np.float64)
    if end.shape != begin.shape or not np.isfinite(end).any():
        end = moved.at(trials.stop_s, 0.5)
    if begin.shape[1:] != (2,):
        return np.full(len(trials), np.nan)
    step = end - begin
    angles: Float64s = np.arctan2(step[:, 1], step[:, 0])
    angles[np.hypot(step[:, 0], step[:, 1]) < 1e-3] = np.nan
    return angles


def _balance(angles: Sequence[float] | Float64s) -> float:
    """Of the scatter of unit vectors: twice the share of the lesser axis."""
    if len(angles) < 2:
        return 0.0
    vectors = np.stack([np.cos(angles), np.sin(angles)])
    spread = np.linalg.eigvalsh(vectors @ vectors.T)
    return float(2.0 * spread[0] / spread.sum())
