"""A laboratory of somebody else: outlets made by pylsl alone, stamped and labelled as it likes."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pylsl

from tests.system.running import clock

STEP_S = 0.01
STEPS_PER_TRIAL = 50
STEPS_MOVING = 40
Stamp = Callable[[float], float]


def as_it_is(t_s: float) -> float:
    """LSL's clock."""
    return t_s


class Rig(threading.Thread):
    """Spikes of 24 units, markers and a cursor on LSL, in a thread, until it is closed.

    Args:
        name: of the streams; `-m` and `-c` are appended for markers and cursor.
        spikes, markers, position: the stamp that each stream gives to a time.
        labels: of the cursor's channels.
        marker_format: of the markers; numbers are 1 and 2.
    """

    def __init__(
        self,
        name: str,
        *,
        spikes: Stamp = as_it_is,
        markers: Stamp = as_it_is,
        position: Stamp = as_it_is,
        labels: Sequence[str] = ("cursor_x", "cursor_y"),
        marker_format: str = "string",
    ) -> None:
        super().__init__(daemon=True)
        self.name_ = name
        self._stamps = (spikes, markers, position)
        self._marker_format = marker_format
        self._spikes: pylsl.StreamOutlet | None = self._spike_outlet(name)
        self._markers = _outlet(f"{name}-m", "Markers", ("marker",), marker_format)
        self._cursor = _outlet(f"{name}-c", "Position", labels, "float32")
        self._rng = np.random.default_rng(3)
        self._ending, self._lock = threading.Event(), threading.Lock()

    def run(self) -> None:
        """Step by step."""
        t0_s, i = clock.now(), 0
        while not self._ending.is_set():
            t_s = t0_s + (i + 1) * STEP_S
            clock.sleep_until(t_s)
            self._step(i, t_s)
            i += 1

    def take_spikes_away(self) -> None:
        """End the outlet of the spikes."""
        with self._lock:
            self._spikes = None

    def bring_spikes_back(self, source_id: str) -> None:
        """Make it anew, of the same name."""
        with self._lock:
            self._spikes = self._spike_outlet(source_id)

    def close(self) -> None:
        """Take the streams off the network."""
        self._ending.set()
        self.join()
        self._spikes = self._markers = self._cursor = None

    def _spike_outlet(self, source_id: str) -> pylsl.StreamOutlet:
        return _outlet(self.name_, "Spikes", ("channel", "unit"), "int32", source_id)

    def _step(self, i: int, t_s: float) -> None:
        spikes, markers, position = self._stamps
        trial, k = divmod(i, STEPS_PER_TRIAL)
        angle, share = 2.0 * math.pi * trial / 8, math.sin(math.pi * k / STEPS_PER_TRIAL) ** 2
        where = np.array([8.0 * share * math.cos(angle), 8.0 * share * math.sin(angle)])
        self._cursor.push_sample(where.astype(np.float32), position(t_s))
        if k in (0, STEPS_MOVING):
            self._mark(trial, k == 0, markers(t_s))
        n = self._rng.poisson(2.0)
        at_s = np.sort(t_s - STEP_S * self._rng.random(n))
        rows = np.stack([self._rng.integers(1, 25, n), np.ones(n)], axis=1).astype(np.int32)
        with self._lock:
            if n and self._spikes is not None:
                self._spikes.push_chunk(rows, [spikes(one) for one in at_s])

    def _mark(self, trial: int, is_start: bool, stamp: float) -> None:
        if self._marker_format != "string":
            self._markers.push_sample([1 if is_start else 2], stamp)
        else:
            self._markers.push_sample([f"trial_{'start' if is_start else 'stop'} {trial}"], stamp)


def _outlet(name: str, kind: str, labels: Sequence[str], fmt: str, source_id: str = "") -> Any:
    info = pylsl.StreamInfo(name, kind, len(labels), 0.0, fmt, source_id or name)
    info.set_channel_labels(list(labels))
    if kind == "Position":
        info.set_channel_units(["cm"] * len(labels))
    return pylsl.StreamOutlet(info)
