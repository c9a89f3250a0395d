"""Trials chosen by a condition on their columns."""

from __future__ import annotations

import numpy as np

from streams.errors import SessionError
from streams.sessions.conditions import rows_where
from streams.sessions.session import Interval, Session


def trials_where(session: Session, condition: str) -> list[Interval]:
    """Find the trials that meet a condition; those without start or stop are left out.

    Raises:
        SessionError: the session has no trials, or the condition cannot be applied to them.
    """
    trials = session.trials
    if trials is None:
        raise SessionError(
            f"session {session.id} has no trials to choose by {condition!r}: name their table, "
            '[sessions] trials = "intervals/NAME", or split otherwise'
        )
    columns = flat_columns(session)
    chosen = rows_where(condition, columns, len(trials), f"session {session.id}, trials: ")
    chosen &= np.isfinite(trials.start_s) & np.isfinite(trials.stop_s)
    return list(zip(trials.start_s[chosen].tolist(), trials.stop_s[chosen].tolist(), strict=True))


def flat_columns(session: Session) -> dict[str, np.ndarray]:
    """Return the trial columns with one value each."""
    columns = {} if session.trials is None else session.trials.columns
    return {name: column for name, column in columns.items() if column.ndim == 1}
