"""Streams to record: found, pulled in threads of their own, and looked for again when away."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Event, Thread

import numpy as np

from streams.clock import Clock
from streams.errors import StreamAbsentError, StreamAmbiguousError, StreamLostError
from streams.lsl.inlets import Inlet, find_inlet
from streams.messages import Float64s

LOOK_FOR_S = 5.0
PAUSE_S = 1.0
WAIT_S = 0.2
PAUSE_S = 0.002
"""Bounds how often a source is pulled that pushes sample by sample."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A stream to record; "" matches any name, source_id or host."""

    type: str
    name: str = ""
    source_id: str = ""
    hostname: str = ""
    budget_per_s: float = 50_000.0


def find_all(wanted: Sequence[Wanted], wait_s: float) -> list[Inlet]:
    """Find an inlet for each, all at the same time.

    Raises:
        StreamAbsentError, StreamAmbiguousError: a stream is not there, or there several times.
    """
    with ThreadPoolExecutor(len(wanted)) as together:
        return list(together.map(lambda one: _find(one, one.source_id, wait_s), wanted))


def layout_of_inlet(inlet: Inlet) -> tuple[object, ...]:
    """Return everything that must be the same if a stream is the one that went away."""
    what = inlet.description
    return (inlet.labels, what.n_channels, what.format, what.rate_hz)


class Search(Thread):
    """Looks for a stream until it is there, whatever its new `source_id`.

    Args:
        wanted: what was asked for.
        lost: the inlet that ended.

    Attributes:
        remarks: what is to be said, each once.
    """

    def __init__(self, wanted: Wanted, lost: Inlet) -> None:
        super().__init__(daemon=True, name=f"look for {lost.description.name}")
        self._wanted = replace(wanted, name=wanted.name or lost.description.name, source_id="")
        self._source_id = lost.description.source_id
        self._layout = layout_of_inlet(lost)
        self._is_to_end = Event()
        self._found: Inlet | None = None
        self.remarks: list[str] = []
        self._said: set[str] = set()
        self.start()

    def found(self) -> Inlet | None:
        """The stream, opened, once it is there again."""
        return self._found

    def end(self) -> None:
        """Stop looking."""
        self._is_to_end.set()

    def run(self) -> None:
        """Look."""
        while self._found is None and not self._is_to_end.is_set():
            try:
                inlet = self._look_once()
                if layout_of_inlet(inlet) == self._layout:
                    inlet.open()
                    self._found = inlet
                    return
                self._remark(
                    f"{inlet.description} is there, with other channels than before "
                    f"({', '.join(inlet.labels) or 'unnamed'}): it is not recorded"
                )
            except StreamAbsentError:
                continue
            except StreamAmbiguousError as err:
                self._remark(f"{err} None of them is recorded until one alone is there.")
            self._is_to_end.wait(PAUSE_S)

    def _look_once(self) -> Inlet:
        try:
            return _find(self._wanted, "", LOOK_FOR_S)
        except StreamAmbiguousError:
            if not self._source_id:
                raise
            return _find(self._wanted, self._source_id, LOOK_FOR_S)

    def _remark(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.remarks.append(text)


def _find(wanted: Wanted, source_id: str, wait_s: float) -> Inlet:
    return find_inlet(
        wanted.type,
        name=wanted.name,
        source_id=source_id,
        hostname=wanted.hostname,
        budget_per_s=wanted.budget_per_s,
        timeout_s=wait_s,
        recover=False,
    )


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
