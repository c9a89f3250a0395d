"""Feeds: each says when it is next due, and sends what is due then."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from streams.lsl.outlets import CountsOutlet, MarkerOutlet, SpikeOutlet, ValuesOutlet
from streams.messages import Float64s, SpikeBatch
from streams.sessions.session import Behavior, Trials


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


class Feed:
    """One replayed stream: its entries leave once their stamps have passed.

    Args:
        what: "spikes", "counts", "samples" or "markers".
        stamps_s: (n,) increasing, on the clock.
        push: sends the entries of a slice, which are all up to the time given.
        blocks: when entries may leave; None: each at its own stamp.
        until_s: every block is sent until then, also one without entries; None: none without.
        n_each: (n,) spikes that each entry stands for; None for none.

    Attributes:
        due_s: when to send next; infinity at the end.
        n_sent: entries so far.
    """

    def __init__(
        self,
        what: str,
        stamps_s: Float64s,
        push: Callable[[slice, float], None],
        blocks: BlockGrid | None = None,
        until_s: float | None = None,
        n_each: np.ndarray | None = None,
    ) -> None:
        self.what = what
        self._stamps_s, self._push, self._blocks = stamps_s, push, blocks
        self._until_s, self._n_each = until_s, n_each
        self.n_sent = 0
        self.due_s = self._next_s(-math.inf if blocks is None else blocks.t0_s)

    @property
    def n_spikes(self) -> int:
        """Spikes in what was sent."""
        return 0 if self._n_each is None else int(self._n_each[: self.n_sent].sum())

    def send(self, t_s: float) -> None:
        """Send everything stamped up to `t_s`."""
        stop = int(np.searchsorted(self._stamps_s, t_s, side="right"))
        self._push(slice(self.n_sent, stop), t_s)
        self.n_sent = stop
        self.due_s = self._next_s(t_s)

    def _next_s(self, t_s: float) -> float:
        if self._blocks is not None and self._until_s is not None:
            return self._blocks.after(t_s) if t_s < self._until_s else math.inf
        if self.n_sent == len(self._stamps_s):
            return math.inf
        stamp_s = float(self._stamps_s[self.n_sent])
        return stamp_s if self._blocks is None else self._blocks.after(max(t_s, stamp_s))


def spike_feed(outlet: SpikeOutlet, spikes: SpikeBatch, block_s: float, pace: Pace) -> Feed:
    """Spikes, block by block, each with a keep-alive at its end."""
    chosen = _within(spikes.t_us, pace)
    unit, stamps_s = spikes.unit[chosen], pace.stamps_s(spikes.t_us[chosen])

    def push(block: slice, t_s: float) -> None:
        outlet.push(stamps_s[block], unit[block], t_s)

    blocks, n_each = BlockGrid(pace.t0_s, block_s), np.ones(len(unit), np.int64)
    return Feed("spikes", stamps_s, push, blocks, pace.end_s, n_each)


def counts_feed(
    outlet: CountsOutlet, spikes: SpikeBatch, n_units: int, bin_us: int, pace: Pace
) -> Feed:
    """Counts per unit in the bins `(edge, edge + bin]`, edges at `k * bin` in file time."""
    first, last = -(-pace.start_us // bin_us), pace.stop_us // bin_us
    edges_us = np.arange(first, last + 1, dtype=np.int64) * bin_us
    bounds = np.searchsorted(spikes.t_us, edges_us, side="right")
    stamps_s = pace.stamps_s(edges_us)[1:]

    def push(bins: slice, t_s: float) -> None:
        for i in range(bins.start, bins.stop):
            held = slice(bounds[i], bounds[i + 1])
            counts = np.bincount(spikes.unit[held], spikes.count[held], n_units)
            outlet.push(counts.astype(np.int32), float(stamps_s[i]))

    n_each = np.diff(np.concatenate(([0], np.cumsum(spikes.count)))[bounds])
    return Feed("counts", stamps_s, push, n_each=n_each)


def samples_feed(outlet: ValuesOutlet, signal: Behavior, block_s: float, pace: Pace) -> Feed:
    """A behavioural signal at its own stamps, block by block."""
    t_us = signal.t_s * 1e6
    chosen = _within(t_us, pace)
    values, stamps_s = np.ascontiguousarray(signal.values[chosen]), pace.stamps_s(t_us[chosen])

    def push(block: slice, t_s: float) -> None:
        outlet.push_many(values[block], stamps_s[block])

    return Feed("samples", stamps_s, push, BlockGrid(pace.t0_s, block_s))


def marker_feed(outlet: MarkerOutlet, trials: Trials, pace: Pace) -> Feed:
    """Starts and stops of trials, as `trial_start 12` and `trial_stop 12`."""
    t_us = np.concatenate((trials.start_s, trials.stop_s)) * 1e6
    texts = [f"trial_{what} {i}" for what in ("start", "stop") for i in range(len(trials))]
    chosen = _within(t_us, pace)
    chosen = chosen[np.argsort(t_us[chosen], kind="stable")]
    stamps_s = pace.stamps_s(t_us[chosen])

    def push(markers: slice, t_s: float) -> None:
        for i, stamp_s in zip(chosen[markers], stamps_s[markers], strict=True):
            outlet.push(texts[i], float(stamp_s))

    return Feed("markers", stamps_s, push)


def _within(t_us: np.ndarray, pace: Pace) -> np.ndarray:
    return np.flatnonzero((t_us >= pace.start_us) & (t_us <= pace.stop_us))
