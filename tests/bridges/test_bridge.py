"""What the bridge tells its operator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from streams.bridges.blocks import Block
from streams.bridges.bridge import UNEVEN, Bridge, run_bridge
from streams.clock import ManualClock
from streams.lsl.outlets import SpikeOutlet
from tests.system.running import unique


class Device:
    """Tells its time each 10 ms, by a clock that runs at another speed.

    Args:
        clock: goes on as it is read.
        speed: of its own clock.
    """

    def __init__(self, clock: ManualClock, speed: float) -> None:
        self._clock, self._speed = clock, speed
        self.warnings: list[str] = []

    def read(self, timeout_s: float) -> Sequence[Block]:
        self._clock.sleep_until(self._clock.now() + 0.01)
        now_s = self._clock.now()
        nothing = np.zeros(0), np.zeros((0, 2), np.int32)
        return [Block(*nothing, device_s=self._speed * now_s, arrived_s=now_s)]

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("speed", "n_told"), [(1.0, 0), (1.0 - 1e-4, 0), (0.9, 1)])
def test_a_device_whose_time_is_counted_is_told_of_once(speed: float, n_told: int) -> None:
    clock, told = ManualClock(100.0), list[str]()
    name = unique("bridge")
    bridge = Bridge(SpikeOutlet(name, name, ["ch0/u0"]))
    run_bridge(Device(clock, speed), bridge, clock, lambda: clock.now() > 160.0, told.append)
    assert told.count(UNEVEN) == n_told
