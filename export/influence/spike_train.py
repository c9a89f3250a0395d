"""Recent spikes of a decoder's units, and the bins that its network sees of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streams.messages import Float32s, Float64s, Int32s, Int64s


@dataclass(frozen=True, slots=True)
class Bins:
    """Tokens of consecutive bins, those of one bin behind those of the one before.

    Attributes:
        unit: (N,) table rows.
        t_rel: (N,) seconds since the bin's start.
        count: (N,) spikes per token.
        offsets: (n_bins + 1,) where each bin begins.
    """

    unit: Int32s
    t_rel: Float32s
    count: Float32s
    offsets: Int64s

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, chosen: np.ndarray) -> Bins:
        """Some of the bins, one behind another; chosen: (n_bins,) bool."""
        n_each = np.diff(self.offsets)
        held = np.repeat(chosen, n_each)
        offsets = np.concatenate([[0], np.cumsum(n_each[chosen])])
        return Bins(self.unit[held], self.t_rel[held], self.count[held], offsets)


class SpikeTrain:
    """Spikes of the last seconds, sorted by time.

    Args:
        keep_s: how far back they are kept.
    """

    def __init__(self, keep_s: float) -> None:
        self._keep_us = round(keep_s * 1e6)
        self._t_us = np.zeros(0, np.int64)
        self._row = np.zeros(0, np.int32)
        self._count = np.zeros(0, np.float32)

    def add(self, t_s: Float64s, row: Int32s, count: Float32s | None = None) -> None:
        """Take spikes in, in any order.

        Args:
            t_s: (n,) seconds.
            row: (n,) table rows.
            count: (n,) spikes per entry; ones unless given.
        """
        if not len(t_s):
            return
        count = np.ones(len(t_s), np.float32) if count is None else count
        # Whole microseconds, so that a bin's edges are where the daemon has them.
        stamps = np.concatenate([self._t_us, _to_us(t_s)])
        kept = np.flatnonzero(stamps > stamps.max() - self._keep_us)
        order = kept[np.argsort(stamps[kept], kind="stable")]
        self._t_us = stamps[order]
        self._row = np.concatenate([self._row, row.astype(np.int32)])[order]
        self._count = np.concatenate([self._count, count.astype(np.float32)])[order]

    def bins(self, ends_s: Float64s, bin_s: float) -> Bins:
        """Cut the bins `(end - bin, end]`.

        Args:
            ends_s: (n_bins,) seconds, increasing.
            bin_s: length.
        """
        ends_us = _to_us(ends_s)
        starts_us = ends_us - round(bin_s * 1e6)
        first = np.searchsorted(self._t_us, starts_us, side="right")
        last = np.searchsorted(self._t_us, ends_us, side="right")
        lengths = last - first
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        # Bins may overlap, so a spike may stand in several.
        index = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], lengths)
        t_rel = (self._t_us[index] - np.repeat(starts_us, lengths)) * 1e-6
        return Bins(self._row[index], t_rel.astype(np.float32), self._count[index], offsets)


def _to_us(t_s: Float64s) -> Int64s:
    return np.rint(t_s * 1e6).astype(np.int64)
