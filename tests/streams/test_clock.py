"""Clocks, and a sender's offset from ours."""

from __future__ import annotations

import os
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.clock import (
    JUMP_LIMIT_S,
    SAME_HOST_LIMIT_S,
    STEADY_ESTIMATES,
    ClockOffset,
    ManualClock,
    MonotonicClock,
    OffsetEstimate,
    stamps_to_us,
    wait_readable,
)

OFFSETS = st.lists(st.one_of(st.floats(-1e-3, 1e-3), st.floats(-0.1, 0.1)), min_size=1, max_size=12)


def fed(offsets_s: list[float], *, same_host: bool = False) -> ClockOffset:
    offset = ClockOffset(same_host=same_host)
    for i, offset_s in enumerate(offsets_s):
        offset.add(OffsetEstimate(float(i), offset_s, 1e-5))
    return offset


def test_a_manual_clock_stands_still_until_somebody_sleeps() -> None:
    clock = ManualClock(5.0)
    assert clock.now() == clock.now() == 5.0
    clock.sleep_until(7.5)
    assert clock.now() == 7.5
    clock.sleep_until(6.0)
    assert clock.now() == 7.5


def test_the_monotonic_clock_never_wakes_before_its_deadline() -> None:
    clock = MonotonicClock()
    deadline_s = clock.now() + 2e-3
    clock.sleep_until(deadline_s)
    assert clock.now() >= deadline_s
    clock.sleep_until(deadline_s - 100.0)


def test_a_sender_on_this_machine_with_our_clock_has_no_offset() -> None:
    offset = fed([-28e-6, 27e-6], same_host=True)
    assert offset.current == OffsetEstimate(1.0, 0.0, 1e-5)
    assert not offset.jumped


@pytest.mark.parametrize(
    ("offset_s", "same_host"), [(-28e-6, False), (SAME_HOST_LIMIT_S, True), (-3.0, True)]
)
def test_any_other_offset_is_taken_as_measured(offset_s: float, same_host: bool) -> None:
    assert fed([offset_s], same_host=same_host).current.offset_s == offset_s


def test_before_the_first_estimate_there_is_no_offset_and_no_jump() -> None:
    offset = fed([])
    assert offset.current.offset_s == 0.0
    assert not offset.jumped


def test_the_first_estimate_is_no_jump_however_far() -> None:
    assert not fed([12345.6]).jumped


def test_a_jump_lasts_until_three_estimates_agree() -> None:
    offset = fed([1.0, 1.0, 1.0 + 1.5 * JUMP_LIMIT_S])
    for _ in range(STEADY_ESTIMATES):
        assert offset.jumped
        offset.add(OffsetEstimate(9.0, 1.0 + 1.5 * JUMP_LIMIT_S, 1e-5))
    assert not offset.jumped


def test_the_limits_are_those_of_the_definitions() -> None:
    assert (SAME_HOST_LIMIT_S, JUMP_LIMIT_S, STEADY_ESTIMATES) == (0.5e-3, 20e-3, 3)


def test_slow_drift_is_no_jump() -> None:
    assert not fed([0.9 * JUMP_LIMIT_S * i for i in range(50)]).jumped


@pytest.mark.parametrize(
    ("offset_s", "uncertainty_s", "in_force_s"),
    [
        (-1.098e-3, 2.316e-3, 0.0),  # as measured on a busy machine
        (0.894e-3, 1.859e-3, 0.0),
        (-1.098e-3, 0.1e-3, -1.098e-3),
        (-3.0, 2.316e-3, -3.0),
    ],
)
def test_an_offset_of_this_machine_that_is_not_certain_is_none(
    offset_s: float, uncertainty_s: float, in_force_s: float
) -> None:
    measured = OffsetEstimate(1.0, offset_s, uncertainty_s)
    here, elsewhere = ClockOffset(same_host=True), ClockOffset(same_host=False)
    for offset in (here, elsewhere):
        offset.add(measured)
    assert here.current.offset_s == in_force_s
    assert elsewhere.current.offset_s == offset_s


def test_an_uncertain_measurement_moves_no_spikes_unless_it_contradicts() -> None:
    offset = ClockOffset(same_host=False)
    offset.add(OffsetEstimate(100.0, 2.0, 0.1e-3))
    offset.add(OffsetEstimate(101.0, 2.0011, 2.3e-3))
    assert offset.current.offset_s == 2.0
    offset.add(OffsetEstimate(102.0, 2.0002, 0.15e-3))
    assert offset.current.offset_s == 2.0002
    offset.add(OffsetEstimate(103.0, 2.015, 2.3e-3))  # a step, which the first cannot explain
    assert offset.current.offset_s == 2.015
    assert not offset.jumped


def test_an_old_estimate_gives_way_to_a_less_certain_one() -> None:
    offset = ClockOffset(same_host=False)
    offset.add(OffsetEstimate(100.0, 2.0, 0.1e-3))
    offset.add(OffsetEstimate(130.0, 2.0011, 2.3e-3))
    assert offset.current.offset_s == 2.0011


@given(OFFSETS, st.booleans())
def test_jumped_means_a_step_among_the_last_three(offsets_s: list[float], same_host: bool) -> None:
    offset = fed(offsets_s, same_host=same_host)
    in_force = [0.0 if same_host and abs(o) < SAME_HOST_LIMIT_S else o for o in offsets_s]
    steps = [abs(b - a) > JUMP_LIMIT_S for a, b in pairwise(in_force)]
    assert offset.jumped == any(steps[-STEADY_ESTIMATES:])
    assert [e.offset_s for e in offset.history] == in_force
    assert offset.current == offset.history[-1]


def test_the_history_keeps_the_newest() -> None:
    offset = ClockOffset(same_host=False, n_kept=3)
    for i in range(5):
        offset.add(OffsetEstimate(float(i), 0.0, 0.0))
    assert [estimate.t_s for estimate in offset.history] == [2.0, 3.0, 4.0]


@given(st.floats(0, 1e6), st.integers(-(10**12), 10**12))
def test_microseconds_survive_the_way_through_seconds(t0_s: float, t_us: int) -> None:
    (back_us,) = stamps_to_us(np.array([t0_s + t_us * 1e-6]), 0.0, t0_s)
    assert abs(back_us - t_us) <= 1


def test_a_descriptor_is_readable_when_something_was_written() -> None:
    read, written = os.pipe()
    try:
        assert not wait_readable(read, 0.0)
        assert not wait_readable(read, -1.0)
        os.write(written, b"x")
        assert wait_readable(read, 0.0)
    finally:
        os.close(read)
        os.close(written)
