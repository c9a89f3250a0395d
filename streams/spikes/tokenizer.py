"""A bin's spikes become tokens: one code for training, calibration, replay and the beat.

A bin is `(t_window - bin, t_window]`. Tokens stand in the order (stamp, row), so that the order of
arrival leaves no trace, and carry times relative to their bin: float32 cannot hold absolute time in
a rotary embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streams.messages import Float32s, Int32s, Int64s, SpikeBatch, TokenWindow
from streams.spikes.kernels.choose import NUMPY, Kernels
from streams.spikes.kernels.numpy_kernels import canonical_order, relative_s


class Tokenizer:
    """Makes the tokens of one bin from its spikes.

    Args:
        bin_us: bin length, microseconds.
        row_of: (n_source_units,) int32, the decoder's row for each source unit, no row twice; -1
            where unknown.
        token_cap: at most this many tokens a bin, taken evenly over units; None for no cap.
        kernels: functions that do the arithmetic.
    """

    def __init__(
        self,
        bin_us: int,
        row_of: Int32s,
        token_cap: int | None = None,
        kernels: Kernels = NUMPY,
    ) -> None:
        self.bin_us = bin_us
        self.row_of = row_of
        self.token_cap = token_cap
        self._kernels = kernels

    def cut(
        self, spikes: SpikeBatch, bin_end_us: int, t_window: float
    ) -> tuple[TokenWindow, Int64s]:
        """Make tokens for the bin that ends at `bin_end_us`.

        Args:
            spikes: those whose stamp lies in the bin, none twice, in contiguous arrays;
                units that the decoder does not know (it may have been swapped) are left out.
            bin_end_us: the bin's end in the batch's microseconds.
            t_window: the same instant on the daemon's clock, seconds.

        Returns:
            The window, and (N,) for each token its index into `spikes`.
        """
        order, row, t_rel, count = self._kernels.order_tokens(
            spikes, self.row_of, bin_end_us - self.bin_us
        )
        if self.token_cap is not None and len(order) > self.token_cap:
            # Taken evenly, so that no unit falls silent before the others.
            kept = evenly_over_units(row, self.token_cap)
            order, row, t_rel, count = order[kept], row[kept], t_rel[kept], count[kept]
        return TokenWindow(row, t_rel, count, t_window), order


def evenly_over_units(row: Int32s, cap: int) -> Int64s:
    """Choose the tokens that a cap keeps: every n-th by row, so that each unit loses its share.

    Args:
        row: (n,) the tokens' rows in canonical order.
        cap: how many to keep, fewer than n.

    Returns:
        (cap,) indices into `row`, increasing.
    """
    by_row = np.argsort(row, kind="stable")
    return np.sort(by_row[(np.arange(cap, dtype=np.int64) * len(row)) // cap])


@dataclass(frozen=True, slots=True)
class TokenBins:
    """Many bins' tokens, end to end.

    Attributes:
        unit: (N,) int32 rows.
        t_rel: (N,) float32 seconds since the start of the token's bin.
        count: (N,) float32.
        offsets: (n_bins + 1,) int64; bin i holds tokens offsets[i]:offsets[i + 1].
    """

    unit: Int32s
    t_rel: Float32s
    count: Float32s
    offsets: Int64s

    def __len__(self) -> int:
        return len(self.offsets) - 1


def cut_bins(
    spikes: SpikeBatch,
    row_of: Int32s,
    bin_ends_us: Int64s,
    bin_us: int,
    *,
    drop_repeats: bool = True,
) -> TokenBins:
    """Cut a whole recording at once; each bin equals what `Tokenizer.cut` gives, bit for bit.

    Args:
        spikes: any order; those from unknown units (row -1) are left out.
        row_of: (n_source_units,) int32.
        bin_ends_us: (n_bins,) int64, any order; bins may overlap.
        bin_us: bin length.
        drop_repeats: leave out a spike that comes again with the same unit and microsecond, as the
            ring does where stamps are finer than blocks and nothing numbers the samples.
    """
    row = row_of[spikes.unit]
    known = np.flatnonzero(row >= 0)
    order = known[canonical_order(spikes.t_us[known], row[known])]
    # In canonical order repeats are neighbours.
    again = (np.diff(spikes.t_us[order]) == 0) & (np.diff(row[order]) == 0)
    if drop_repeats and again.any():
        order = order[np.concatenate(([True], ~again))]
    t_us, row, count = spikes.t_us[order], row[order], spikes.count[order].astype(np.float32)
    first = np.searchsorted(t_us, bin_ends_us - bin_us, side="right")
    n_in_bin = np.searchsorted(t_us, bin_ends_us, side="right") - first
    offsets = np.concatenate(([0], np.cumsum(n_in_bin))).astype(np.int64)
    i_token = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], n_in_bin)
    starts = np.repeat(bin_ends_us - bin_us, n_in_bin)
    return TokenBins(row[i_token], relative_s(t_us[i_token], starts), count[i_token], offsets)
