"""How a stream's samples become spikes: the layouts that we read (`docs/streams.md`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streams.errors import StreamsError
from streams.lsl.description import KEEP_ALIVE_UNIT, StreamDescription
from streams.messages import Float64s, Int32s, Repeats
from streams.spikes.columns import Columns, columns_of, unfit
from streams.spikes.key_table import KeyTable
from streams.spikes.sequence import SequenceCheck
from streams.spikes.stamp_grain import StampGrain
from streams.unit_keys import parse_key

MOST_AT_ONCE = 8192
"""Longer pulls, as after a pause, are read the long way."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a pull brought.

    Attributes:
        t_s: (n,) stamps as sent, one per spike entry.
        unit: (n,) index into the key table.
        count: (n,) spikes that the entry stands for.
        keep_alive_s: (m,) stamps of keep-alives, and of bins of counts.
        is_whole: (m,) whether every value of a bin of counts is a count; None for events.
        invalid_s: (l,) stamps of spikes that are none (NaN, negative, no whole number).
        n_duplicate: spikes whose sequence number came before.
        n_lost: sequence numbers that never came.
        n_ignored: spikes of units that the config leaves out.
        repeats: what an equal unit and stamp mean here.
    """

    t_s: Float64s
    unit: Int32s
    count: Int32s
    keep_alive_s: Float64s
    invalid_s: Float64s
    n_duplicate: int = 0
    n_lost: int = 0
    n_ignored: int = 0
    repeats: Repeats = "all"
    is_whole: np.ndarray | None = None


class IgnoredUnits:
    """Units that the config leaves out: unit numbers of any channel, or whole keys."""

    def __init__(self, ignored: Sequence[int | str]) -> None:
        self.labels = frozenset(str(one) for one in ignored)
        self._codes = np.array(sorted(one for one in ignored if isinstance(one, int)), np.int64)
        self._pairs = [
            ids for one in ignored if isinstance(one, str) for ids in _ids_of(one) if ids
        ]
        self.is_empty = not self.labels

    def among(self, channel: np.ndarray, unit: np.ndarray) -> np.ndarray:
        """Return (n,) bool, True where a sample's (channel, unit) is left out."""
        found: np.ndarray = np.isin(unit, self._codes)
        for ids in self._pairs:
            found |= (unit == ids[-1]) & (channel == ids[0] if len(ids) == 2 else True)
        return found


def _ids_of(key: str) -> list[tuple[int, ...]]:
    try:
        return [parse_key(key)]
    except StreamsError:
        return []  # a label of a counts channel


