"""Targets that the subject acquires while a wizard runs, and from when on a decoder moves it."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from itertools import pairwise

from streams.clock import MonotonicClock
from streams.lsl.inlets import find_inlet
from streams.simulation.control import block_of
from streams.wire.client import DaemonClient

WINDOW_S = 30.0
"""A rate is that of so long a time: of targets 2 s apart, 15 or so."""
_I_ACQUIRED = 4


def acquired(row: Sequence[float]) -> float:
    """Return how many targets were acquired so far, by a sample of the subject's cursor stream."""
    return float(row[_I_ACQUIRED])


class DrivenTargets:
    """Listens to the subject's cursor and to the daemon's events.

    Args:
        name: of the subject's streams.
        control: the daemon's control endpoint.

    Attributes:
        t_driven_s: when a decoder moved the cursor first; infinite while none did.
        n_swaps: exchanges of tables.
    """

    def __init__(self, name: str, control: str) -> None:
        self._name, self._control = name, control
        self.t_driven_s, self.n_swaps = math.inf, 0
        self._acquired_s: list[float] = []
        self._assisted: list[tuple[float, float]] = []

    def listen(self, ending: threading.Event) -> None:
        """Listen until the end."""
        clock = MonotonicClock()
        inlet = find_inlet("Position", name=f"{self._name}-cursor", timeout_s=30.0)
        events, n_before = DaemonClient(self._control).subscribe(("event",)), math.inf
        inlet.open()
        try:
            while not ending.is_set():
                while (received := events.receive(0.0)) is not None:
                    self._take(received[1], clock.now())
                samples, stamps = inlet.pull(0.2)
                for row, t_s in zip(samples, stamps, strict=True):
                    if (n := acquired(row)) > n_before:
                        self._acquired_s.append(float(t_s))
                    n_before = n
        finally:
            inlet.close()
            events.close()

    def since(self, t_begun_s: float) -> float | None:
        """Seconds until a decoder moved the cursor; None where none did."""
        return None if math.isinf(self.t_driven_s) else self.t_driven_s - t_begun_s

    def reaches(self, per_min: float, t_begun_s: float) -> float | None:
        """Seconds until the rate of the next `WINDOW_S` is so high for the first time, driven."""
        wanted = per_min * WINDOW_S / 60.0
        driven = [t_s for t_s in self._acquired_s if t_s >= self.t_driven_s]
        begins = [self.t_driven_s, *driven]
        for begin_s in begins:
            n = sum(begin_s < t_s <= begin_s + WINDOW_S for t_s in driven)
            if n >= wanted:
                return begin_s - t_begun_s
        return None

    def assistance(self, from_s: float, t_begun_s: float) -> float:
        """The task's mean share in the cursor's velocity over the window that begins there."""
        begin_s = t_begun_s + from_s
        end_s, share = begin_s + WINDOW_S, 0.0
        changes = [*self._assisted, (math.inf, 0.0)]
        for (t_s, assist), (t_next_s, _) in pairwise(changes):
            share += assist * max(0.0, min(t_next_s, end_s) - max(t_s, begin_s))
        return share / WINDOW_S

    def _take(self, event: dict[str, object], t_s: float) -> None:
        self.n_swaps += event["event"] == "tables_swapped"
        block = block_of(event)
        if block is not None and block.kind == "closed-loop":
            self.t_driven_s = min(self.t_driven_s, t_s)
            self._assisted.append((t_s, block.assist))
