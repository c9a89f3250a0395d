"""The ring against an oracle that follows each spike by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.messages import Repeats, SpikeBatch
from streams.spikes.kernels.choose import Kernels
from streams.spikes.ring import SpikeRing
from tests.streams.ways import BOTH_WAYS

N_UNITS = 5
HOP_US = 10
KNOWN = np.array([True, True, False, True, True])


@dataclass
class Spike:
    t_us: int
    unit: int
    count: int
    fate: str = ""


class Oracle:
    """One Python object per spike; every question answered by looking at all of them."""

    def __init__(self, capacity: int, bin_us: int) -> None:
        self.capacity = capacity
        self.bin_us = bin_us
        self.next_bin = 1
        self.newest_us = -(10**9)
        self.arrived: list[Spike] = []
        self.held: list[Spike] = []

    def has_bin_to_come(self, t_us: int) -> bool:
        ends = [k * HOP_US for k in range(self.next_bin, self.next_bin + 100)]
        return any(end - self.bin_us < t_us <= end for end in ends)

    def admit(self, spikes: list[Spike], latest_us: int, repeats: Repeats) -> None:
        self.arrived += spikes
        seen = {(s.unit, s.t_us) for s in self.held}
        before_us = self.newest_us
        admitted = []
        for spike in spikes:
            if not KNOWN[spike.unit]:
                spike.fate = "unknown_unit"
            elif spike.t_us > latest_us:
                spike.fate = "future"
            elif (spike.unit, spike.t_us) in seen and (
                repeats == "all" or (repeats == "older" and spike.t_us < before_us)
            ):
                spike.fate = "duplicate"
            else:
                if repeats == "all":
                    seen.add((spike.unit, spike.t_us))
                self.newest_us = max(self.newest_us, spike.t_us)
                if self.has_bin_to_come(spike.t_us):
                    admitted.append(spike)
                else:
                    spike.fate = "late"
        self.held += admitted
        while len(self.held) > self.capacity:
            gone = self.held.pop(0)
            gone.fate = gone.fate or "overflow"

    def cut(self) -> list[Spike]:
        end_us = self.next_bin * HOP_US
        return [s for s in self.held if end_us - self.bin_us < s.t_us <= end_us]

    def close(self, n_bins: int) -> None:
        self.next_bin += n_bins
        for spike in self.held:
            if not spike.fate and not self.has_bin_to_come(spike.t_us):
                spike.fate = "overflow"

    def fates(self) -> Counter[str]:
        fates: Counter[str] = Counter()
        for spike in self.arrived:
            fates[spike.fate or "pending"] += spike.count
        return fates


def batch_of(spikes: list[Spike]) -> SpikeBatch:
    return SpikeBatch(
        np.array([s.t_us for s in spikes], np.int64),
        np.array([s.unit for s in spikes], np.int32),
        np.array([s.count for s in spikes], np.int32),
    )


def listed(batch: SpikeBatch) -> list[tuple[int, int, int]]:
    return list(zip(batch.t_us.tolist(), batch.unit.tolist(), batch.count.tolist(), strict=True))


def assert_same(ring: SpikeRing, oracle: Oracle) -> None:
    expected = oracle.fates()
    assert ring.n_pending == expected.pop("pending", 0)
    assert {k: v for k, v in ring.fates.as_dict().items() if v} == {
        k: v for k, v in expected.items() if v
    }
    assert ring.fates.spikes_in + ring.n_pending == sum(s.count for s in oracle.arrived)


SPIKES = st.builds(
    Spike, st.integers(-15, 130), st.integers(0, N_UNITS - 1), st.sampled_from([1, 1, 1, 2, 7])
)
ARRIVALS = st.tuples(
    st.just("arrive"), st.lists(SPIKES, max_size=12), st.sampled_from([20, 60, 100, 200])
)
CUTS = st.tuples(st.just("cut"), st.sets(st.integers(0, 7)), st.none())
SKIPS = st.tuples(st.just("skip"), st.integers(1, 4), st.none())
OPERATIONS = st.lists(st.one_of(ARRIVALS, ARRIVALS, CUTS, SKIPS), max_size=25)


@BOTH_WAYS
@given(
    OPERATIONS,
    st.integers(1, 14),
    st.sampled_from([10, 15, 20, 37]),
    st.sampled_from(["all", "older", "none"]),
)
def test_every_spike_has_the_fate_that_the_oracle_gives_it(
    kernels: Kernels,
    operations: list[tuple[str, Any, Any]],
    capacity: int,
    bin_us: int,
    repeats: Repeats,
) -> None:
    ring = SpikeRing(capacity, bin_us, HOP_US, HOP_US, kernels)
    oracle = Oracle(capacity, bin_us)
    for what, first, second in operations:
        end_us = oracle.next_bin * HOP_US
        if what == "arrive":
            ring.admit(batch_of(first), KNOWN, second, repeats)
            oracle.admit(first, second, repeats)
        elif what == "cut":
            spikes, slots = ring.cut(end_us)
            in_bin = oracle.cut()
            assert listed(spikes) == [(s.t_us, s.unit, s.count) for s in in_bin]
            chosen = [i for i in range(len(in_bin)) if i % 8 not in first]
            ring.assign_fate(slots[chosen], "used")
            ring.close(end_us)
            for i in chosen:
                in_bin[i].fate = "used"
            oracle.close(1)
        else:
            ring.close(end_us + (first - 1) * HOP_US)
            oracle.close(first)
        assert_same(ring, oracle)


@BOTH_WAYS
@given(st.lists(st.lists(SPIKES, max_size=9), max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_no_bin(
    kernels: Kernels, groups: list[list[Spike]], random: Random
) -> None:
    spikes = [s for group in groups for s in group]
    first = {(s.unit, s.t_us): s for s in reversed(spikes)}
    unique = list(first.values())
    shuffled = random.sample(unique, len(unique))
    bins = []
    for arrivals in (unique, shuffled):
        ring = SpikeRing(1000, 20, HOP_US, HOP_US, kernels)
        for start in range(0, len(arrivals), 5):
            ring.admit(batch_of(arrivals[start : start + 5]), KNOWN, 1000)
        cuts = []
        for k in range(1, 14):
            cut, slots = ring.cut(k * HOP_US)
            ring.assign_fate(slots, "used")
            ring.close(k * HOP_US)
            cuts.append(sorted(listed(cut)))
        bins.append((cuts, ring.fates.as_dict()))
    assert bins[0] == bins[1]


@BOTH_WAYS
def test_a_spike_on_the_edge_belongs_to_the_bin_that_ends_there(kernels: Kernels) -> None:
    ring = SpikeRing(10, 10, HOP_US, HOP_US, kernels)
    ring.admit(
        batch_of([Spike(0, 0, 1), Spike(1, 0, 1), Spike(10, 0, 1), Spike(11, 0, 1)]), KNOWN, 99
    )
    assert ring.cut(10)[0].t_us.tolist() == [1, 10]
    assert ring.fates.late == 1


@BOTH_WAYS
def test_a_late_spike_is_used_by_a_later_overlapping_bin(kernels: Kernels) -> None:
    ring = SpikeRing(10, 30, HOP_US, HOP_US, kernels)
    ring.close(10)
    ring.admit(batch_of([Spike(5, 0, 1)]), KNOWN, 99)
    spikes, slots = ring.cut(20)
    ring.assign_fate(slots, "used")
    assert spikes.t_us.tolist() == [5]
    assert (ring.fates.late, ring.fates.used) == (0, 1)


@BOTH_WAYS
def test_a_spike_sent_again_after_its_bin_was_cut_is_a_duplicate_not_late(kernels: Kernels) -> None:
    ring = SpikeRing(10, 10, HOP_US, HOP_US, kernels)
    ring.admit(batch_of([Spike(5, 0, 1)]), KNOWN, 99)
    ring.assign_fate(ring.cut(10)[1], "used")
    ring.close(10)
    ring.admit(batch_of([Spike(5, 0, 1), Spike(6, 0, 1)]), KNOWN, 99)
    assert (ring.fates.used, ring.fates.duplicate, ring.fates.late) == (1, 1, 1)


@BOTH_WAYS
def test_a_repeat_is_known_although_its_batch_was_out_of_order(kernels: Kernels) -> None:
    ring = SpikeRing(10, 100, HOP_US, 100, kernels)
    ring.admit(batch_of([Spike(50, 0, 1), Spike(30, 0, 1)]), KNOWN, 99)
    ring.admit(batch_of([Spike(50, 0, 1)]), KNOWN, 99)
    assert (ring.fates.duplicate, ring.n_pending) == (1, 2)


@BOTH_WAYS
def test_the_newest_are_kept_when_the_ring_is_full(kernels: Kernels) -> None:
    ring = SpikeRing(3, 100, HOP_US, 100, kernels)
    ring.admit(batch_of([Spike(t, 0, 1) for t in range(1, 6)]), KNOWN, 99)
    ring.admit(batch_of([Spike(t, 0, 1) for t in range(6, 8)]), KNOWN, 99)
    assert ring.cut(100)[0].t_us.tolist() == [5, 6, 7]
    assert (ring.fates.overflow, ring.n_pending) == (4, 3)


@BOTH_WAYS
def test_newest_is_the_newest_accepted_stamp(kernels: Kernels) -> None:
    ring = SpikeRing(10, 10, HOP_US, HOP_US, kernels)
    assert ring.newest_us is None
    ring.admit(
        batch_of([Spike(7, 0, 1), Spike(9, 2, 1), Spike(3, 1, 1), Spike(50, 0, 1)]), KNOWN, 20
    )
    assert ring.newest_us == 7


@BOTH_WAYS
def test_units_may_be_added_to_the_source_while_it_runs(kernels: Kernels) -> None:
    ring = SpikeRing(10, 10, HOP_US, HOP_US, kernels)
    ring.admit(batch_of([Spike(7, 0, 1)]), np.array([True]), 20)
    ring.admit(batch_of([Spike(7, 3, 1), Spike(7, 0, 1)]), np.ones(4, np.bool_), 20)
    assert (ring.n_pending, ring.fates.duplicate) == (2, 1)


@BOTH_WAYS
@pytest.mark.parametrize(("bin_us", "hop_us"), [(10, 0), (10, 11), (10, -1)])
def test_bins_that_leave_holes_are_refused(kernels: Kernels, bin_us: int, hop_us: int) -> None:
    with pytest.raises(ValueError, match="hop"):
        SpikeRing(10, bin_us, hop_us, 10, kernels)
