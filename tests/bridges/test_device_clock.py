"""The device's clock against simulated devices: any offset, drift and jitter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.bridges.device_clock import DRIFT_MOST, READY_AFTER, DeviceClock

BLOCK_S, WAY_S = 0.01, 0.002
T0_S = 1000.0


def run(
    clock: DeviceClock,
    seconds: float,
    *,
    begun_s: float = 5e4,
    ppm: float = 0.0,
    jitter_s: float = 1e-3,
    at_s: float = T0_S,
    seed: int = 0,
) -> float:
    """Measure blocks of a device; how far its newest block's end is mapped from the truth."""
    rng = np.random.default_rng(seed)
    true_s = at_s + BLOCK_S * np.arange(int(seconds / BLOCK_S))
    device_s = begun_s + (true_s - at_s) * (1 + ppm * 1e-6)
    arrived_s = np.maximum.accumulate(true_s + WAY_S + rng.exponential(jitter_s, len(true_s)))
    for device, arrived in zip(device_s.tolist(), arrived_s.tolist(), strict=True):
        clock.measure(device, arrived)
    return float(clock.to_lsl(device_s[-1:])[0] - true_s[-1] - WAY_S)


@given(st.floats(-100, 100), st.floats(0, 1e6), st.floats(1e-5, 5e-3), st.integers(0, 99))
def test_after_a_while_a_stamp_is_late_by_the_shortest_way_alone(
    ppm: float, begun_s: float, jitter_s: float, seed: int
) -> None:
    clock = DeviceClock()
    error_s = run(clock, 40, ppm=ppm, begun_s=begun_s, jitter_s=jitter_s, seed=seed)
    # The least of a second's hundred blocks was held up for a hundredth of the jitter.
    assert abs(error_s) < 2e-5 + 0.1 * jitter_s
    assert clock.n_restarts == 0


def test_drift_is_followed_and_bounded() -> None:
    clock = DeviceClock()
    run(clock, 60, ppm=80)
    assert clock.drift == pytest.approx(-80e-6, abs=5e-6)
    clock = DeviceClock()
    run(clock, 60, ppm=5000)
    assert clock.drift == -DRIFT_MOST


def test_no_stamp_is_later_than_its_arrival() -> None:
    clock, rng = DeviceClock(), np.random.default_rng(3)
    for i in range(4000):
        arrived_s = T0_S + i * BLOCK_S + rng.exponential(3e-3)
        clock.measure(i * BLOCK_S, arrived_s)
        assert clock.to_lsl(np.array([i * BLOCK_S]))[0] <= arrived_s + 1e-9


def test_it_is_ready_after_some_blocks() -> None:
    clock = DeviceClock()
    for i in range(READY_AFTER):
        assert not clock.is_ready
        clock.measure(i * BLOCK_S, T0_S + i * BLOCK_S)
    assert clock.is_ready


@pytest.mark.parametrize("begun_s", [0.0, 5e4 + 3.0])
def test_a_device_that_begins_anew_or_stood_still_is_noticed(begun_s: float) -> None:
    """Its time falls back, or goes on from where it stood after a pause of ten seconds."""
    clock = DeviceClock()
    run(clock, 20)
    error_s = run(clock, 30, begun_s=begun_s + 17.0, at_s=T0_S + 30.0)
    assert clock.n_restarts == 1
    assert abs(error_s) < 2e-4


def test_a_message_held_up_for_long_is_no_restart() -> None:
    clock = DeviceClock()
    for i in range(4000):
        late_s = 2.0 - (i - 2000) * BLOCK_S if 2000 <= i < 2200 else 0.0
        clock.measure(i * BLOCK_S, T0_S + i * BLOCK_S + late_s)
    assert clock.n_restarts == 0
    assert clock.to_lsl(np.array([40.0]))[0] == pytest.approx(T0_S + 40.0, abs=1e-6)
