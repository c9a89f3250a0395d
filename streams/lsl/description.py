"""Description of an LSL stream, the keep-alive sample, and markers as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

KEEP_ALIVE_UNIT = -1
"""A sample with this unit says that the source is alive and silent."""
KEEP_ALIVE_EVERY_S = 0.05
SIMULATED = "simulated"
"""Element of a stream's `desc` that says `true` where a program makes the spikes up."""


@dataclass(frozen=True, slots=True)
class StreamDescription:
    """A stream as its sender describes it.

    `simulated` is only known of a stream that is opened: the sender says in the stream's `desc`
    that nobody's neurons are behind it.
    """

    name: str
    type: str
    source_id: str
    hostname: str
    n_channels: int
    rate_hz: float
    format: str
    uid: str
    simulated: bool = False

    def __str__(self) -> str:
        rate = f"{self.rate_hz:g} Hz" if self.rate_hz else "irregular"
        return (
            f"{self.name!r} (type {self.type}, {self.n_channels} x {self.format}, {rate}, "
            f"source_id {self.source_id!r}, host {self.hostname})"
            f"{', SIMULATED' if self.simulated else ''}"
        )


def marker_text(value: Any) -> str:
    """A marker as text: `trial_start`; numbers as `7`, `0.5`, and `7` for 7.0 too."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() else str(value)
