"""The contract for input layouts, and what every layout shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from streams.errors import StreamsError
from streams.messages import Float64s, Int32s, Repeats
from streams.spikes.kernels.choose import NUMPY, Kernels
from streams.unit_keys import parse_key


@dataclass(frozen=True, slots=True)
class Parsed:
    """A pull, read.

    Attributes:
        t_s: (n,) stamps as sent, one per spike entry.
        unit: (n,) index into the layout's keys.
        count: (n,) spikes that the entry stands for.
        keep_alive_s: (m,) stamps of keep-alives, and of count bins.
        invalid_s: (l,) stamps for spikes that are none (NaN, negative, no whole number).
        n_duplicate: spikes whose sequence number came before.
        n_lost: sequence numbers that never came.
        n_ignored: spikes from units that the config leaves out.
        repeats: what an equal unit and stamp mean here.
        is_whole: (m,) whether every value in a count bin is a count; None for events.
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


class Layout(Protocol):
    """Reads one stream's samples.

    Attributes:
        keys: key of each unit met so far; the list only grows.
        bin_s: length of a count bin; None where spikes come as they happen.
        has_sequence: whether the samples are numbered.
    """

    bin_s: float | None
    has_sequence: bool

    @property
    def keys(self) -> list[str]:
        """See above."""

    def parse(self, samples: np.ndarray, stamps: Float64s) -> Parsed:
        """Read a pull: (n, n_channels) samples and their (n,) stamps."""

    def resume(self, before: Self, known_keys: Sequence[str]) -> None:
        """Take over the keys from before the same stream was lost.

        Args:
            before: the layout until then.
            known_keys: the decoder's unit keys.

        Raises:
            LayoutError: the stream came back as another one.
        """


@dataclass(frozen=True, slots=True)
class LayoutOptions:
    """Choices for reading a stream.

    Attributes:
        known_keys: the decoder's unit keys.
        array: prefix for the keys.
        columns: `[input] columns`, see `columns_of`.
        ignore_units: unit numbers on any channel, keys (`ch3/u0`) or labels to leave out.
        kernels: functions that do the arithmetic.
    """

    known_keys: Sequence[str] = ()
    array: str = ""
    columns: Sequence[str] = ()
    ignore_units: Sequence[int | str] = ()
    kernels: Kernels = NUMPY


class IgnoredUnits:
    """Units that the config leaves out: unit numbers on any channel, or whole keys."""

    def __init__(self, ignored: Sequence[int | str] = ()) -> None:
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


def are_stamps(stamps: Float64s) -> np.ndarray:
    """Return (n,) bool, True for finite stamps above 0."""
    found: np.ndarray = np.isfinite(stamps) & (stamps > 0)
    return found


def are_indices(values: np.ndarray) -> np.ndarray:
    """Return True for whole numbers that can name or count: from 0, and an int32 holds them."""
    if np.issubdtype(values.dtype, np.integer):
        return (values >= 0) & (values < 2**31)
    found: np.ndarray = (
        np.isfinite(values) & (values >= 0) & (values < 2**31) & (values == np.floor(values))
    )
    return found
