"""A stream as it came for some seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from streams.clock import OffsetEstimate
from streams.lsl.description import StreamDescription
from streams.messages import Float64s


@dataclass(frozen=True, slots=True)
class Heard:
    """Samples in order of arrival.

    Attributes:
        description: the sender's description.
        labels: the channels' labels, "" where a channel has none.
        values: (n, n_channels), in the stream's own type; text as bytes.
        stamps_s: (n,) as sent, on the sender's clock.
        arrived_s: (n,) on our LSL clock.
        seconds: listened to.
        offset: from the sender's clock to ours; None where it could not be measured.
        same_host: whether the sender runs on this machine.
        has_ended: whether the stream ended while we listened.
        trouble: why it could not be opened, "" where it was.
    """

    description: StreamDescription
    labels: tuple[str, ...]
    values: np.ndarray
    stamps_s: Float64s
    arrived_s: Float64s
    seconds: float
    offset: OffsetEstimate | None = field(default_factory=lambda: OffsetEstimate(0.0, 0.0, 0.0))
    same_host: bool = True
    has_ended: bool = False
    trouble: str = ""

    def __len__(self) -> int:
        return len(self.stamps_s)

    @property
    def age_s(self) -> Float64s:
        """(n,) arrival - stamp, the stamp brought to our clock; NaN where a stamp is NaN."""
        offset_s = self.offset.offset_s if self.offset else 0.0
        return self.arrived_s - (self.stamps_s + offset_s)
