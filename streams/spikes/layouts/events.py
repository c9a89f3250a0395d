"""Events layout: spikes as they happen, each a sample with a unit number and perhaps more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streams.errors import LayoutError
from streams.lsl.description import KEEP_ALIVE_UNIT, StreamDescription
from streams.messages import Float64s, Int32s, Repeats
from streams.spikes.kernels.choose import NUMPY, Kernels
from streams.spikes.key_table import KeyTable
from streams.spikes.layouts.columns import Columns, columns_of
from streams.spikes.layouts.layout import (
    IgnoredUnits,
    LayoutOptions,
    Parsed,
    are_indices,
    are_stamps,
)
from streams.spikes.layouts.stamp_grain import StampGrain
from streams.spikes.sequence import SequenceCheck

MOST_AT_ONCE = 8192
"""Longer pulls, as after a pause, are read the long way."""
_NO_STAMPS = np.zeros(0)


class EventLayout:
    """Spikes as they happen: a unit number, perhaps with a channel and a sequence number.

    Args:
        table: the source's keys.
        columns: indices for channel, unit and sequence number.
        ignored: units to leave out.
        kernels: functions that do the arithmetic.
    """

    bin_s: float | None = None

    def __init__(
        self,
        table: KeyTable,
        columns: Columns,
        ignored: IgnoredUnits | None = None,
        kernels: Kernels = NUMPY,
    ) -> None:
        self.table, self.columns = table, columns
        self.has_sequence = columns.seq is not None
        self._ignored = IgnoredUnits() if ignored is None else ignored
        self._kernels = kernels
        self._i_channel, self._i_unit, self._i_seq = (-1 if i is None else i for i in columns)
        self._sequence = SequenceCheck()
        self._grain = StampGrain()
        # Shared by all pulls, so that none allocates its own; nobody may write into it.
        self._ones = np.ones(MOST_AT_ONCE, np.int32)
        self._ones.flags.writeable = False

    @property
    def keys(self) -> list[str]:
        """Key of each unit met so far; the list only grows."""
        return self.table.keys

    def resume(self, before: EventLayout, known_keys: Sequence[str]) -> None:
        """Go on with the table from before the stream was lost; its indices stay.

        Raises:
            LayoutError: only one has channels.
        """
        if before.table.with_channel != self.table.with_channel:
            raise LayoutError("it came back with other columns")
        self.table = before.table

    def parse(self, samples: np.ndarray, stamps: Float64s) -> Parsed:
        """Read a pull: (n, n_channels) samples and their (n,) stamps."""
        n, unit = len(stamps), None
        if 0 < n <= MOST_AT_ONCE and samples.dtype == np.int32 and self._ignored.is_empty:
            columns = (self._i_channel, self._i_unit, self._i_seq)
            unit = self._kernels.read_plain(samples, stamps, columns, self.table, self._sequence)
        if unit is None:
            return self._parse_any(samples, stamps)
        repeats = self._repeats(stamps, unit)
        return Parsed(stamps, unit, self._ones[:n], _NO_STAMPS, _NO_STAMPS, repeats=repeats)

    def _repeats(self, stamps: Float64s, unit: Int32s) -> Repeats:
        if self.has_sequence:
            return "none"
        if len(stamps):
            self._grain.note(stamps, unit)
        return "older" if self._grain.is_coarse else "all"

    def _ids(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each sample's channel and unit; channel 0 where the stream has none."""
        unit = samples[:, self._i_unit]
        channel = np.zeros_like(unit) if self._i_channel < 0 else samples[:, self._i_channel]
        return channel, unit

    def _parse_any(self, samples: np.ndarray, stamps: Float64s) -> Parsed:
        # Sequence numbers first: a sample that came twice is no spike, whatever it holds.
        fresh, n_lost = self._fresh(samples, stamps)
        channel, unit = self._ids(samples)
        keep_alive = unit == KEEP_ALIVE_UNIT
        if self._i_channel >= 0:  # on a real channel -1 is a sorter's word for noise
            keep_alive &= channel == KEEP_ALIVE_UNIT
        ignored = self._ignored.among(channel, unit) & ~keep_alive
        stamped = are_stamps(stamps)
        good = are_indices(unit) & are_indices(channel) & stamped
        counted = fresh & ~keep_alive & ~ignored
        spike = counted & good
        unit_index = self.table.lookup(
            channel[spike].astype(np.int64), unit[spike].astype(np.int64)
        )
        return Parsed(
            t_s=stamps[spike],
            unit=unit_index,
            count=np.ones(len(unit_index), np.int32),
            keep_alive_s=stamps[keep_alive & fresh & stamped],
            invalid_s=stamps[counted & ~good],
            n_duplicate=int(np.count_nonzero(~fresh & ~keep_alive & ~ignored)),
            n_lost=n_lost,
            n_ignored=int(np.count_nonzero(ignored)),
            repeats=self._repeats(stamps[spike], unit_index),
        )

    def _fresh(self, samples: np.ndarray, stamps: Float64s) -> tuple[np.ndarray, int]:
        if not self.has_sequence or not len(stamps):
            return np.ones(len(stamps), np.bool_), 0
        seq = samples[:, self._i_seq]
        # Numbers that are none cannot tell a loss: then every sample counts as new.
        if not (seq.min() >= 0 if seq.dtype == np.int32 else are_indices(seq).all()):
            return np.ones(len(stamps), np.bool_), 0
        return self._sequence.fresh(seq.astype(np.int64), stamps)


def open_events(
    stream: StreamDescription, labels: Sequence[str], options: LayoutOptions
) -> EventLayout:
    """Find the columns by the labels, or by what the config names.

    Raises:
        LayoutError: the labels do not tell.
    """
    columns = columns_of(stream, labels, options.columns)
    with_channel = columns.channel is not None
    table = KeyTable(options.known_keys, with_channel=with_channel, array=options.array)
    return EventLayout(table, columns, IgnoredUnits(options.ignore_units), options.kernels)
