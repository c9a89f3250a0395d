"""Pull a stream in its own thread: LSL drops samples still unread when a stream ends."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from streams.clock import Clock
from streams.errors import StreamLostError
from streams.lsl.inlets import Inlet
from streams.messages import Float64s

WAIT_S = 0.2
PAUSE_S = 0.002
"""Bounds how often a source is pulled that pushes sample by sample."""


@dataclass(frozen=True, slots=True)
class PulledBlock:
    """Samples from one pull.

    Attributes:
        arrival_s: when, on LSL's clock.
        values: (n, n_channels).
        stamps: (n,) as sent.
    """

    arrival_s: float
    values: np.ndarray
    stamps: Float64s


class Puller(threading.Thread):
    """Pulls an inlet until it is told to end, or the stream ends.

    Args:
        inlet: opened.
        clock: LSL's.
    """

    def __init__(self, inlet: Inlet, clock: Clock) -> None:
        super().__init__(daemon=True, name=f"pull {inlet.description.name}")
        self._inlet, self._clock = inlet, clock
        self._blocks: list[PulledBlock] = []
        self._lock = threading.Lock()
        self._is_to_end = threading.Event()
        self.has_lost = threading.Event()

    def run(self) -> None:
        """Pull."""
        while not self._is_to_end.wait(PAUSE_S):
            try:
                values, stamps = self._inlet.pull(WAIT_S)
            except StreamLostError:
                self.has_lost.set()
                return
            if len(stamps):
                with self._lock:
                    self._blocks.append(PulledBlock(self._clock.now(), values, stamps))

    def take(self) -> list[PulledBlock]:
        """Return the blocks since the last call."""
        with self._lock:
            held, self._blocks = self._blocks, []
        return held

    def end(self) -> None:
        """Stop pulling and close the inlet; what came is still to be taken."""
        self._is_to_end.set()
        self.join()
        self._inlet.close()


def arrival_stamps(block: PulledBlock, rate_hz: float) -> Float64s:
    """Make (n,) stamps from the arrival time: a regular stream's lie even steps before it."""
    n = len(block.stamps)
    if not rate_hz:
        return np.full(n, block.arrival_s)
    stamps: Float64s = block.arrival_s - np.arange(n - 1, -1, -1) / rate_hz
    return stamps
