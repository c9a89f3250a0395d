"""How a stream's samples become spikes: the layouts that we read, and the keys of their units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streams.lsl import KEEP_ALIVE_UNIT, StreamDescription, StreamUnfitError, parse_key
from streams.messages import Float64s, Int32s, Int64s, StreamsError

SEQ_KEPT = 65_536
SEQ_WRAP = 2**31
_CHANNEL_STEP = 2**32
_GRID_CELLS = 2**20
_MAX_KEYS = 200_000
MOST_AT_ONCE = 8192
"""Longer pulls, as after a pause, are read the long way."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a pull brought.

    Attributes:
        t_s: (n,) stamps as sent, one per spike entry.
        unit: (n,) index into the key table.
        count: (n,) spikes that the entry stands for.
        keep_alive_s: (m,) stamps of keep-alives.
        n_invalid: spikes that are none (NaN, negative, no whole number).
        n_duplicate: spikes whose sequence number came before.
        n_lost: sequence numbers that never came.
    """

    t_s: Float64s
    unit: Int32s
    count: Int32s
    keep_alive_s: Float64s
    n_invalid: int = 0
    n_duplicate: int = 0
    n_lost: int = 0


class KeyTable:
    """Gives each `(channel, unit)` of a source a running index and a key; it only grows.

    Attributes:
        keys: in the order of their index.
        grid: (channels, units) index of each unit, where numbers are small; -1 where not met.

    Args:
        keys: known from the start (the decoder's), so that a session in progress seldom adds one.
        array: prefix `array:` of all keys.
        with_channel: whether the source sends channels (`ch12/u1`) or bare units (`u17`).
    """

    def __init__(self, keys: Sequence[str], *, with_channel: bool, array: str = "") -> None:
        self.keys: list[str] = []
        self._prefix = f"{array}:" if array else ""
        self._with_channel = with_channel
        self._codes = np.zeros(0, np.int64)
        self._index = np.zeros(0, np.int32)
        self.grid = np.zeros((0, 0), np.int32)
        self._add(np.array(sorted(self._codes_of(keys)), dtype=np.int64))

    def lookup(self, channel: Int32s | Int64s, unit: Int32s | Int64s) -> Int32s:
        """Index of each (channel, unit), adding those not met before.

        Args:
            channel: (n,), from 0.
            unit: (n,), from 0.
        """
        index = self._on_grid(channel, unit)
        if index is not None:
            return index
        code = channel.astype(np.int64) * _CHANNEL_STEP + unit
        place = self._place(code)
        new = self._codes[place] != code if len(self._codes) else np.ones(len(code), np.bool_)
        if new.any():
            self._add(np.unique(code[new]))
            place = self._place(code)
        return self._index[place]

    def _on_grid(self, channel: Int32s | Int64s, unit: Int32s | Int64s) -> Int32s | None:
        """Their indices; None where one is not on the grid, or was not met before."""
        try:
            index: Int32s = self.grid[channel, unit]
        except IndexError:
            return None
        return index if len(index) and np.minimum.reduce(index) >= 0 else None

    def _place(self, code: Int64s) -> Int64s:
        place = np.searchsorted(self._codes, code)
        return np.minimum(place, max(0, len(self._codes) - 1))

    def _add(self, codes: Int64s) -> None:
        if len(self.keys) + len(codes) > _MAX_KEYS:
            raise StreamUnfitError(
                f"the source shows over {_MAX_KEYS} units; does its first channel hold "
                "something else than unit numbers?"
            )
        fresh = np.arange(len(self.keys), len(self.keys) + len(codes), dtype=np.int32)
        self.keys.extend(self._key(int(code)) for code in codes)
        order = np.argsort(np.concatenate((self._codes, codes)), kind="stable")
        self._codes = np.concatenate((self._codes, codes))[order]
        self._index = np.concatenate((self._index, fresh))[order]
        self._spread_out()

    def _spread_out(self) -> None:
        """The same as a grid, where numbers are small: it is read without a search."""
        channel, unit = np.divmod(self._codes, _CHANNEL_STEP)
        shape = (int(channel.max(initial=-1)) + 1, int(unit.max(initial=-1)) + 1)
        if shape[0] * shape[1] <= _GRID_CELLS:
            self.grid = np.full(shape, -1, np.int32)
            self.grid[channel, unit] = self._index
        else:
            self.grid = np.zeros((0, 0), np.int32)

    def _key(self, code: int) -> str:
        channel, unit = divmod(code, _CHANNEL_STEP)
        return self._prefix + (f"ch{channel}/u{unit}" if self._with_channel else f"u{unit}")

    def _codes_of(self, keys: Sequence[str]) -> set[int]:
        codes = set()
        for key in keys:
            try:
                ids = parse_key(key)
            except StreamsError:
                continue
            if self._prefix == key[: -len(key.rpartition(":")[2])] and (
                len(ids) == 1 + self._with_channel
            ):
                codes.add(ids[0] * _CHANNEL_STEP + ids[1] if self._with_channel else ids[0])
        return codes


class SequenceCheck:
    """Finds samples that came twice and numbers that never came.

    A source that restarts counts from 0 again: a number that comes again with a later stamp, or one
    from before our time after a silence of stamps, lets the count begin anew.

    Attributes:
        seen: (SEQ_KEPT,) the newest numbers, each at its rest.
        stamp_s: (SEQ_KEPT,) their stamps.
        next_number: the one to come; -1 before the first.
        newest_s: the latest stamp.

    Args:
        restart_after_s: how much later, and how long a silence.
    """

    def __init__(self, restart_after_s: float = 0.5) -> None:
        self._restart_after_s = restart_after_s
        self.seen = np.full(SEQ_KEPT, -1, dtype=np.int64)
        self.stamp_s = np.zeros(SEQ_KEPT)
        self.next_number = -1
        self.newest_s = -np.inf

    def fresh(self, seq: Int64s, t_s: Float64s) -> tuple[np.ndarray, int]:
        """Which samples are new, and how many numbers were jumped over. (n,), (n,) -> (n,) bool."""
        if self.next_number > SEQ_WRAP // 2:  # an int32 begins anew at 0 after 2**31 samples
            seq = seq + self.next_number // SEQ_WRAP * SEQ_WRAP
            seq = np.where(seq < self.next_number - SEQ_WRAP // 2, seq + SEQ_WRAP, seq)
        if self.next_number < 0 or self._is_restart(int(seq[0]), float(t_s[0])):
            self.seen[:] = -1
            self.next_number = int(seq[0])
        if self.go_on(seq, t_s):
            return np.ones(len(seq), np.bool_), 0
        fresh = np.zeros(len(seq), np.bool_)
        fresh[np.unique(seq, return_index=True)[1]] = True
        fresh &= self.seen[seq % SEQ_KEPT] != seq
        self.seen[seq[fresh] % SEQ_KEPT] = seq[fresh]
        self.stamp_s[seq[fresh] % SEQ_KEPT] = t_s[fresh]
        ahead = np.unique(seq[fresh & (seq >= self.next_number)])
        n_lost = int(ahead[-1] + 1 - self.next_number - len(ahead)) if len(ahead) else 0
        self.next_number = (
            max(self.next_number, int(ahead[-1]) + 1) if len(ahead) else self.next_number
        )
        self.newest_s = max(self.newest_s, float(t_s.max()))
        return fresh, n_lost

    def go_on(self, seq: Int64s | Int32s, t_s: Float64s) -> bool:
        """Whether all are new and none is missing, as nearly always; then they are noted."""
        if seq[0] != self.next_number or not (seq[1:] - seq[:-1] == 1).all():
            return False
        first = int(seq[0]) % SEQ_KEPT
        if first + len(seq) <= SEQ_KEPT:
            self.seen[first : first + len(seq)] = seq
            self.stamp_s[first : first + len(seq)] = t_s
        else:
            kept = slice(-SEQ_KEPT, None)
            self.seen[seq[kept] % SEQ_KEPT] = seq[kept]
            self.stamp_s[seq[kept] % SEQ_KEPT] = t_s[kept]
        self.next_number = int(seq[-1]) + 1
        self.newest_s = max(self.newest_s, float(np.maximum.reduce(t_s)))
        return True

    def _is_restart(self, seq: int, t_s: float) -> bool:
        slot = seq % SEQ_KEPT
        before_s = float(self.stamp_s[slot]) if self.seen[slot] == seq else self.newest_s
        return seq < self.next_number and t_s > before_s + self._restart_after_s


class EventLayout:
    """Spikes as they happen: `[unit]` or `[channel, unit]`, perhaps with more channels behind.

    Args:
        table: the source's keys.
        i_channel: column of the channel number, None where there is none.
        i_unit: column of the unit number.
        i_seq: column of the sequence number, None where there is none.
    """

    bin_s: float | None = None

    def __init__(
        self, table: KeyTable, i_channel: int | None, i_unit: int, i_seq: int | None
    ) -> None:
        self.table = table
        self._i_channel, self._i_unit, self._i_seq = i_channel, i_unit, i_seq
        self._n_read = 1 + max(i for i in (i_channel, i_unit, i_seq) if i is not None)
        self._sequence = SequenceCheck()
        self._ones = np.ones(MOST_AT_ONCE, np.int32)
        self._ones.flags.writeable = False

    def parse(self, samples: np.ndarray, stamps: Float64s) -> Parsed:
        """Read a pull: (n, n_channels) samples and their (n,) stamps."""
        unit = self._units_if_plain(samples, stamps)
        if unit is None:
            return self._parse_any(samples, stamps)
        return Parsed(stamps, unit, self._ones[: len(stamps)], keep_alive_s=_NO_STAMPS)

    def _units_if_plain(self, samples: np.ndarray, stamps: Float64s) -> Int32s | None:
        """Units of a pull of nothing but new spikes, as nearly all are; None for another."""
        if not self._are_plain(samples, stamps):
            return None
        return self.table.lookup(*self._columns(samples))

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

    def _columns(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Channel and unit of each sample."""
        unit = samples[:, self._i_unit]
        channel = np.zeros_like(unit) if self._i_channel is None else samples[:, self._i_channel]
        return channel, unit

    def _parse_any(self, samples: np.ndarray, stamps: Float64s) -> Parsed:
        fresh, n_lost = self._fresh(samples, stamps)
        channel, unit = self._columns(samples)
        keep_alive = unit == KEEP_ALIVE_UNIT
        stamped = _is_stamp(stamps)
        good = _is_index(unit) & _is_index(channel) & stamped
        spike = fresh & good
        unit_index = self.table.lookup(
            channel[spike].astype(np.int64), unit[spike].astype(np.int64)
        )
        return Parsed(
            t_s=stamps[spike],
            unit=unit_index,
            count=np.ones(len(unit_index), np.int32),
            keep_alive_s=stamps[keep_alive & fresh & stamped],
            n_invalid=int(np.count_nonzero(fresh & ~good & ~keep_alive)),
            n_duplicate=int(np.count_nonzero(~fresh & ~keep_alive)),
            n_lost=n_lost,
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

    Args:
        labels: key of each channel.
        rate_hz: nominal rate; a bin lasts its inverse.
        array: prefix of the keys.
    """

    def __init__(self, labels: Sequence[str], rate_hz: float, array: str = "") -> None:
        prefix = f"{array}:" if array else ""
        self.keys = [prefix + label for label in labels]
        self.bin_s: float | None = 1.0 / rate_hz

    def parse(self, samples: np.ndarray, stamps: Float64s) -> Parsed:
        """Read a pull: (n, n_units) counts and their (n,) stamps; a bin of no spikes is alive."""
        good = _is_index(samples) & _is_stamp(stamps)[:, None]
        i_bin, unit = np.nonzero(good & (samples > 0))
        return Parsed(
            t_s=stamps[i_bin],
            unit=unit.astype(np.int32),
            count=samples[i_bin, unit].astype(np.int32),
            keep_alive_s=stamps[good.any(axis=1)],
            n_invalid=int(np.count_nonzero(~good)),
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
    event_layout: type[EventLayout] = EventLayout,
) -> Layout:
    """The layout of a stream.

    Args:
        stream: its description.
        labels: its channel labels, where it has any.
        known_keys: the decoder's unit keys.
        array: prefix of the keys.
        event_layout: how spikes are read that come as they happen.

    Raises:
        StreamUnfitError: it is none that we read; the text says what it is and what we read.
    """
    if stream.format in ("string", "undefined"):
        raise _unfit(stream, f"its values are of format {stream.format}")
    if stream.rate_hz > 0:
        named = [label for label in labels if label]
        if len(named) != stream.n_channels or len(set(named)) != len(named):
            raise _unfit(stream, "a stream of counts needs a distinct label on every channel")
        return CountsLayout(labels, stream.rate_hz, array)
    columns = _columns(stream, [label.lower() for label in labels])
    table = KeyTable(known_keys, with_channel=columns[0] is not None, array=array)
    return event_layout(table, *columns)


def _columns(
    stream: StreamDescription, labels: Sequence[str]
) -> tuple[int | None, int, int | None]:
    """Columns of channel, unit and sequence number."""
    n = stream.n_channels
    if stream.type == "SpikeEvents" and n >= 2:
        return 0, 1, None
    if "unit" in labels and set(labels) <= {"channel", "unit", "seq"}:
        i_channel = labels.index("channel") if "channel" in labels else None
        i_seq = labels.index("seq") if "seq" in labels else None
        return i_channel, labels.index("unit"), i_seq
    if any(labels) and len(labels) <= 3 and set(labels) & {"x", "y", "z"}:
        raise _unfit(stream, f"its channels are {', '.join(labels)}")
    by_width: dict[int, tuple[int | None, int, int | None]] = {
        1: (None, 0, None),
        2: (0, 1, None),
        3: (0, 1, 2),
    }
    if n not in by_width:
        raise _unfit(stream, f"it has {n} channels at no regular rate")
    return by_width[n]


def _unfit(stream: StreamDescription, why: str) -> StreamUnfitError:
    return StreamUnfitError(
        f"LSL stream {stream} cannot be read as spikes: {why}. Read are: irregular integers "
        "[unit], [channel, unit] or [channel, unit, seq] (labels tell which); type SpikeEvents "
        "[channel, unit, waveform]; counts at a regular rate with one labelled channel a unit."
    )
