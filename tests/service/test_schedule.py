"""The beats' grid: it slides until windows end where blocks end, and no further."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.guard import Guard
from service.loop.intake.schedule import BACK, CELL_S, FORTH, BlockAlignment, Schedule

T0_S = 1000.0
SETTLE_S = 0.01


def wait_s(schedule: Schedule, k: int, block_s: float, first_s: float) -> float:
    """From a window's end to that of the block in which it lies."""
    return float(-(schedule.window_end_s(k) - first_s) % block_s)


def live(
    schedule: Schedule,
    alignment: BlockAlignment,
    seconds: float,
    *,
    block_s: float,
    first_s: float = T0_S,
    drift: float = 0.0,
    k: int = 1,
) -> int:
    """Run beats for so long, and blocks on a clock that drifts; the next beat."""
    until_s = first_s
    t_end_s = schedule.window_end_s(k) + seconds
    while schedule.window_end_s(k) < t_end_s:
        while until_s <= schedule.window_end_s(k):
            alignment.note(until_s)
            until_s += block_s * (1.0 + drift)
        alignment.slide(schedule.window_end_s(k), SETTLE_S, k + 1)
        k += 1
    return k


@pytest.mark.parametrize("hop_us", [5000, 10_000, 20_000, 50_000])
@pytest.mark.parametrize("first_s", [T0_S + 0.0004, T0_S + 0.0021, T0_S + 0.0049])
def test_beats_begin_where_the_blocks_heard_so_far_end(hop_us: int, first_s: float) -> None:
    schedule = Schedule(T0_S, hop_us)
    BlockAlignment(schedule, (first_s + 0.005 * np.arange(100)).tolist())
    assert CELL_S / 2 < wait_s(schedule, 7, 0.005, first_s) < 8 * CELL_S


def test_a_few_blocks_tell_nothing() -> None:
    schedule = Schedule(T0_S, 10_000)
    BlockAlignment(schedule, [T0_S + 0.002, T0_S + 0.007])
    assert schedule.phase_us == 0


def test_it_slides_to_a_source_that_came_later_and_loses_no_bin() -> None:
    schedule = Schedule(T0_S, 10_000)
    alignment = BlockAlignment(schedule)
    k = live(schedule, alignment, 12.0, block_s=0.005, first_s=T0_S + 0.0033)
    assert wait_s(schedule, k, 0.005, T0_S + 0.0033) < 8 * CELL_S
    lengths = np.diff([schedule.end_us(i) for i in range(k - 900, k)])
    assert lengths.min() >= 10_000 * (1 - BACK)
    assert lengths.max() <= 10_000 * (1 + FORTH)


@pytest.mark.parametrize("drift", [-5e-5, -1e-5, 1e-5, 5e-5])
def test_it_follows_a_drifting_clock(drift: float) -> None:
    schedule, first_s, block_s = Schedule(T0_S, 10_000), T0_S + 0.0011, 0.005
    alignment = BlockAlignment(schedule, (first_s + block_s * np.arange(60)).tolist())
    until_s, waits_s = first_s + 60 * block_s, []
    for k in range(40, 12_000):
        while until_s <= schedule.window_end_s(k):
            alignment.note(until_s)
            until_s += block_s * (1.0 + drift)
        waits_s.append(until_s - schedule.window_end_s(k))
        alignment.slide(schedule.window_end_s(k), SETTLE_S, k + 1)
    assert np.quantile(waits_s, 0.99) < 0.3 * block_s


def test_sources_without_blocks_move_nothing() -> None:
    rng = np.random.default_rng(1)
    schedule = Schedule(T0_S, 20_000)
    alignment = BlockAlignment(schedule, np.sort(T0_S + 0.5 * rng.random(2000)).tolist())
    for k in range(1, 500):
        for until_s in np.sort(schedule.window_end_s(k) + 0.02 * rng.random(80)):
            alignment.note(float(until_s))
        alignment.slide(schedule.window_end_s(k), SETTLE_S, k + 1)
    assert schedule.phase_us == 0


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(-20, 2)), max_size=50))
def test_a_bin_keeps_its_end_and_stamps_their_beat(slides: list[tuple[int, int]]) -> None:
    schedule, k, ends = Schedule(T0_S, 20_000), 0, {}
    for n_beats, by_us in slides:
        for _ in range(n_beats):
            k += 1
            ends[k] = schedule.end_us(k)
            assert schedule.beats_of(np.array([ends[k]])).tolist() == [k]
            assert schedule.beats_of(np.array([ends[k] + 1])).tolist() == [k + 1]
        schedule.slide(by_us, k + 1)
    assert {one: schedule.end_us(one) for one in ends} == ends


def test_another_thread_may_ask_while_beats_slide() -> None:
    """The deployer and the failover warm decoders up meanwhile."""
    schedule, ended, failed = Schedule(T0_S, 10_000), threading.Event(), list[Exception]()

    def ask() -> None:
        while not ended.is_set():
            with Guard(Exception, failed.append):
                assert schedule.end_us(1) == 10_000
            if failed:
                return

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    asking = threading.Thread(target=ask)
    try:
        asking.start()
        for k in range(2, 20_000):
            schedule.slide((-1) ** k, k)
    finally:
        ended.set()
        asking.join()
        sys.setswitchinterval(before)
    assert failed == []
