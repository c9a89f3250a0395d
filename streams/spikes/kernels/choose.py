"""Kernels: the functions on each spike between pull and token, from numpy or from numba.

`numpy_kernels` and `numba_kernels` are siblings. Layout, ring and tokenizer are written once, and
call whichever of the two they are given. Both return the same numbers, bit for bit.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from streams.messages import Float32s, Float64s, Int32s, Int64s, SpikeBatch
from streams.spikes.kernels import numpy_kernels
from streams.spikes.kernels.ring_state import RingState
from streams.spikes.sequence import SequenceCheck


class Kernels(Protocol):
    """Functions over arrays, as both modules have them; every array is contiguous."""

    def read_plain(
        self,
        samples: np.ndarray,
        stamps: Float64s,
        columns: tuple[int, int, int],
        grid: Int32s,
        sequence: SequenceCheck,
    ) -> Int32s | None:
        """Read a pull of nothing but new spikes of known units, as nearly all are.

        Args:
            samples: (n, n_channels).
            stamps: (n,) seconds.
            columns: of channel, unit and sequence number; -1 where there is none.
            grid: (channels, units) index of each unit; -1 where not met before.
            sequence: notes the numbers, if all are new and none is missing.

        Returns:
            (n,) index of each unit; None for another pull, of which nothing was noted.
        """

    def stamps_to_us(self, stamps: Float64s, offset_s: float, t0_s: float) -> Int64s:
        """See `streams.clock.stamps_to_us`; every stamp is a number."""

    def admit_in_order(
        self, ring: RingState, batch: SpikeBatch, known: np.ndarray, latest_us: int, may_tie: bool
    ) -> int | None:
        """Store an arrival of known units, in order and newer than all before, if there is room.

        Args:
            ring: written, except `n_admitted` and `newest_us`.
            batch: the arrival.
            known: (n_units,) bool.
            latest_us: stamps beyond this lie in the future.
            may_tie: equal stamps of one unit are several spikes.

        Returns:
            How many spikes the entries stand for; None for another arrival, which changes nothing.
        """

    def choose_bin(
        self, ring: RingState, after_us: int, until_us: int
    ) -> tuple[SpikeBatch, Int64s]:
        """Copy the live spikes in `(after_us, until_us]`, in order of arrival, with their slots."""

    def mark_fated(self, ring: RingState, slots: Int64s) -> int:
        """Mark these slots as having their fate; return how many spikes newly have one."""

    def leave_behind(self, ring: RingState) -> int:
        """Mark the entries that are late now and have no fate yet; move on to the first live one.

        Returns:
            How many spikes they stand for.
        """

    def order_tokens(
        self, spikes: SpikeBatch, row_of: Int32s, start_us: int
    ) -> tuple[Int64s, Int32s, Float32s, Float32s]:
        """Order the spikes of a bin by (stamp, row), without those of row -1.

        Args:
            spikes: of the bin.
            row_of: (n_units,) row of each unit.
            start_us: start of the bin.

        Returns:
            For each of N tokens the index of its spike, its row, the seconds since the start of
            the bin, and its weight.
        """


NUMPY: Kernels = numpy_kernels


def numba_kernels() -> Kernels:
    """Return the kernels that numba compiles.

    Raises:
        ImportError: numba is not installed.
    """
    from streams.spikes.kernels import numba_kernels as compiled

    return compiled
