"""What flows inside: spikes from a source to the ring, token windows from there to the graph."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]

Repeats = Literal["all", "older", "none"]
"""Which spikes of an equal unit and stamp are duplicates: all that repeat an earlier one; those
that are older than the newest stamp, as a block that is sent again; or none."""


class Validity(IntEnum):
    """Whether a decode may be trusted; the larger of two is the worse and wins."""

    OK = 0
    WARMUP = 1
    STALE = 2
    PAUSED = 3
    FAULT = 4


@dataclass(frozen=True, slots=True)
class SpikeBatch:
    """Spikes of one source, in no particular order; contiguous arrays.

    Attributes:
        t_us: (n,) int64, stamp in microseconds since the owner's `t0`.
        unit: (n,) int32, index into the source's unit keys, not a row of a table.
        count: (n,) int32, how many spikes the entry stands for; 1 but for sources of counts.
    """

    t_us: Int64s
    unit: Int32s
    count: Int32s

    def __len__(self) -> int:
        return len(self.t_us)


@dataclass(frozen=True, slots=True)
class TokenWindow:
    """The tokens of one bin, in the order (stamp, row).

    The arrays belong to the window: no later cut changes them.

    Attributes:
        unit: (N,) int32, row of the decoder's table; N = 0 is legal.
        t_rel: (N,) float32, seconds since the start of the bin, in (0, bin].
        count: (N,) float32, weight of the token; 1 but for sources of counts, 0 where padded.
        t_window: end of the bin, seconds on the daemon's clock.
    """

    unit: Int32s
    t_rel: Float32s
    count: Float32s
    t_window: float

    def __len__(self) -> int:
        return len(self.unit)
