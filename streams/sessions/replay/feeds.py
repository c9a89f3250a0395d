"""Feeds: each says when it is next due, and sends what is due then."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from streams.messages import Float64s, Int32s, SpikeBatch
from streams.sessions.session import Behavior, Trials


class SpikeSink(Protocol):
    """Outlet for spikes."""

    def push(self, t_s: Float64s, key_index: Int32s, complete_until_s: float | None = None) -> None:
        """Publish (n,) spikes, stamps and indices into the unit keys, and where the block ends."""


class CountsSink(Protocol):
    """Outlet for counts."""

    def push(self, counts: Int32s, t_s: float) -> None:
        """Publish the (n_units,) counts for the bin that ends at `t_s`."""


class SamplesSink(Protocol):
    """Outlet for a behavioural signal."""

    def push_many(self, values: Float64s, t_s: Float64s) -> None:
        """Publish (n, d) samples at (n,) stamps."""


class MarkerSink(Protocol):
    """Outlet for markers."""

    def push(self, text: str, t_s: float) -> None:
        """Publish one marker."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Map from the file's time to the clock's.

    Attributes:
        t0_s: when `start_us` is replayed, on the clock.
        start_us: first instant replayed, in the file's microseconds.
        stop_us: last instant replayed.
        speed: file seconds per clock second.
    """

    t0_s: float
    start_us: int
    stop_us: int
    speed: float = 1.0

    @property
    def end_s(self) -> float:
        """Clock time at which `stop_us` is replayed."""
        return self.t0_s + (self.stop_us - self.start_us) * 1e-6 / self.speed

    def stamps_s(self, t_us: np.ndarray) -> Float64s:
        """Return clock seconds for (n,) file microseconds, which need not be whole."""
        stamps: Float64s = self.t0_s + (t_us - self.start_us) * 1e-6 / self.speed
        return stamps

    def file_s(self, t_s: float) -> float:
        """The file's seconds at `t_s` on the clock."""
        return self.start_us * 1e-6 + (t_s - self.t0_s) * self.speed


class Feed(Protocol):
    """One replayed stream."""

    due_s: float
    n_sent: int

    def send(self, t_s: float) -> None:
        """Send everything stamped up to `t_s`; moves `due_s` beyond it, to infinity at the end."""


class BlockGrid:
    """The instants at which an amplifier's program sends: `t0 + k * block`, k = 1, 2, ..."""

    def __init__(self, t0_s: float, block_s: float) -> None:
        self.t0_s = t0_s
        self.block_s = block_s

    def after(self, t_s: float) -> float:
        """Return the first block's end after `t_s`."""
        k = math.floor((t_s - self.t0_s) / self.block_s) + 1
        while self.t0_s + k * self.block_s <= t_s:
            k += 1
        return self.t0_s + max(k, 1) * self.block_s


class SpikeFeed:
    """Spikes, block by block, each with a keep-alive at its end."""

    def __init__(self, sink: SpikeSink, spikes: SpikeBatch, pace: Pace, block_s: float) -> None:
        chosen = _within(spikes.t_us, pace)
        self._sink = sink
        self._unit = spikes.unit[chosen]
        self._stamps_s = pace.stamps_s(spikes.t_us[chosen])
        self._end_s = pace.end_s
        self._blocks = BlockGrid(pace.t0_s, block_s)
        self.due_s = self._blocks.after(pace.t0_s)
        self.n_sent = 0

    def send(self, t_s: float) -> None:
        """Send the spikes up to `t_s`, and that these are all."""
        stop = int(np.searchsorted(self._stamps_s, t_s, side="right"))
        block = slice(self.n_sent, stop)
        self._sink.push(self._stamps_s[block], self._unit[block], t_s)
        self.n_sent = stop
        self.due_s = self._blocks.after(t_s) if t_s < self._end_s else math.inf


