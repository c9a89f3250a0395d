"""Losses in a recording: outages, samples that never came, stamps from other clocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from streams.errors import StreamUnfitError
from streams.lsl.description import StreamDescription
from streams.lsl.stamp_check import how_far_off, is_other_clock, require_lsl_clock
from streams.messages import Float64s
from streams.spikes.layouts.columns import KNOWN_LABELS
from streams.spikes.sequence import SequenceCheck

START_S = 15.0
"""Stamps from another clock are refused so early, and later counted."""


@dataclass(slots=True)
class Outage:
    """A time in which a stream was away.

    Attributes:
        stream: its name.
        from_s: its last sample before, in recording seconds.
        to_s: its first sample after; None where none came.
        n_samples: how many never came, by their sequence numbers; None where that is not known.
    """

    stream: str
    from_s: float
    to_s: float | None = None
    n_samples: int | None = None

    def __str__(self) -> str:
        many = "how many samples is not known"
        if self.n_samples is not None:
            many = f"{self.n_samples} samples by its sequence numbers"
        if self.to_s is None:
            return f"{self.stream!r} was lost at {self.from_s:.2f} s, and nothing came of it after"
        return (
            f"{self.stream!r} was away from {self.from_s:.2f} s to {self.to_s:.2f} s "
            f"({self.to_s - self.from_s:.2f} s): what it sent meanwhile is lost ({many})"
        )

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return asdict(self) | {"says": str(self)}


class SequenceCount:
    """Counts samples that never came, by the channel that numbers them; over outages, too.

    Args:
        labels: the channels' labels.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        found = [i for i, label in enumerate(labels) if label.lower() in KNOWN_LABELS["seq"]]
        self._i_seq = found[0] if len(found) == 1 else None
        self._check = SequenceCheck()
        self._newest = -1
        self.n_lost = 0
        self.has_begun_anew = False

    @property
    def is_there(self) -> bool:
        """True if the stream numbers its samples."""
        return self._i_seq is not None

    def add(self, values: np.ndarray, arrival_s: float) -> None:
        """Add (n, n_channels) samples that all came at `arrival_s`."""
        if self._i_seq is None or values.dtype.kind not in "iuf":
            return
        seq = values[:, self._i_seq]
        seq = seq[np.isfinite(seq) & (seq >= 0)].astype(np.int64)
        if not len(seq):
            return
        self.has_begun_anew |= bool(seq[0] < self._newest)
        self._newest = int(seq[-1])
        self.n_lost += self._check.fresh(seq, np.full(len(seq), arrival_s))[1]


class StampWatch:
    """Watches that stamps are LSL's: at the start a condition, later counted.

    Attributes:
        n_off: samples with another clock's stamps.
        n_unchecked: samples that came before their sender's clock was measured.
    """

    def __init__(self, stream: StreamDescription, t_start_s: float) -> None:
        self._stream, self._t_start_s = stream, t_start_s
        self._waiting: list[Float64s] = []
        self._is_off = False
        self._is_new = True
        self.n_off = 0

    @property
    def n_unchecked(self) -> int:
        """Samples whose stamps could not be judged yet."""
        return sum(map(len, self._waiting))

    def add(self, stamps: Float64s, arrival_s: float, offset_s: float | None) -> str:
        """Add a pull's stamps; return a remark about them, "" for none.

        Args:
            stamps: (n,) as sent.
            arrival_s: when they came.
            offset_s: the sender's clock offset; None while it is not known.

        Raises:
            StreamUnfitError: the recording has just begun, and they are another clock's.
        """
        self._waiting.append(arrival_s - stamps)
        if offset_s is None or not self.n_unchecked:
            return ""
        age_s = np.concatenate(self._waiting) - offset_s
        self._waiting = []
        if self._is_new and arrival_s < self._t_start_s + START_S:
            self._require(age_s)
        self._is_new = False
        age = float(np.median(age_s))
        was_off, self._is_off = self._is_off, is_other_clock(age)
        self.n_off += len(age_s) if self._is_off else 0
        if self._is_off and not was_off:
            return f"the stamps of {self._stream.name!r} left LSL's clock: {how_far_off(age)}"
        if was_off and not self._is_off:
            return f"the stamps of {self._stream.name!r} are of LSL's clock again"
        return ""

    def _require(self, age_s: Float64s) -> None:
        try:
            require_lsl_clock(str(self._stream), age_s)
        except StreamUnfitError as err:
            raise StreamUnfitError(
                f"{err} (for `spikeloop record` that is `--stamps arrival`). Nothing is recorded"
            ) from err
