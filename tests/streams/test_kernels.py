"""The kernels of numba do what numpy's do, from a pull to tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.messages import Repeats, SpikeBatch
from streams.spikes.kernels import numba_kernels, numpy_kernels
from streams.spikes.kernels.choose import NUMPY, Kernels
from streams.spikes.key_table import KeyTable
from streams.spikes.layouts.columns import Columns
from streams.spikes.layouts.events import EventLayout
from streams.spikes.layouts.layout import Parsed
from streams.spikes.ring import SpikeRing
from streams.spikes.tokenizer import Tokenizer
from tests.streams.ways import BOTH_WAYS, COMPILED

N_CHANNELS, HOP_US, BIN_US, T0_S = 6, 1000, 1500, 100.0
KNOWN_KEYS = tuple(f"ch{channel}/u1" for channel in range(N_CHANNELS - 1))
ROW_OF = np.array([4, 0, -1, 2, 1, *[-1] * 20], np.int32)


class Way:
    """A pull at a time from samples to tokens."""

    def __init__(self, kernels: Kernels, capacity: int, repeats: Repeats = "all") -> None:
        self.kernels, self.repeats = kernels, repeats
        table = KeyTable(KNOWN_KEYS, with_channel=True)
        self.layout = EventLayout(table, Columns(0, 1, 2), kernels=kernels)
        self.ring = SpikeRing(capacity, BIN_US, HOP_US, HOP_US, kernels)
        self.tokenizer = Tokenizer(BIN_US, ROW_OF, 9, kernels)
        self.known = ROW_OF >= 0

    def take_in(self, samples: np.ndarray, stamps: np.ndarray) -> list[Any]:
        parsed: Parsed = self.layout.parse(samples, stamps)
        t_us = self.kernels.stamps_to_us(parsed.t_s, 0.25, T0_S)
        batch = SpikeBatch(t_us, parsed.unit, parsed.count)
        latest_us = int(t_us.max(initial=0)) - 200
        n = self.ring.admit(batch, self.known, latest_us, self.repeats)
        told = [parsed.t_s, parsed.unit, parsed.count, parsed.keep_alive_s, t_us]
        return [*(a.tolist() for a in told), parsed.n_lost, parsed.n_duplicate, n, *self.stands()]

    def cut(self, k: int) -> list[Any]:
        spikes, slots = self.ring.cut(k * HOP_US)
        window, kept = self.tokenizer.cut(spikes, k * HOP_US, 0.0)
        self.ring.assign_fate(slots[kept], "used")
        self.ring.close(k * HOP_US)
        arrays = (spikes.t_us, slots, window.unit, window.t_rel, window.count, kept)
        return [*((a.dtype, a.tobytes()) for a in arrays), *self.stands()]

    def stands(self) -> list[Any]:
        ring = self.ring
        return [ring.fates.as_dict(), ring.n_pending, ring.newest_us, ring.is_as_cut(10**9)]


ROWS = st.lists(
    st.tuples(st.integers(0, N_CHANNELS - 1), st.integers(0, 300)), min_size=1, max_size=12
)
FAULTS = st.sampled_from(["", "", "", "", "unsorted", "again", "lost", "keep-alive", "unit 2"])


@given(
    st.lists(st.tuples(ROWS, FAULTS), max_size=14),
    st.sampled_from([16, 40, 500]),
    st.sampled_from(["all", "older", "none"]),
)
def test_every_pull_gives_what_numpy_makes_of_it(
    pulls: list[tuple[list[tuple[int, int]], str]], capacity: int, repeats: Repeats
) -> None:
    ways = Way(NUMPY, capacity, repeats), Way(COMPILED, capacity, repeats)
    t_us, number, k = 1, 0, 1
    for rows, fault in pulls:
        steps_us = np.cumsum([step for _, step in rows])
        stamps_us = t_us + steps_us
        if fault == "unsorted":
            stamps_us = stamps_us[::-1]
        numbers = number + np.arange(len(rows)) + (fault == "lost")
        unit = np.full(len(rows), -1 if fault == "keep-alive" else 2 if fault == "unit 2" else 1)
        samples = np.array([[channel for channel, _ in rows], unit, numbers], np.int32).T.copy()
        stamps = T0_S - 0.25 + stamps_us * 1e-6
        for _ in range(2 if fault == "again" else 1):
            told = [way.take_in(samples, stamps) for way in ways]
            assert told[0] == told[1]
        t_us, number = int(steps_us[-1]) + t_us, int(numbers[-1]) + 1
        while k * HOP_US < t_us:
            cuts = [way.cut(k) for way in ways]
            assert cuts[0] == cuts[1]
            k += 1


@BOTH_WAYS
@pytest.mark.parametrize("repeats", ["all", "older", "none"])
def test_plain_pulls_never_go_the_long_way(
    monkeypatch: pytest.MonkeyPatch, repeats: Repeats, kernels: Kernels
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("it went the long way")

    way, ones = Way(kernels, 50, repeats), np.ones(1, np.int32)
    way.layout.parse(np.array([[0, 1, 0]], np.int32), np.array([T0_S]))
    way.ring.admit(SpikeBatch(np.array([1]), 0 * ones, ones), way.known, 10**9)
    for part, name in ((EventLayout, "_parse_any"), (SpikeRing, "_admit_any")):
        monkeypatch.setattr(part, name, refuse)
    if kernels is COMPILED:
        for name in ("read_plain", "order_tokens"):
            monkeypatch.setattr(numpy_kernels, name, refuse)
    for i in range(1, 40):
        samples = np.array([[0, 1, 2 * i - 1], [3, 1, 2 * i]], np.int32)
        stamps = T0_S + 1e-3 * i + np.array([1e-4, 1e-4])
        t_us = kernels.stamps_to_us(stamps, 0.0, T0_S)
        parsed = way.layout.parse(samples, stamps)
        batch = SpikeBatch(t_us, parsed.unit, parsed.count)
        assert way.ring.admit(batch, way.known, 10**9, repeats) == 2
        spikes, slots = way.ring.cut(i * HOP_US + HOP_US)
        window, kept = way.tokenizer.cut(spikes, i * HOP_US + HOP_US, 0.0)
        assert window.unit.tolist()[-2:] == [2, 4]
        way.ring.assign_fate(slots[kept], "used")
        way.ring.close(i * HOP_US + HOP_US)
    assert (way.ring.fates.used, way.ring.n_pending) == (78, 0)


@BOTH_WAYS
def test_many_spikes_of_one_microsecond_in_any_order(kernels: Kernels) -> None:
    """As counts come: a bin's edge stamps them all; rows stand in another order than units."""
    n = 20 * numba_kernels.MOST_TIED
    rng = np.random.default_rng(0)
    unit, row_of = np.arange(n, dtype=np.int32), rng.permutation(n).astype(np.int32)
    ring = SpikeRing(2 * n, HOP_US, HOP_US, HOP_US, kernels)
    tokenizer = Tokenizer(HOP_US, row_of, kernels=kernels)
    for order in (unit, rng.permutation(unit)):
        batch = SpikeBatch(np.full(n, 500), order, np.full(n, 3, np.int32))
        ring.admit(batch, np.ones(n, np.bool_), 10**6)
    assert (ring.n_pending, ring.fates.duplicate) == (3 * n, 3 * n)
    spikes, _ = ring.cut(HOP_US)
    window, kept = tokenizer.cut(spikes, HOP_US, 0.0)
    assert window.unit.tolist() == list(range(n))
    assert set(window.count.tolist()) == {3.0}
    assert row_of[spikes.unit[kept]].tolist() == list(range(n))


@pytest.mark.parametrize("unit", [3, 2**31 - 1])
def test_a_unit_that_no_array_has_is_not_read_beyond_it(unit: int) -> None:
    ones = np.ones(1, np.int32)
    ring = SpikeRing(10, HOP_US, HOP_US, HOP_US, COMPILED)
    ring.admit(SpikeBatch(np.array([1]), 0 * ones, ones), np.ones(3, np.bool_), 9)
    beyond = SpikeBatch(np.array([5]), unit * ones, ones)
    with pytest.raises(IndexError):
        ring.admit(beyond, np.ones(3, np.bool_), 9)
    with pytest.raises(IndexError):
        Tokenizer(HOP_US, np.zeros(3, np.int32), kernels=COMPILED).cut(beyond, HOP_US, 0.0)
