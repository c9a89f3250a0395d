"""Counts layout: one channel a unit, one sample a bin, at a regular rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streams.errors import LayoutError
from streams.lsl.description import StreamDescription
from streams.messages import Float64s
from streams.spikes.layouts.layout import (
    IgnoredUnits,
    LayoutOptions,
    Parsed,
    are_indices,
    are_stamps,
)

NAMED_AT_MOST = 5


class CountsLayout:
    """Counts per unit at a regular rate, stamped at their bin's end.

    Attributes:
        keys: key of each unit met so far; it only grows.
        keys_now: a key for each channel that is read.
        bin_s: bin length.
        has_sequence: False; counts are not numbered.

    Args:
        labels: a label for each channel; a unit's key, after the array's prefix.
        rate_hz: nominal rate; a bin lasts its inverse.
        array: prefix for the keys.
        ignored: labels to leave out.
    """

    has_sequence = False

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

    def resume(self, before: CountsLayout, known_keys: Sequence[str]) -> None:
        """Go on with the indices from before the stream was lost, and add the labels that are new.

        Raises:
            LayoutError: its bins have another length, or it lacks channels that the decoder knows.
        """
        if before.bin_s != self.bin_s:
            raise LayoutError(f"it came back with bins of {self.bin_s:g} s")
        now, known = set(self.keys_now), set(known_keys)
        gone = [key for key in before.keys_now if key in known and key not in now]
        if gone:
            named = ", ".join(gone[:NAMED_AT_MOST]) + (" ..." if len(gone) > NAMED_AT_MOST else "")
            raise LayoutError(f"it came back without the channels {named}")
        # The list itself goes on: decoder and source hold it.
        keys, place = before.keys, {key: i for i, key in enumerate(before.keys)}
        for key in self.keys_now:
            if key not in place:
                place[key] = len(keys)
                keys.append(key)
        self.keys = keys
        self._index = np.array([place[key] for key in self.keys_now], np.int32)

    def parse(self, samples: np.ndarray, stamps: Float64s) -> Parsed:
        """Read a pull: (n, n_units) counts and their (n,) stamps; a bin without spikes is alive."""
        samples = samples[:, self._columns]
        good = are_indices(samples) & are_stamps(stamps)[:, None]
        # One sound value is enough to know that the source lives.
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


def open_counts(
    stream: StreamDescription, labels: Sequence[str], options: LayoutOptions
) -> CountsLayout:
    """Take every labelled channel for a unit.

    Raises:
        LayoutError: labels are missing or not distinct.
    """
    if options.columns:
        raise LayoutError("`columns` is for events, and it has a regular rate")
    named = [label for label in labels if label]
    if len(named) != stream.n_channels or len(set(named)) != len(named):
        raise LayoutError("a stream of counts needs a distinct label on every channel")
    ignored = IgnoredUnits(options.ignore_units)
    return CountsLayout(labels, stream.rate_hz, options.array, ignored)
