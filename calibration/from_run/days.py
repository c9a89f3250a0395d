"""Several days as one: each earlier recording counts by a share of its trials that is learnt."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibration.ridge import binned_counts, with_history
from streams.messages import Float64s
from streams.r2 import r2_score
from streams.sessions.convert.convert import joined
from streams.sessions.session import Behavior, Interval, Session, Trials, in_intervals

SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
"""By what a recording counts beside the one after it."""
LEAST_SHARE, MOST_RECORDINGS = 0.1, 6
"""A recording that counts for less, or is older than so many, is left out."""
# As the wizard's quick filter: coarse and short.
BIN_S, N_LAGS, RIDGE = 0.05, 6, 30.0
BLOCK_S = 2.0
"""Recordings without trials are thinned in stretches of this length."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """By what earlier recordings count.

    Attributes:
        share: of each recording beside the one after it.
        r2: of a quick linear filter on seconds that it had not seen, for each of `SHARES`.
    """

    share: float
    r2: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Sums:
    """One recording's sums for a ridge regression: centred products of features and behaviour."""

    gram: Float64s
    moment: Float64s


def learn_share(sessions: Sequence[Session], behavior: str, chosen: Interval) -> Learnt:
    """Choose by what each recording counts beside the next, by how well a filter does.

    Rates differ from day to day, so each day is centred by itself.

    Args:
        sessions: the oldest first; each with the label `behavior`.
        behavior: NWB path of the label.
        chosen: seconds of the newest that are decoded; what comes after them is not looked at.
    """
    keys = tuple(dict.fromkeys(key for one in sessions for key in one.unit_keys))
    sums = [_sums(*_features(one, keys, behavior)) for one in sessions[:-1]]
    history, actual, ends_s = _features(sessions[-1], keys, behavior)
    before, judged = ends_s <= chosen[0], in_intervals(ends_s, [chosen])
    if np.count_nonzero(judged) < 2 or np.count_nonzero(before) < 2:
        return Learnt(1.0, ())
    sums.append(_sums(history[before], actual[before], ends_s[before]))
    ages = np.arange(len(sums))[::-1]
    away = history[judged] - history[before].mean(axis=0)
    mean = actual[before].mean(axis=0)
    found = []
    for share in SHARES:
        weights = np.power(share, ages, dtype=np.float64)
        gram = sum(w * one.gram for w, one in zip(weights, sums, strict=True))
        moment = sum(w * one.moment for w, one in zip(weights, sums, strict=True))
        slopes = np.linalg.solve(gram + RIDGE * np.eye(len(sums[-1].gram)), moment)
        found.append(float(np.nanmean(r2_score(away @ slopes + mean, actual[judged]))))
    return Learnt(SHARES[int(np.nanargmax(found))], tuple(found))


def _features(
    session: Session, keys: tuple[str, ...], behavior: str
) -> tuple[Float64s, Float64s, Float64s]:
    """Labelled bins: counts with history, behaviour, and the bins' ends."""
    n_bins = int(session.duration_s / BIN_S)
    counts = np.zeros((n_bins, len(keys)))
    column = [keys.index(key) for key in session.unit_keys]
    counts[:, column] = binned_counts(session, BIN_S, n_bins)
    ends_s = (np.arange(n_bins, dtype=np.float64) + 1.0) * BIN_S
    actual = session.signal(behavior).at(ends_s)
    known = np.isfinite(actual).all(axis=1)
    history = with_history(counts, N_LAGS)[:, :-1].astype(np.float64)
    return history[known], actual[known], ends_s[known]


def _sums(history: Float64s, actual: Float64s, _ends_s: Float64s) -> _Sums:
    x, y = history - history.mean(axis=0), actual - actual.mean(axis=0)
    return _Sums(x.T @ x, x.T @ y)


def together(sessions: Sequence[Session], share: float, behavior: str) -> tuple[Session, int]:
    """Join recordings, the newest last and whole, of the earlier ones a share of the trials.

    Args:
        sessions: the oldest first.
        share: by what each counts beside the next.
        behavior: NWB path of the label, which is masked in trials that are left out.

    Returns:
        The session, and how many recordings are in it.
    """
    sessions = sessions[-MOST_RECORDINGS:]
    shares = [share**age for age in range(len(sessions))][::-1]
    shares[-1] = 1.0
    kept = [
        _thinned(session, part, behavior)
        for session, part in zip(sessions, shares, strict=True)
        if part >= LEAST_SHARE
    ]
    # The newest names the whole.
    return replace(joined(kept), id=sessions[-1].id), len(kept)


def _thinned(session: Session, share: float, behavior: str) -> Session:
    """Leave out trials, evenly over the recording."""
    if share >= 1.0:
        return session
    edges_s = _edges_s(session)
    n = np.floor(np.arange(len(edges_s)) * share + 1e-9)
    left_out = [
        (start_s, stop_s)
        for (start_s, stop_s), (before, after) in zip(
            itertools.pairwise(edges_s), itertools.pairwise(n), strict=True
        )
        if after == before
    ]
    signal = session.behavior[behavior]
    values = signal.values.copy()
    values[in_intervals(signal.t_s, left_out)] = np.nan
    thinned = Behavior(signal.t_s, values, signal.unit, signal.masked_in)
    return replace(session, behavior={**session.behavior, behavior: thinned})


def _edges_s(session: Session) -> list[float]:
    trials: Trials | None = session.trials
    if trials is not None and len(trials) > 1:
        starts_s = np.sort(trials.start_s[np.isfinite(trials.start_s)])
        return [0.0, *starts_s.tolist(), session.duration_s]
    return [*np.arange(0.0, session.duration_s, BLOCK_S).tolist(), session.duration_s]
