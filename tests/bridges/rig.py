"""A bridge under test: an emulator on one side, and an LSL inlet on the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pylsl

from streams.bridges.blocks import Source
from streams.bridges.bridge import Bridge, Passed, run_bridge
from streams.clock import MonotonicClock
from streams.lsl.outlets import SpikeOutlet
from streams.messages import Float64s, Int32s
from tests.system.running import unique, wait_until

clock = MonotonicClock()


class Rig:
    """Runs a bridge in a thread and keeps what it publishes.

    Args:
        source: is closed with the rig.
    """

    def __init__(self, source: Source) -> None:
        name = unique("bridge")
        outlet = SpikeOutlet(name, name, ["ch0/u0"])
        self._inlet = pylsl.StreamInlet(pylsl.resolve_byprop("name", name, 1, 10)[0])
        self._inlet.open_stream(10)
        assert outlet.wait_for_consumers(10)
        self.bridge, self.told = Bridge(outlet), list[str]()
        self._samples: list[list[int]] = []
        self._stamps: list[float] = []
        self.received_s: list[float] = []
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._running = self._pool.submit(
            run_bridge, source, self.bridge, clock, self._stop.is_set, self.told.append
        )

    @property
    def passed(self) -> Passed:
        return self.bridge.passed

    def pull(self) -> None:
        """Take in what was published."""
        samples, stamps = self._inlet.pull_chunk(0.0, 4096)
        self._samples += samples
        self._stamps += stamps
        self.received_s += [clock.now()] * len(stamps)

    def until(self, condition: Callable[[], object]) -> None:
        """Pull until the condition holds."""
        wait_until(condition, self.pull)

    @property
    def stamps(self) -> Float64s:
        """(n,) stamps of the spikes."""
        return np.array(self._stamps)[self._ids[:, 1] >= 0]

    @property
    def ids(self) -> Int32s:
        """(n, 2) channel and unit of the spikes."""
        return self._ids[self._ids[:, 1] >= 0]

    @property
    def watermarks(self) -> Float64s:
        """(n,) stamps of the keep-alives."""
        return np.array(self._stamps)[self._ids[:, 1] < 0]

    @property
    def _ids(self) -> Int32s:
        return np.array(self._samples, np.int32).reshape(-1, 3)[:, :2]

    @property
    def seq(self) -> Int32s:
        """(n,) sequence numbers of all samples."""
        return np.array(self._samples, np.int32).reshape(-1, 3)[:, 2]

    def n_behind(self) -> int:
        """How many spikes left stamped at or behind a watermark that left before them."""
        stamps, is_alive = np.array(self._stamps), self._ids[:, 1] < 0
        so_far = np.maximum.accumulate(np.where(is_alive, stamps, -np.inf))
        return int(np.sum(~is_alive & (stamps <= so_far)))

    def close(self) -> None:
        self._stop.set()
        self._pool.shutdown()
        self._inlet.close_stream()
        self._running.result()
