"""A learning curve while data come in: how well a quick filter does with the trials so far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibration.wizard.aims import Aim
from streams.sessions.session import Session

BIN_S = 0.05
N_LAGS = 6
N_FOLDS = 5
RIDGE = 30.0
FEWEST_TRIALS = 6
GAIN_THAT_COUNTS = 0.02
LOOK_BACK = 1.5
"""Whether data still help is judged by what the last third of them brought."""


@dataclass(frozen=True, slots=True)
class Point:
    """R2 (mean over dimensions, cross-validated over trials) with so many seconds and trials."""

    seconds: float
    n_trials: int
    r2: float


def point_of(session: Session, aim: Aim) -> Point | None:
    """The curve's point for what was collected so far; None while there is too little."""
    trials = session.trials
    if trials is None or len(trials) < FEWEST_TRIALS:
        return None
    counts, ends_s = _counts(session)
    target = session.signal(aim.behavior).at(ends_s)
    fold = np.searchsorted(np.sort(trials.start_s), ends_s, side="left")
    known = np.isfinite(target).all(axis=1)
    history = _history(counts)[known]
    r2 = _cross_validated(history, target[known], fold[known] % N_FOLDS)
    return Point(float(np.count_nonzero(known)) * BIN_S, len(trials), r2)


def still_helps(points: list[Point]) -> bool | None:
    """Whether more data make the filter better; None while it is too early to say."""
    if not points:
        return None
    earlier = [one for one in points if one.seconds <= points[-1].seconds / LOOK_BACK]
    if len(points) < 4 or not earlier:
        return None
    recent = float(np.mean([one.r2 for one in points[-2:]]))
    return recent - earlier[-1].r2 > GAIN_THAT_COUNTS


def _counts(session: Session) -> tuple[np.ndarray, np.ndarray]:
    """(n_bins, n_units) spikes, and (n_bins,) when each bin ends."""
    n_bins = int(session.duration_s / BIN_S)
    spikes = session.spikes
    i_bin = (spikes.t_us / (BIN_S * 1e6)).astype(np.int64)
    held = (i_bin >= 0) & (i_bin < n_bins)
    n_units = len(session.unit_keys)
    cell = i_bin[held] * n_units + spikes.unit[held]
    counts = np.bincount(cell, weights=spikes.count[held], minlength=n_bins * n_units)
    return counts.reshape(n_bins, n_units), (np.arange(n_bins) + 1.0) * BIN_S


def _history(counts: np.ndarray) -> np.ndarray:
    lagged = [np.roll(counts, lag, axis=0) for lag in range(N_LAGS)]
    for lag, one in enumerate(lagged):
        one[:lag] = 0.0
    return np.concatenate([*lagged, np.ones((len(counts), 1))], axis=1)


def _cross_validated(history: np.ndarray, target: np.ndarray, fold: np.ndarray) -> float:
    decoded = np.zeros_like(target)
    penalty = np.eye(history.shape[1]) * RIDGE
    penalty[-1, -1] = 0.0
    gram, moment = history.T @ history + penalty, history.T @ target
    for i in range(N_FOLDS):
        out = fold == i
        left = history[out]
        weights = np.linalg.solve(gram - left.T @ left, moment - left.T @ target[out])
        decoded[out] = left @ weights
    error = np.square(target - decoded).sum(axis=0)
    spread = np.square(target - target.mean(axis=0)).sum(axis=0)
    return float(np.mean(1.0 - error / np.where(spread > 0, spread, np.inf)))
