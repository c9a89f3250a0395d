"""The settle time: measured, bounded, followed while it is measured, and grown where it must."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.loop.intake.arrivals import Arrival
from service.loop.intake.settle import RUNS_KEPT, Settled, SettleMeter, SettleTime
from streams.messages import SpikeBatch

HOP_S, MOST_S = 0.02, 0.1
START_S = 50.0


def fed(lags_s: np.ndarray, *, hop_s: float = HOP_S) -> SettleMeter:
    """A meter that saw these lags, spread over the first 10 s."""
    meter = SettleMeter(hop_s, START_S, MOST_S)
    arrivals_s = START_S + np.linspace(1.0, 9.9, len(lags_s))
    for t_s, lag_s in zip(arrivals_s, lags_s, strict=True):
        meter.add(np.array([lag_s]), float(t_s))
    return meter


def settled(meter: SettleMeter) -> Settled:
    result = meter.result(START_S + 20.0)
    assert result is not None
    return result


@given(
    st.lists(st.floats(0.05, 0.101), min_size=1, max_size=400), st.sampled_from([0.01, 0.02, 0.05])
)
def test_it_is_the_quantile_of_the_lags_up_to_its_bound_whatever_the_hop(
    lags_s: list[float], hop_s: float
) -> None:
    outcome = settled(fed(np.array(lags_s), hop_s=hop_s))
    needed_s = float(np.quantile(lags_s, 0.999, method="inverted_cdf"))
    assert needed_s <= outcome.needed_s + 1e-9
    assert outcome.needed_s <= needed_s + 51e-6
    assert outcome.settle_s == min(max(outcome.needed_s, 1e-3), MOST_S)


def test_one_spike_in_ten_thousand_does_not_set_it() -> None:
    lags_s = np.full(10_000, 3e-3)
    lags_s[5000:5009] = 15e-3
    assert settled(fed(lags_s)).settle_s == pytest.approx(3e-3, abs=51e-6)
    lags_s[::400] = 15e-3
    assert settled(fed(lags_s)).settle_s == pytest.approx(15e-3, abs=51e-6)


def test_a_standstill_of_the_machine_does_not_set_it() -> None:
    lags_s = np.full(10_000, 3e-3)
    lags_s[5000:5400] = np.linspace(0.08, 3e-3, 400)
    assert settled(fed(lags_s)).settle_s == pytest.approx(3e-3, abs=51e-6)


@pytest.mark.parametrize(
    ("lag_s", "settle_s"), [(0.1e-3, 1e-3), (-0.2e-3, 1e-3), (5e-3, 5e-3), (0.2, MOST_S)]
)
def test_its_bounds(lag_s: float, settle_s: float) -> None:
    assert settled(fed(np.full(100, lag_s))).settle_s == pytest.approx(settle_s, abs=51e-6)


def test_it_may_be_longer_than_a_hop() -> None:
    outcome = settled(fed(np.full(100, 31e-3)))
    assert outcome.settle_s == outcome.needed_s
    assert outcome.needed_s == pytest.approx(31e-3, abs=51e-6)


def test_a_lag_beyond_all_measure_is_told_as_more_than_the_bound() -> None:
    outcome = settled(fed(np.full(100, 8.0)))
    assert outcome.settle_s == MOST_S
    assert outcome.needed_s > 1.0


def test_stamps_ahead_of_the_clock_settle_nothing() -> None:
    assert fed(np.full(100, -3e-3)).result(START_S + 20.0) is None


def test_it_takes_ten_seconds_of_spikes() -> None:
    meter = SettleMeter(HOP_S, START_S)
    assert meter.result(START_S + 1000.0) is None
    meter.add(np.array([2e-3]), START_S + 100.5)
    assert meter.result(START_S + 109.9) is None
    assert meter.result(START_S + 110.1) is not None


def test_spikes_that_waited_for_us_to_start_are_left_out() -> None:
    meter = SettleMeter(HOP_S, START_S)
    meter.add(np.linspace(0.0, 5.0, 100), START_S + 0.2)
    meter.add(np.array([0.6, 2e-3]), START_S + 1.0)
    assert settled(meter).needed_s == pytest.approx(2e-3, abs=51e-6)


def with_beats(lags_s: np.ndarray, last_s: np.ndarray, run_s: float) -> SettleMeter:
    """A meter that also saw when the last spikes of each bin came, and what a decode took."""
    meter = fed(lags_s)
    for k, after_s in enumerate(last_s):
        meter.add_end(k, float(after_s), START_S + 1.0 + k * HOP_S)
        meter.add_run(run_s)
    return meter


READY_LAGS_S, READY_LAST_S = np.linspace(1e-3, 6e-3, 5000), np.full(400, 6e-3)


@pytest.mark.parametrize(
    ("predecodes", "run_s", "settle_s"),
    [(True, 0.8e-3, 6.8e-3), (False, 0.8e-3, 6e-3), (True, 9e-3, 6e-3 + 0.2 * HOP_S)],
    ids=["predecoded", "not predecoded", "slow"],
)
def test_a_bin_whose_last_spikes_come_at_the_cut_is_given_time_to_be_decoded(
    predecodes: bool, run_s: float, settle_s: float
) -> None:
    meter = with_beats(READY_LAGS_S, READY_LAST_S, run_s)
    outcome = meter.result(START_S + 20.0, predecodes=predecodes)
    assert outcome is not None
    assert outcome.settle_s == pytest.approx(settle_s, abs=60e-6)
    assert outcome.needed_s == pytest.approx(6e-3, abs=60e-6)


def test_no_time_is_added_where_bins_are_whole_long_before_the_cut() -> None:
    """A few spikes come late by far, and set the settle time; nearly all bins are whole before."""
    lags_s = np.concatenate((READY_LAGS_S, np.full(20, 9e-3)))
    outcome = with_beats(lags_s, READY_LAST_S, 0.8e-3).result(START_S + 20.0, predecodes=True)
    assert outcome is not None
    assert outcome.settle_s == pytest.approx(9e-3, abs=60e-6)


def test_time_to_decode_never_takes_the_wait_beyond_its_bound() -> None:
    lags_s, last_s = np.full(1000, MOST_S - 0.3e-3), np.full(400, MOST_S - 0.3e-3)
    outcome = with_beats(lags_s, last_s, 0.8e-3).result(START_S + 20.0, predecodes=True)
    assert outcome is not None
    assert outcome.settle_s == MOST_S
    assert outcome.needed_s < MOST_S


def test_bins_of_spikes_that_waited_for_us_to_start_are_left_out() -> None:
    meter = fed(READY_LAGS_S)
    meter.add_run(0.8e-3)
    meter.add_end(1, 19e-3, START_S + 0.4)
    meter.add_end(2, 2e-3, START_S + 1.0)
    outcome = meter.result(START_S + 20.0, predecodes=True)
    assert outcome is not None
    assert outcome.settle_s == pytest.approx(6e-3, abs=60e-6)


def arrival_at(t_s: float, lag_s: float, n: int = 20) -> Arrival:
    """A block of spikes, the oldest of them stamped so long before."""
    t_us = np.round((t_s - np.linspace(lag_s, lag_s / 2, n)) * 1e6).astype(np.int64)
    batch = SpikeBatch(t_us, np.zeros(n, np.int32), np.ones(n, np.int32))
    return Arrival(t_s, t_s, batch, round(t_s * 1e6), None, np.zeros(0, np.int64))


def begun() -> SettleTime:
    settle = SettleTime("auto", HOP_S, MOST_S)
    settle.begin(START_S)
    return settle


def hear(settle: SettleTime, t_s: float, lag_s: float) -> None:
    settle.note(arrival_at(t_s, lag_s), 0.0, t_s)


def test_while_it_is_measured_it_follows_the_oldest_spike_of_the_last_second() -> None:
    settle = begun()
    assert (settle.settle_s, settle.settling) == (HOP_S, True)
    hear(settle, START_S + 1.0, 0.06)
    assert settle.settle_s == pytest.approx(0.061, abs=1e-5)
    hear(settle, START_S + 1.5, 0.01)
    assert settle.settle_s == pytest.approx(0.061, abs=1e-5)
    hear(settle, START_S + 2.1, 0.01)
    shrunk_s = []
    for _ in range(12):
        settle.shrink()
        shrunk_s.append(settle.settle_s)
    assert shrunk_s[0] == pytest.approx(0.061 - HOP_S / 4, abs=1e-5)  # no beat is skipped by it
    assert shrunk_s[-1] == HOP_S


def test_what_waited_for_us_to_listen_does_not_count() -> None:
    settle = begun()
    hear(settle, START_S + 0.02, 0.09)
    assert settle.settle_s == HOP_S


def measured(lag_s: float) -> SettleTime:
    settle = begun()
    for t_s in START_S + np.arange(1.0, 12.0, 0.02):
        hear(settle, float(t_s), lag_s)
        told = settle.fix(7, float(t_s), predecodes=False)
        if told is not None:
            assert told["settle_ms"] == pytest.approx(lag_s * 1e3, abs=0.1)
            assert ("note" in told) == (lag_s > HOP_S)
            for _ in range(20):
                settle.shrink()
            return settle
    raise AssertionError("it never settled")


def test_a_delay_over_a_hop_is_said_and_is_no_fault() -> None:
    settle = measured(0.06)
    assert (settle.settling, settle.from_beat) == (False, 9)


@pytest.mark.parametrize(("for_s", "grows"), [(2.0, False), (4.5, True)])
def test_it_grows_only_where_spikes_come_late_for_good(for_s: float, grows: bool) -> None:
    settle, told = measured(0.01), []
    t_first = START_S + 20.0
    assert settle.grow(1000, t_first, 0.0, 0) is None
    for t_s in t_first + np.arange(0.0, for_s, HOP_S):
        hear(settle, float(t_s), 0.05)
        told.append(settle.grow(1000, float(t_s), 0.5, 100))
    for t_s in t_first + for_s + np.arange(0.0, 3.0, HOP_S):
        hear(settle, float(t_s), 0.009)
        told.append(settle.grow(1000, float(t_s), 0.0, 0))
    said = [one for one in told if one is not None]
    assert len(said) == int(grows)
    assert settle.settle_s == pytest.approx(0.051 if grows else 0.01, abs=1e-4)


def test_a_configured_settle_time_stays() -> None:
    settle = SettleTime(5.0, HOP_S, MOST_S)
    settle.begin(START_S)
    for t_s in START_S + np.arange(0.0, 10.0, HOP_S):
        hear(settle, float(t_s), 0.05)
        assert settle.fix(1, float(t_s), predecodes=True) is None
        assert settle.grow(1, float(t_s), 0.9, 1000) is None
    assert (settle.settle_s, settle.settling) == (0.005, False)


def test_a_source_that_is_silent_for_days_costs_no_memory() -> None:
    settle = SettleTime("auto", HOP_S, 0.5)
    settle.begin(0.0)
    tracemalloc.start()
    sizes = []
    for _ in range(3):
        for i in range(RUNS_KEPT):
            settle.note_run(i * 1e-9)
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[2] < 1.1 * sizes[0]
