"""Train and test part: in time, or by trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from decoders.config import Split, written_out
from decoders.errors import TrainingError
from streams.messages import Int64s
from streams.sessions.conditions import flat_columns, told_columns, trials_where
from streams.sessions.session import Interval, Session, in_intervals

ALWAYS_US = -(2**62)
"""Before any session."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bins `first` to `last` (exclusive)."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Parts:
    """A session's train and test part.

    Attributes:
        train: bins that may be learnt from lie in here.
        test: from the first to the last that is held out.
        tested: (n_bins,) bool, held out.
        learnt_us: (n, 2) int64, what is learnt from, `(start, stop]`, in order.
    """

    train: Part
    test: Part
    tested: np.ndarray
    learnt_us: Int64s

    def may_learn(self, t_us: Int64s) -> np.ndarray:
        """Return True for times that may be learnt from."""
        at = np.searchsorted(self.learnt_us[:, 0], t_us, side="left") - 1
        inside = (at >= 0) & (t_us <= self.learnt_us[np.maximum(at, 0), 1])
        return np.asarray(inside)


def split_session(session: Session, ends_us: Int64s, split: str | Split) -> Parts:
    """Train and test part.

    Args:
        session: its trials may decide.
        ends_us: (n_bins,) each bin's end.
        split: `last:0.2` holds out the last fifth, `none` nothing, `trials:COLUMN` the trials with
            "val" or "test" in that column; or conditions on trials; where files are held out,
            no others are.

    Raises:
        TrainingError: no trial is in the train part, or one is in both.
    """
    split = written_out(split)
    n_bins = len(ends_us)
    if isinstance(split, Split) and split.train:
        return _parts_of_trials(session, ends_us, split)
    train, test = split_bins(n_bins, split if isinstance(split, str) else "none")
    tested = np.zeros(n_bins, np.bool_)
    tested[test.first : test.last] = True
    learnt_us = np.array([[ALWAYS_US, int(ends_us[train.last - 1])]], np.int64)
    return Parts(train, test, tested, learnt_us)


def _parts_of_trials(session: Session, ends_us: Int64s, split: Split) -> Parts:
    learnt, tested = (trials_where(session, where) for where in (split.train, split.test))
    if not len(learnt) or _overlap(learnt, tested):
        raise TrainingError(
            f"session {session.id}: of its trials {len(learnt)} meet {split.train!r} and "
            f"{len(tested)} meet {split.test!r}: some must be learnt from, and none be in both; "
            f"columns: {told_columns(flat_columns(session))}"
        )
    held = in_intervals(np.asarray(ends_us * 1e-6, np.float64), tested)
    at = np.flatnonzero(held)
    test = Part(int(at[0]), int(at[-1]) + 1) if len(at) else Part(len(ends_us), len(ends_us))
    learnt_us = np.rint(np.asarray(sorted(learnt)) * 1e6).astype(np.int64)
    return Parts(Part(0, len(ends_us)), test, held, learnt_us)


def _overlap(one: Sequence[Interval], other: Sequence[Interval]) -> bool:
    """Return True where a stretch in one list overlaps a stretch in the other."""
    told = sorted([(*pair, 0) for pair in one] + [(*pair, 1) for pair in other])
    stops_s = [-math.inf, -math.inf]
    for start_s, stop_s, kind in told:
        if start_s < stops_s[1 - kind] - 1e-9:
            return True
        stops_s[kind] = max(stops_s[kind], stop_s)
    return False


def split_bins(n_bins: int, split: str) -> tuple[Part, Part]:
    """Train and test part: `last:0.2` holds out the last fifth, `none` holds out nothing."""
    share = 0.0 if split == "none" else float(split.removeprefix("last:"))
    edge = n_bins - round(n_bins * share)
    return Part(0, edge), Part(edge, n_bins)
