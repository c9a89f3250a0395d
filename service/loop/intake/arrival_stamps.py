"""Arrival times in place of a sender's stamps (`[input] stamps = "arrival"`)."""

from __future__ import annotations

import numpy as np

from streams.messages import Float64s

LONGEST_BLOCK_S = 0.5
BY_ARRIVAL = (
    'the sender\'s stamps are not used (`stamps = "arrival"`): a spike counts from when it '
    "arrives, so decodes are as late as the sender's program is, which nobody measures, and the "
    "times of spikes within a block are lost"
)
"""What is lost, for the operator."""


class ArrivalStamps:
    """Stamps samples by when they arrived.

    The samples in one pull are a block that the sender gathered since the pull before: they are
    spread evenly over that time, so that a block longer than a bin fills all its bins.
    """

    def __init__(self) -> None:
        self._t_before_s = -np.inf

    def stamps(self, n: int, t_s: float) -> Float64s:
        """Return (n,) stamps for samples that arrived at `t_s`; the last is `t_s` itself."""
        if not n:
            return np.zeros(0)
        gathered_s = t_s - self._t_before_s
        self._t_before_s = t_s
        if n == 1 or gathered_s > LONGEST_BLOCK_S:
            return np.full(n, t_s)
        return t_s - gathered_s * np.arange(n - 1, -1, -1) / n
