"""Messages within the daemon: spikes from source to ring, token windows from there to the graph."""

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
"""Spikes with equal unit and stamp that are duplicates: all that repeat an earlier one; those
that are older than the newest stamp, as a block that is sent again; or none."""


class Validity(IntEnum):
    """Trust in a decode; if two apply, the larger is the worse and wins."""

    OK = 0
    WARMUP = 1
    STALE = 2
    PAUSED = 3
    FAULT = 4


@dataclass(frozen=True, slots=True)
class SpikeBatch:
    """Spikes from one source, in no particular order; contiguous arrays.

    Attributes:
        t_us: (n,) int64, stamp in microseconds since the owner's `t0`.
        unit: (n,) int32, index into the source's unit keys, not a table row.
        count: (n,) int32, spikes that the entry stands for; 1 unless the source sends counts.
    """

    t_us: Int64s
    unit: Int32s
    count: Int32s

    def __len__(self) -> int:
        return len(self.t_us)


@dataclass(frozen=True, slots=True)
class TokenWindow:
    """One bin's tokens, in the order (stamp, row).

    The arrays belong to the window: no later cut changes them.

    Attributes:
        unit: (N,) int32, row in the decoder's table; N = 0 is legal.
        t_rel: (N,) float32, seconds since the bin's start, in (0, bin].
        count: (N,) float32, the token's weight; 1 unless the source sends counts, 0 where padded.
        t_window: the bin's end, seconds on the daemon's clock.
    """

    unit: Int32s
    t_rel: Float32s
    count: Float32s
    t_window: float

    def __len__(self) -> int:
        return len(self.unit)
