"""Whether a bin can be complete, by how the source was heard of while it was on time."""

from __future__ import annotations

import numpy as np
import pytest

from service.loop.intake.arrivals import Arrival
from service.loop.intake.completeness import Completeness
from service.loop.intake.schedule import Schedule
from streams.messages import SpikeBatch

HOP_US, HOP_S, SETTLE_S = 20_000, 0.02, 0.012
NONE = np.zeros(0, np.int64)


class Source:
    """Spikes at a rate, in blocks, heard by a completeness whose bins are cut when they are due."""

    def __init__(self, rate_hz: float, block_s: float, seed: int = 0) -> None:
        self.rng, self.rate_hz, self.block_s = np.random.default_rng(seed), rate_hz, block_s
        self.completeness = Completeness(Schedule(0.0, HOP_US))
        self.t_s, self.k = 0.0, 1
        self.n_lacking = self.n_bins = 0

    def arrive(self, t_s: float, t_us: np.ndarray) -> None:
        n = len(t_us)
        batch = SpikeBatch(t_us, np.zeros(n, np.int32), np.ones(n, np.int32))
        arrival = Arrival(t_s, t_s, batch, round(t_s * 1e6), None, NONE)
        newest_us = int(t_us.max()) if n else None
        self.completeness.note(arrival, newest_us, SETTLE_S)

    def run(self, until_s: float, delay_s: float = 0.0) -> None:
        while self.t_s < until_s:
            self.t_s += self.block_s
            n = self.rng.poisson(self.rate_hz * self.block_s)
            fired_s = np.sort(self.t_s - self.rng.random(n) * self.block_s)
            self.cut(self.t_s + delay_s)
            if n:
                self.arrive(self.t_s + delay_s, np.round(fired_s * 1e6).astype(np.int64))

    def cut(self, t_s: float) -> None:
        while (t_due_s := self.k * HOP_S + SETTLE_S) <= t_s:
            self.n_lacking += self.completeness.lacks(self.k * HOP_US, t_due_s)
            self.completeness.note_cut(self.k * HOP_US)
            self.n_bins += 1
            self.k += 1


@pytest.mark.parametrize("rate_hz", [500.0, 2000.0, 20_000.0])
@pytest.mark.parametrize("block_s", [1e-3, 5e-3])
def test_a_source_on_time_is_complete_but_for_one_bin_in_thousands(
    rate_hz: float, block_s: float
) -> None:
    source = Source(rate_hz, block_s)
    source.run(3.0)
    source.n_lacking = source.n_bins = 0
    source.run(60.0)
    assert source.n_bins > 2800
    assert source.n_lacking <= 3


@pytest.mark.parametrize("rate_hz", [2000.0, 20_000.0])
def test_a_source_that_falls_behind_is_noticed_at_the_first_bin_it_misses(rate_hz: float) -> None:
    source = Source(rate_hz, 5e-3)
    source.run(10.0)
    k_missing = source.k + 1
    t_due_s = k_missing * HOP_S + SETTLE_S
    assert source.completeness.lacks(k_missing * HOP_US, t_due_s)


def test_a_source_that_is_heard_seldom_tells_nothing_by_its_silence() -> None:
    source = Source(3.0, 5e-3)
    source.run(30.0)
    assert not source.completeness.lacks((source.k + 3) * HOP_US, source.t_s + 0.09)


def test_before_anything_was_learnt_only_a_later_stamp_makes_a_bin_complete() -> None:
    source = Source(2000.0, 5e-3)
    assert source.completeness.lacks(HOP_US, 1.0)
    source.run(0.2)
    assert source.completeness.lacks((source.k + 1) * HOP_US, source.t_s)
    assert not source.completeness.lacks(5 * HOP_US, source.t_s)


def test_what_was_not_taken_in_place_of_newer_spikes_makes_it_doubtful() -> None:
    source = Source(100.0, 5e-3)
    source.run(10.0)
    end_us = round(source.t_s * 1e6) + 1000
    assert not source.completeness.lacks(end_us, source.t_s + 2e-3)
    arrival = Arrival(source.t_s, source.t_s, SpikeBatch(NONE, NONE.astype(np.int32),
                      NONE.astype(np.int32)), 0, None, NONE)  # fmt: skip
    source.completeness.note(arrival, None, SETTLE_S, rejects=True)
    assert source.completeness.lacks(end_us, source.t_s + 2e-3)


def test_a_later_stamp_of_a_source_out_of_order_tells_nothing_once_it_is_silent() -> None:
    source = Source(2000.0, 5e-3)
    source.run(10.0)
    end_us = round(source.t_s * 1e6) - 8000
    assert not source.completeness.lacks(end_us, source.t_s + 1e-3, in_order=False)
    assert source.completeness.lacks(end_us, source.t_s + 0.1, in_order=False)
    assert not source.completeness.lacks(end_us, source.t_s + 0.1)


def test_what_was_lost_is_no_silence() -> None:
    completeness = Completeness(Schedule(0.0, HOP_US))
    for i in range(1, 400):
        stamp_us, n_lost = 10_000 * i, 0
        if 100 < i % 200 <= 150:
            continue
        if i % 200 == 151:
            n_lost = 50
        batch = SpikeBatch(np.array([stamp_us]), np.zeros(1, np.int32), np.ones(1, np.int32))
        arrived_s = stamp_us * 1e-6 + 1e-3
        arrival = Arrival(arrived_s, arrived_s, batch, 10**9, None, NONE, n_lost=n_lost)
        completeness.note(arrival, stamp_us, SETTLE_S)
    assert completeness.lacks(stamp_us + 5000, stamp_us * 1e-6 + 0.03)


def test_bins_of_counts_must_all_have_come() -> None:
    completeness = Completeness(Schedule(0.0, 2 * HOP_US), HOP_US)
    for end_us in (HOP_US, 2 * HOP_US, 4 * HOP_US):
        bins = np.array([end_us])
        batch = SpikeBatch(NONE, NONE.astype(np.int32), NONE.astype(np.int32))
        completeness.note(Arrival(0.1, 0.1, batch, 10**9, end_us, NONE, bins_us=bins), end_us, 0.1)
    assert not completeness.lacks_bins(0, 2 * HOP_US)
    assert completeness.lacks_bins(2 * HOP_US, 4 * HOP_US)
