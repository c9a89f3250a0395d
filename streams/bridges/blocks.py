"""Blocks of a device's spikes, handed out by a source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from streams.messages import Float64s, Int32s


@dataclass(frozen=True, slots=True)
class Block:
    """Spikes that came together.

    Attributes:
        t_s: (n,) times of the spikes, seconds on the device's clock.
        ids: (n, 2) channel and unit of each.
        device_s: the newest device time that the block tells of; None where it tells none.
        arrived_s: when that came, on LSL's clock.
        complete_until_s: no spike with this device time or an earlier one is still to come; None
            where that is not known.
        n_lost: messages that never came, by the device's own numbers.
        n_refused: messages that could not be read.
        is_restart: True if the device is known to have begun anew before this block.
    """

    t_s: Float64s
    ids: Int32s
    device_s: float | None
    arrived_s: float
    complete_until_s: float | None = None
    n_lost: int = 0
    n_refused: int = 0
    is_restart: bool = False


class Source(Protocol):
    """Reads a device's protocol; connects, and connects again, by itself.

    Attributes:
        warnings: what an operator should know; whoever reads it takes it out.
    """

    warnings: list[str]

    def read(self, timeout_s: float) -> Sequence[Block]:
        """Wait for what comes, at most so long, and return it; empty where nothing came."""

    def close(self) -> None:
        """Hang up."""
