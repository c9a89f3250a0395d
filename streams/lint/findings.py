"""A stream as it was heard, findings about it, and what its owner should change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from streams.clock import OffsetEstimate
from streams.lsl.description import StreamDescription
from streams.messages import Float64s

Level = Literal["good", "warn", "stop"]
Number = float | int | str | list[str] | None
LEVELS: tuple[Level, ...] = ("good", "warn", "stop")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: good; warn: worth a change; stop: `serve` refuses the stream or flags its decodes.
        what: it is.
        found: what was found.
        change: what to change, "" where nothing.
        numbers: what was measured, by name; units are in the names.
        is_unfit: whether no decoder can read the stream at all.
    """

    level: Level
    what: str
    found: str
    change: str = ""
    numbers: Mapping[str, Number] = field(default_factory=dict)
    is_unfit: bool = False


def graded(
    what: str,
    found: str,
    change: str,
    numbers: Mapping[str, Number] | None = None,
    *,
    warn: object = False,
    stop: object = False,
) -> Finding:
    """Judge by the worst condition that holds; nothing is to be changed where none does."""
    level: Level = "stop" if stop else "warn" if warn else "good"
    return Finding(level, what, found, change if level != "good" else "", numbers or {})


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was found in one stream.

    Attributes:
        stream: its description.
        kind: spikes, counts, markers, position or other.
        seconds: listened to.
        n_samples: that came.
        findings: in the order in which they are shown.
    """

    stream: StreamDescription
    kind: str
    seconds: float
    n_samples: int
    findings: Sequence[Finding]

    @property
    def worst(self) -> Level:
        """Worst level among the findings."""
        return max((one.level for one in self.findings), key=LEVELS.index, default="good")

    @property
    def is_unfit(self) -> bool:
        """True if no decoder can read the stream at all."""
        return any(one.is_unfit for one in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return one JSON object; `measured` holds all numbers that were found."""
        measured: dict[str, Number] = {}
        for one in self.findings:
            measured |= one.numbers
        names = ("name", "type", "source_id", "hostname", "n_channels", "rate_hz", "format")
        return {
            "stream": {name: getattr(self.stream, name) for name in names},
            "kind": self.kind,
            "seconds": round(self.seconds, 3),
            "samples": self.n_samples,
            "worst": self.worst,
            "unfit": self.is_unfit,
            "measured": measured,
            "findings": [
                {"level": one.level, "what": one.what, "found": one.found, "change": one.change}
                for one in self.findings
            ],
        }


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
