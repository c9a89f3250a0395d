"""Kernels: the functions on each spike between pull and token, from numpy or from numba.

`numpy_kernels` and `numba_kernels` are siblings. Layout, ring and tokenizer are written once, and
call the one they are given. Both return the same numbers, bit for bit.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from streams.messages import Float32s, Float64s, Int32s, Int64s, SpikeBatch
from streams.spikes.kernels import numpy_kernels
from streams.spikes.kernels.ring_state import RingState
from streams.spikes.key_table import KeyTable
from streams.spikes.sequence import SequenceCheck


class Kernels(Protocol):
    """Functions over arrays, as both modules have them; every array is contiguous."""

    def read_plain(
        self,
        samples: np.ndarray,
        stamps: Float64s,
        columns: tuple[int, int, int],
        table: KeyTable,
        sequence: SequenceCheck,
    ) -> Int32s | None:
        """Read a pull that holds only new spikes, as nearly all do.

        Args:
            samples: (n, n_channels).
            stamps: (n,) seconds.
            columns: channel, unit and sequence number; -1 where there is none.
            table: the units' indices; grows by new units.
            sequence: notes the numbers, if all are new and none is missing.

        Returns:
            (n,) unit indices; None for another pull, and then nothing was noted.
        """

    def stamps_to_us(self, stamps: Float64s, offset_s: float, t0_s: float) -> Int64s:
        """See `streams.clock.stamps_to_us`; every stamp is a number."""

    def admit_in_order(
        self, ring: RingState, batch: SpikeBatch, known: np.ndarray, latest_us: int, may_tie: bool
    ) -> int | None:
        """Store an arrival with known units and new stamps in order, if there is room.

        Args:
            ring: written, except `n_admitted` and `newest_us`.
            batch: the arrival.
            known: (n_units,) bool.
            latest_us: stamps beyond this lie in the future.
            may_tie: equal stamps from one unit are several spikes.

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
        """Order a bin's spikes by (stamp, row), without those in row -1.

        Args:
            spikes: those in the bin.
            row_of: (n_units,) each unit's row.
            start_us: when the bin starts.

        Returns:
            For each token the index of its spike, its row, the seconds since the start of
            the bin, and its weight.
        """


NUMPY: Kernels = numpy_kernels


def numba_kernels() -> Kernels:
    """Return the kernels that numba compiles.

    Raises:
        ImportError: numba is not installed.
    """
    # Imported here: numba is slow to load, and not always installed.
    from streams.spikes.kernels import numba_kernels as compiled

    return compiled