class EventLayout:
    """Spikes as they happen: a unit number, perhaps with a channel and a sequence number.

    Args:
        table: the source's keys.
        columns: where channel, unit and sequence number stand.
        ignored: units to leave out.
    """

    bin_s: float | None = None

    def __init__(
        self, table: KeyTable, columns: Columns, ignored: IgnoredUnits | None = None
    ) -> None:
        self.table, self.columns = table, columns
        self._ignored = IgnoredUnits(()) if ignored is None else ignored
        self._i_channel, self._i_unit, self._i_seq = columns
        self._n_read = 1 + max(i for i in columns if i is not None)
        self._sequence = SequenceCheck()
        self._grain = StampGrain()
        self._ones = np.ones(MOST_AT_ONCE, np.int32)
        self._ones.flags.writeable = False

    @property
    def keys(self) -> list[str]:
        """Key of each unit met so far; it only grows."""
        return self.table.keys

    def on(self, table: KeyTable) -> EventLayout:
        """Return the same columns over another table, whose indices stay."""
        return type(self)(table, self.columns, self._ignored)

    def parse(self, samples: np.ndarray, stamps: Float64s) -> Parsed:
        """Read a pull: (n, n_channels) samples and their (n,) stamps."""
        unit = self._units_if_plain(samples, stamps) if self._ignored.is_empty else None
        if unit is None:
            return self._parse_any(samples, stamps)
        ones, repeats = self._ones[: len(stamps)], self._repeats(stamps, unit)
        return Parsed(stamps, unit, ones, _NO_STAMPS, _NO_STAMPS, repeats=repeats)

    def _repeats(self, stamps: Float64s, unit: Int32s) -> Repeats:
        if self._i_seq is not None:
            return "none"
        if len(stamps):
            self._grain.note(stamps, unit)
        return "older" if self._grain.is_coarse else "all"

    def _units_if_plain(self, samples: np.ndarray, stamps: Float64s) -> Int32s | None:
        """Units of a pull of nothing but new spikes, as nearly all are; None for another."""
        if not self._are_plain(samples, stamps):
            return None
        return self.table.lookup(*self._ids(samples))

    def _are_plain(self, samples: np.ndarray, stamps: Float64s) -> bool:
        """Whether all are new spikes of sound stamps, as nearly always: nothing is to be chosen.

        Asked of the whole pull at once: this stands between a spike and its decode.
        """
        return bool(
            0 < len(stamps) <= MOST_AT_ONCE
            and samples.dtype == np.int32
            and np.minimum.reduce(samples[:, : self._n_read], axis=None) >= 0
            and np.minimum.reduce(stamps) > 0
            and np.maximum.reduce(stamps) < np.inf
            and (self._i_seq is None or self._sequence.go_on(samples[:, self._i_seq], stamps))
        )

    def _ids(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Channel and unit of each sample; channel 0 where the stream has none."""
        unit = samples[:, self._i_unit]
        channel = np.zeros_like(unit) if self._i_channel is None else samples[:, self._i_channel]
        return channel, unit

    def _parse_any(self, samples: np.ndarray, stamps: Float64s) -> Parsed:
        fresh, n_lost = self._fresh(samples, stamps)
        channel, unit = self._ids(samples)
        keep_alive = unit == KEEP_ALIVE_UNIT
        if self._i_channel is not None:  # on a real channel -1 is a sorter's word for noise
            keep_alive &= channel == KEEP_ALIVE_UNIT
        ignored = self._ignored.among(channel, unit) & ~keep_alive
        stamped = _is_stamp(stamps)
        good = _is_index(unit) & _is_index(channel) & stamped
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
        if self._i_seq is None or not len(stamps):
            return np.ones(len(stamps), np.bool_), 0
        seq = samples[:, self._i_seq]
        if not (seq.min() >= 0 if seq.dtype == np.int32 else _is_index(seq).all()):
            return np.ones(len(stamps), np.bool_), 0
        return self._sequence.fresh(seq.astype(np.int64), stamps)


class CountsLayout:
    """Counts per unit at a regular rate, stamped at the end of their bin.

    Attributes:
        keys: key of each unit met so far; it only grows.
        keys_now: key of each channel that is read.
        bin_s: length of a bin.

    Args:
        labels: label of each channel; a unit's key, after the array's prefix.
        rate_hz: nominal rate; a bin lasts its inverse.
        array: prefix of the keys.
        ignored: labels to leave out.
    """

    def __init__(
        self,
        labels: Sequence[str],
        rate_hz: float,
        array: str = "",
        ignored: IgnoredUnits | None = None,
    ) -> None:
        prefix = f"{array}:" if array else ""
        left_out: frozenset[str] = frozenset() if ignored is None else ignored.labels
        named = [
            (i, label)
            for i, label in enumerate(labels)
            if label not in left_out and prefix + label not in left_out
        ]
        self.bin_s: float | None = 1.0 / rate_hz
        self.keys_now = [prefix + label for _, label in named]
        self.keys = list(self.keys_now)
        self._columns = np.array([i for i, _ in named], np.int64)
        self._index = np.arange(len(named), dtype=np.int32)

    def on(self, keys: list[str]) -> CountsLayout:
        """Return itself with the indices of `keys`, which grows by the labels that are new."""
        place = {key: i for i, key in enumerate(keys)}
        keys.extend(key for key in self.keys_now if key not in place)
        place = {key: i for i, key in enumerate(keys)}
        self.keys = keys
        self._index = np.array([place[key] for key in self.keys_now], np.int32)
        return self

    def parse(self, samples: np.ndarray, stamps: Float64s) -> Parsed:
        """Read a pull: (n, n_units) counts and their (n,) stamps; a bin of no spikes is alive."""
        samples = samples[:, self._columns]
        good = _is_index(samples) & _is_stamp(stamps)[:, None]
        alive = good.any(axis=1)
        i_bin, i_column = np.nonzero(good & (samples > 0))
        return Parsed(
            t_s=stamps[i_bin],
            unit=self._index[i_column],
            count=samples[i_bin, i_column].astype(np.int32),
            keep_alive_s=stamps[alive],
            is_whole=good.all(axis=1)[alive],
            invalid_s=stamps[np.nonzero(~good)[0]],
        )


_NO_STAMPS = np.zeros(0)


def _is_stamp(stamps: Float64s) -> np.ndarray:
    is_stamp: np.ndarray = np.isfinite(stamps) & (stamps > 0)
    return is_stamp


def _is_index(values: np.ndarray) -> np.ndarray:
    """Whole numbers that can name or count: from 0, and an int32 holds them."""
    if np.issubdtype(values.dtype, np.integer):
        return (values >= 0) & (values < 2**31)
    is_index: np.ndarray = (
        np.isfinite(values) & (values >= 0) & (values < 2**31) & (values == np.floor(values))
    )
    return is_index


Layout = EventLayout | CountsLayout


def layout_of(
    stream: StreamDescription,
    labels: Sequence[str],
    known_keys: Sequence[str],
    array: str = "",
    *,
    columns: Sequence[str] = (),
    ignore_units: Sequence[int | str] = (),
    event_layout: type[EventLayout] = EventLayout,
) -> Layout:
    """Choose the layout of a stream by its labels, or by what the config names.

    Args:
        stream: its description.
        labels: its channel labels, where it has any.
        known_keys: the decoder's unit keys.
        array: prefix of the keys.
        columns: `[input] columns`, see `columns_of`.
        ignore_units: unit numbers of any channel, keys (`ch3/u0`) or labels to leave out.
        event_layout: how spikes are read that come as they happen.

    Raises:
        StreamUnfitError: it is none that we read; the text says what it is and what we read.
    """
    if stream.format in ("string", "undefined"):
        raise unfit(stream, f"its values are of format {stream.format}")
    ignored = IgnoredUnits(ignore_units)
    if stream.rate_hz > 0:
        if columns:
            raise unfit(stream, "`columns` is for events, and it has a regular rate")
        _require_distinct(stream, labels)
        return CountsLayout(labels, stream.rate_hz, array, ignored)
    found = columns_of(stream, labels, columns)
    table = KeyTable(known_keys, with_channel=found.channel is not None, array=array)
    return event_layout(table, found, ignored)


def _require_distinct(stream: StreamDescription, labels: Sequence[str]) -> None:
    named = [label for label in labels if label]
    if len(named) != stream.n_channels or len(set(named)) != len(named):
        raise unfit(stream, "a stream of counts needs a distinct label on every channel")
