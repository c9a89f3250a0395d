"""A series with binned counts instead of units, as in FALCON's H2."""

from __future__ import annotations

import numpy as np

from streams.errors import SessionError
from streams.sessions.checks.contents import Spikes
from streams.sessions.choice import CountChoice
from streams.sessions.session import Behavior

MOST = 100_000
"""Spikes in a bin; more are no counts."""


def spikes_of_counts(signal: Behavior, choice: CountChoice, file: str) -> Spikes:
    """Turn counts into entries that stand for several spikes, each at its bin's end.

    Args:
        signal: (n_bins, n_units) counts.
        choice: tells which end of a bin its time stamp is.
        file: for messages.

    Raises:
        SessionError: the values are no counts, or there are fewer than two bins.
    """
    values = signal.values
    if len(values) < 2:
        raise SessionError(f"{file}: {choice.series} has {len(values)} bins: too few")
    are_counts = (values >= 0) & (values <= MOST) & (values == np.rint(values))
    if not are_counts.all():
        raise SessionError(
            f"{file}: {choice.series} holds values that are no counts (negative, fractions or not "
            f"finite, for example {values[~are_counts][0]:g}): name a series of whole spike counts"
        )
    step_s = float(np.median(np.diff(signal.t_s))) if choice.stamp == "start" else 0.0
    unit, i_bin = np.nonzero(values.T)
    return Spikes(
        keys=tuple(f"ch{i}" for i in range(values.shape[1])),
        key_kind="columns of counts",
        t_s=signal.t_s[i_bin] + step_s,
        unit=unit.astype(np.int32),
        count=values[i_bin, unit].astype(np.int32),
    )
