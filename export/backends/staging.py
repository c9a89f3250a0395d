"""A step's tokens at fixed addresses, padded to a bucket, as static shapes want them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from streams.messages import TokenWindow
from streams.spikes.tokenizer import evenly_over_units

NewArray = Callable[[int, type[np.generic]], np.ndarray]


def plain_array(length: int, dtype: type[np.generic]) -> np.ndarray:
    """Ordinary memory."""
    return np.zeros(length, dtype)


class Staging:
    """The tokens of one step.

    Args:
        buckets: numbers of tokens that graphs or engines exist for, increasing.
        new_array: makes the buffers, e.g. of memory that the GPU reads by itself.

    Attributes:
        unit: (largest bucket,) int32 rows.
        t_rel: (largest bucket,) float32 seconds.
        count: (largest bucket,) float32, 0 where padded.
        lead_s: (1,) float32.
    """

    def __init__(self, buckets: Sequence[int], new_array: NewArray = plain_array) -> None:
        self.buckets = tuple(buckets)
        self.unit = new_array(self.n_most, np.int32)
        self.t_rel = new_array(self.n_most, np.float32)
        self.count = new_array(self.n_most, np.float32)
        self.lead_s = new_array(1, np.float32)

    @property
    def n_most(self) -> int:
        """Tokens of the largest bucket."""
        return self.buckets[-1]

    def take(self, window: TokenWindow, lead_s: float) -> int:
        """Copy a window in.

        Of more tokens than the largest bucket holds, as many stay, evenly over units. In service
        the token cap has seen to that before, and counted what was left out.

        Returns:
            Its bucket: the first so many entries are to be run.
        """
        unit, t_rel, count = window.unit, window.t_rel, window.count
        if len(unit) > self.n_most:
            kept = evenly_over_units(unit, self.n_most)
            unit, t_rel, count = unit[kept], t_rel[kept], count[kept]
        n = len(unit)
        bucket = next(bucket for bucket in self.buckets if bucket >= n)
        for held, given in ((self.unit, unit), (self.t_rel, t_rel), (self.count, count)):
            held[:n] = given
            held[n:bucket] = 0
        self.lead_s[0] = lead_s
        return bucket
