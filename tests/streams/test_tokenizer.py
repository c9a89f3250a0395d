"""Tokens against a plain-Python cut of the same spikes, live against offline, bit for bit."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.messages import SpikeBatch, TokenWindow
from streams.spikes.kernels.choose import Kernels
from streams.spikes.ring import SpikeRing
from streams.spikes.tokenizer import TokenBins, Tokenizer, cut_bins, evenly_over_units
from tests.streams.ways import BOTH_WAYS

ROW_OF = np.array([3, -1, 0, 40_000, 1], np.int32)
KNOWN = ROW_OF >= 0
T0_US = 3_600_000_000
Triple = tuple[int, int, int]

SPIKES = st.lists(
    st.tuples(
        st.integers(T0_US, T0_US + 140),
        st.integers(0, len(ROW_OF) - 1),
        st.sampled_from([1, 1, 1, 2, 9]),
    ),
    max_size=40,
)
UNIQUE = SPIKES.map(
    lambda spikes: list({(t, unit): (t, unit, n) for t, unit, n in spikes}.values())
)
BINS = st.tuples(st.sampled_from([10, 17, 40]), st.integers(1, 12))


def batch_of(spikes: list[Triple]) -> SpikeBatch:
    columns = np.array(spikes, np.int64).reshape(-1, 3).T
    return SpikeBatch(columns[0].copy(), columns[1].astype(np.int32), columns[2].astype(np.int32))


def by_hand(spikes: list[Triple], end_us: int, bin_us: int) -> list[tuple[int, float, float]]:
    """(row, t_rel, count) of each token of one bin."""
    in_bin = [
        (t, int(ROW_OF[unit]), n)
        for t, unit, n in spikes
        if end_us - bin_us < t <= end_us and ROW_OF[unit] >= 0
    ]
    in_bin.sort(key=lambda token: token[:2])
    return [
        (row, float(np.float32((t - (end_us - bin_us)) * 1e-6)), float(n)) for t, row, n in in_bin
    ]


def tokens_of(window: TokenWindow) -> list[tuple[int, float, float]]:
    columns = (window.unit.tolist(), window.t_rel.tolist(), window.count.tolist())
    return list(zip(*columns, strict=True))


def bin_of(bins: TokenBins, i: int) -> TokenWindow:
    part = slice(bins.offsets[i], bins.offsets[i + 1])
    return TokenWindow(bins.unit[part], bins.t_rel[part], bins.count[part], 0.0)


def same_bits(one: TokenWindow, other: TokenWindow) -> bool:
    return all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for a, b in (
            (one.unit, other.unit),
            (one.t_rel, other.t_rel),
            (one.count, other.count),
        )
    )


@BOTH_WAYS
@given(UNIQUE, BINS)
def test_a_cut_equals_the_one_by_hand(
    kernels: Kernels, spikes: list[Triple], bins: tuple[int, int]
) -> None:
    bin_us, k = bins
    end_us = T0_US + 10 * k
    inside = [s for s in spikes if end_us - bin_us < s[0] <= end_us and KNOWN[s[1]]]
    window, order = Tokenizer(bin_us, ROW_OF, kernels=kernels).cut(batch_of(inside), end_us, 7.5)
    assert tokens_of(window) == by_hand(spikes, end_us, bin_us)
    assert sorted(order.tolist()) == list(range(len(inside)))
    assert [ROW_OF[inside[i][1]] for i in order] == window.unit.tolist()
    assert window.t_window == 7.5


@given(UNIQUE, BINS, st.permutations(range(12)))
def test_bins_cut_offline_equal_those_by_hand(
    spikes: list[Triple], bins: tuple[int, int], order: list[int]
) -> None:
    bin_us, _ = bins
    ends_us = T0_US + 10 * np.array(order, np.int64)
    cut = cut_bins(batch_of(spikes), ROW_OF, ends_us, bin_us)
    assert len(cut) == 12
    for i, end_us in enumerate(ends_us.tolist()):
        assert tokens_of(bin_of(cut, i)) == by_hand(spikes, end_us, bin_us)


@BOTH_WAYS
@given(SPIKES, BINS, st.randoms(use_true_random=False), st.integers(1, 9))
def test_live_bins_equal_offline_bins_bit_for_bit(
    kernels: Kernels, spikes: list[Triple], bins: tuple[int, int], random: Random, chunk: int
) -> None:
    bin_us, _ = bins
    first: dict[tuple[int, int], Triple] = {}
    for spike in spikes:  # a repeated spike may carry another count: the first one stands
        first.setdefault(spike[:2], spike)
    ends_us = T0_US + 10 * np.arange(1, 16)
    offline = cut_bins(batch_of(spikes), ROW_OF, ends_us, bin_us)
    ring = SpikeRing(1000, bin_us, 10, int(ends_us[0]), kernels)
    arrivals = random.sample(list(first.values()), len(first)) + list(first.values())
    for i in range(0, len(arrivals), chunk):
        ring.admit(batch_of(arrivals[i : i + chunk]), KNOWN, 2 * T0_US)
    tokenizer = Tokenizer(bin_us, ROW_OF, kernels=kernels)
    for i, end_us in enumerate(ends_us.tolist()):
        inside, slots = ring.cut(end_us)
        window, kept = tokenizer.cut(inside, end_us, 0.0)
        ring.assign_fate(slots[kept], "used")
        ring.close(end_us)
        assert same_bits(window, bin_of(offline, i))


@BOTH_WAYS
def test_units_that_the_decoder_lost_in_a_swap_make_no_tokens(kernels: Kernels) -> None:
    spikes = batch_of([(T0_US + 5, 1, 1), (T0_US + 6, 0, 1)])
    window, order = Tokenizer(10, ROW_OF, kernels=kernels).cut(spikes, T0_US + 10, 0.0)
    assert (window.unit.tolist(), order.tolist()) == ([3], [1])


@BOTH_WAYS
def test_a_bin_without_spikes_is_legal(kernels: Kernels) -> None:
    window, order = Tokenizer(10, ROW_OF, kernels=kernels).cut(batch_of([]), 100, 0.0)
    assert (len(window), len(order)) == (0, 0)
    assert (window.unit.dtype, window.t_rel.dtype) == (np.int32, np.float32)
    assert cut_bins(batch_of([]), ROW_OF, np.array([10, 20]), 10).offsets.tolist() == [0, 0, 0]


@BOTH_WAYS
def test_times_after_many_hours_keep_a_microsecond(kernels: Kernels) -> None:
    end_us = 200 * T0_US + 20_000
    window, _ = Tokenizer(20_000, ROW_OF, kernels=kernels).cut(
        batch_of([(end_us - 7, 0, 1)]), end_us, 0.0
    )
    assert window.t_rel.tolist() == [np.float32(0.019993)]


def test_stamps_too_far_apart_for_one_key_are_still_in_order() -> None:
    far_us = 3 * 10**15
    t_us = np.array([far_us, far_us, 5, 5])
    spikes = SpikeBatch(t_us, np.array([3, 0, 3, 0], np.int32), np.ones(4, np.int32))
    cut = cut_bins(spikes, ROW_OF, np.array([far_us]), far_us)
    assert cut.unit.tolist() == [3, 40_000, 3, 40_000]
    assert cut.t_rel.tolist() == [np.float32(5e-6)] * 2 + [np.float32(3e9)] * 2


@given(st.lists(st.integers(0, 6), min_size=2, max_size=80), st.data())
def test_a_cap_takes_from_every_unit_its_share(rows: list[int], data: st.DataObject) -> None:
    cap = data.draw(st.integers(1, len(rows) - 1))
    kept = evenly_over_units(np.array(rows, np.int32), cap).tolist()
    assert len(set(kept)) == cap
    assert kept == sorted(kept)
    n_of, kept_of = Counter(rows), Counter(rows[i] for i in kept)
    for row, n in n_of.items():
        assert abs(kept_of[row] - n * cap / len(rows)) < 1.0


@BOTH_WAYS
@given(UNIQUE, st.integers(1, 6))
def test_a_capped_window_is_a_part_of_the_whole_in_its_order(
    kernels: Kernels, spikes: list[Triple], cap: int
) -> None:
    inside = batch_of([s for s in spikes if s[0] > T0_US and KNOWN[s[1]]])
    end_us = T0_US + 140
    whole, _ = Tokenizer(140, ROW_OF, kernels=kernels).cut(inside, end_us, 0.0)
    capped, order = Tokenizer(140, ROW_OF, cap, kernels).cut(inside, end_us, 0.0)
    assert len(capped) == len(order) == min(cap, len(whole))
    tokens = tokens_of(whole)
    assert [t for t in tokens if t in set(tokens_of(capped))] == tokens_of(capped)