class CountsFeed:
    """Counts per unit in the bins `(edge, edge + bin]`, edges at `k * bin` in file time."""

    def __init__(
        self, sink: CountsSink, spikes: SpikeBatch, n_units: int, pace: Pace, bin_us: int
    ) -> None:
        first, last = -(-pace.start_us // bin_us), pace.stop_us // bin_us
        edges_us = np.arange(first, last + 1, dtype=np.int64) * bin_us
        self._sink = sink
        self._spikes = spikes
        self._n_units = n_units
        self._bounds = np.searchsorted(spikes.t_us, edges_us, side="right")
        self._stamps_s = pace.stamps_s(edges_us)[1:]
        self.n_sent = 0
        self.n_spikes = 0
        self.due_s = self._next_s()

    def send(self, t_s: float) -> None:
        """Send the counts for every bin that has ended by `t_s`."""
        while self.due_s <= t_s:
            bounds = slice(self._bounds[self.n_sent], self._bounds[self.n_sent + 1])
            unit, count = self._spikes.unit[bounds], self._spikes.count[bounds]
            counts = np.bincount(unit, weights=count, minlength=self._n_units).astype(np.int32)
            self._sink.push(counts, self.due_s)
            self.n_spikes += int(counts.sum())
            self.n_sent += 1
            self.due_s = self._next_s()

    def _next_s(self) -> float:
        return float(self._stamps_s[self.n_sent]) if self.n_sent < len(self._stamps_s) else math.inf


class SamplesFeed:
    """A behavioural signal at its own stamps, block by block."""

    def __init__(self, sink: SamplesSink, signal: Behavior, pace: Pace, block_s: float) -> None:
        t_us = signal.t_s * 1e6
        chosen = _within(t_us, pace)
        self._sink = sink
        self._values = np.ascontiguousarray(signal.values[chosen])
        self._stamps_s = pace.stamps_s(t_us[chosen])
        self._blocks = BlockGrid(pace.t0_s, block_s)
        self.n_sent = 0
        self.due_s = self._next_s(-math.inf)

    def send(self, t_s: float) -> None:
        """Send the samples up to `t_s`."""
        stop = int(np.searchsorted(self._stamps_s, t_s, side="right"))
        if stop > self.n_sent:
            block = slice(self.n_sent, stop)
            self._sink.push_many(self._values[block], self._stamps_s[block])
            self.n_sent = stop
        self.due_s = self._next_s(t_s)

    def _next_s(self, t_s: float) -> float:
        if self.n_sent == len(self._stamps_s):
            return math.inf
        return self._blocks.after(max(t_s, float(self._stamps_s[self.n_sent])))


class MarkerFeed:
    """Starts and stops of trials, as `trial_start 12` and `trial_stop 12`."""

    def __init__(self, sink: MarkerSink, trials: Trials, pace: Pace) -> None:
        t_us = np.concatenate((trials.start_s, trials.stop_s)) * 1e6
        texts = [f"trial_{what} {i}" for what in ("start", "stop") for i in range(len(trials))]
        chosen = _within(t_us, pace)
        stamps_s = pace.stamps_s(t_us[chosen])
        order = np.argsort(stamps_s, kind="stable")
        self._sink = sink
        self._events = [(float(stamps_s[i]), texts[chosen[i]]) for i in order]
        self.n_sent = 0
        self.due_s = self._next_s()

    def send(self, t_s: float) -> None:
        """Send every marker up to `t_s`."""
        while self.due_s <= t_s:
            self._sink.push(self._events[self.n_sent][1], self.due_s)
            self.n_sent += 1
            self.due_s = self._next_s()

    def _next_s(self) -> float:
        return self._events[self.n_sent][0] if self.n_sent < len(self._events) else math.inf


def _within(t_us: np.ndarray, pace: Pace) -> np.ndarray:
    return np.flatnonzero((t_us >= pace.start_us) & (t_us <= pace.stop_us))
