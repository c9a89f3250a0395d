"""The bridge: blocks of a device go in, a stream of spikes on LSL comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from streams.bridges.blocks import Block, Source
from streams.bridges.device_clock import DeviceClock
from streams.clock import Clock
from streams.lsl.outlets import SpikeOutlet
from streams.messages import Float64s

READ_WAIT_S = 0.05
SILENT_S = 3.0
TELL_EVERY_S = 60.0
UNEVEN_AFTER = 3
UNEVEN = (
    "the device's clock began anew time and again: does it run as fast as this computer's? "
    "A time that is counted instead of read off a clock does not"
)


@dataclass(slots=True)
class Passed:
    """Counts of what passed a bridge so far.

    Attributes:
        n_in: spikes that the device sent.
        n_out: spikes that left.
        n_lost: messages that never came.
        n_refused: messages that could not be read.
        n_behind: spikes that left behind a watermark: the daemon waits for such, once it knows.
        n_dropped: spikes whose time could never be told, as the device began anew.
        n_restarts: how often the device's clock began anew.
    """

    n_in: int = 0
    n_out: int = 0
    n_lost: int = 0
    n_refused: int = 0
    n_behind: int = 0
    n_dropped: int = 0
    n_restarts: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)


class Bridge:
    """Stamps a device's blocks with LSL's time and publishes them.

    Args:
        outlet: its keys are of the form `ch<c>/u<u>`.
        delay_s: the shortest way from electrode to us, where it was measured: stamps are set back
            by it.
    """

    def __init__(self, outlet: SpikeOutlet, delay_s: float = 0.0) -> None:
        self._outlet, self._delay_s = outlet, delay_s
        self.clock, self.passed = DeviceClock(), Passed()
        self._held: list[Block] = []
        self._complete_s = self._watermark_s = -np.inf

    def forward(self, block: Block) -> None:
        """Publish a block; the first ones wait until the device's clock is known."""
        self.passed.n_in += len(block.t_s)
        self.passed.n_lost += block.n_lost
        self.passed.n_refused += block.n_refused
        if block.is_restart:
            self.clock.restart()
            self._forget()
        if block.device_s is not None and self.clock.measure(block.device_s, block.arrived_s):
            self._forget()
        self.passed.n_restarts = self.clock.n_restarts
        if len(block.t_s) or block.complete_until_s is not None:
            self._held.append(block)
        if not self.clock.is_ready:
            return
        for held in self._held:
            self._publish(held)
        self._held.clear()

    def _forget(self) -> None:
        """Let go what was stamped by a clock that is no more."""
        self.passed.n_dropped += sum(len(block.t_s) for block in self._held)
        self._held.clear()
        self._complete_s = -np.inf

    def _publish(self, block: Block) -> None:
        order = np.argsort(block.t_s, kind="stable")
        t_s = self._stamps(block.t_s[order])
        self._outlet.push_ids(t_s, block.ids[order], self._next_watermark(block))
        self.passed.n_out += len(t_s)

    def _stamps(self, device_s: Float64s) -> Float64s:
        """Return stamps; what is new to the device is new to LSL, also where the line moved."""
        stamps = self.clock.to_lsl(device_s) - self._delay_s
        is_behind = device_s <= self._complete_s
        self.passed.n_behind += int(np.count_nonzero(is_behind))
        return np.where(is_behind, stamps, np.maximum(stamps, self._watermark_s + 1e-6))

    def _next_watermark(self, block: Block) -> float | None:
        complete_s = block.complete_until_s
        if complete_s is None or complete_s <= self._complete_s:
            return None
        self._complete_s = complete_s
        stamp = float(self.clock.to_lsl(np.array([complete_s]))[0]) - self._delay_s
        self._watermark_s = max(self._watermark_s + 1e-6, stamp)
        return self._watermark_s


def run_bridge(
    source: Source,
    bridge: Bridge,
    clock: Clock,
    is_stopped: Callable[[], bool],
    tell: Callable[[str], None],
) -> Passed:
    """Forward blocks until told to stop; say once a minute how it stands, and when it is silent.

    Args:
        source: of blocks; it is closed at the end.
        bridge: takes them.
        clock: LSL's.
        is_stopped: asked between two blocks.
        tell: gets each line.

    Returns:
        What passed.
    """
    heard_s = told_s = clock.now()
    is_silent, before = False, Passed().as_dict()
    try:
        while not is_stopped():
            blocks = source.read(READ_WAIT_S)
            for block in blocks:
                bridge.forward(block)
            while source.warnings:
                tell(source.warnings.pop(0))
            now_s = clock.now()
            heard_s = now_s if blocks else heard_s
            if is_silent is not (now_s - heard_s > SILENT_S):
                is_silent = not is_silent
                tell("the device is silent" if is_silent else "the device sends")
            passed = bridge.passed.as_dict()
            is_news = any(passed[key] != before[key] for key in ("n_restarts", "n_refused"))
            if now_s - told_s > TELL_EVERY_S or (is_news and now_s - told_s > 1.0):
                if before["n_restarts"] < UNEVEN_AFTER <= passed["n_restarts"]:
                    tell(UNEVEN)
                told_s, before = now_s, passed
                tell(describe(bridge))
    finally:
        source.close()
    return bridge.passed


def describe(bridge: Bridge) -> str:
    """Say in a line what passed."""
    passed = bridge.passed
    return (
        f"{passed.n_in} spikes in, {passed.n_out} out, {passed.n_lost} messages lost, "
        f"{passed.n_refused} not readable, {passed.n_behind} spikes behind a watermark, "
        f"{passed.n_restarts} restarts, the device's clock drifts by "
        f"{bridge.clock.drift * 1e6:.1f} ppm"
    )
