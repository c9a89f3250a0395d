"""Foreign stamps become microseconds since t0 once, and counts lie on their bins' edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.loop.ingest import convert
from streams.spikes.layouts import Parsed


def parsed(stamps: list[float]) -> Parsed:
    n = len(stamps)
    unit, count = np.arange(n, dtype=np.int32), np.full(n, 2, np.int32)
    return Parsed(np.array(stamps, np.float64), unit, count, np.zeros(0))


@given(
    st.lists(st.integers(-(10**9), 10**12), max_size=20),
    st.floats(0.0, 1e5),
    st.floats(-1e4, 1e4),
)
def test_stamps_keep_their_microsecond(t_us: list[int], t0_s: float, offset_s: float) -> None:
    stamps = [t0_s - offset_s + t * 1e-6 for t in t_us]
    batch = convert(parsed(stamps), offset_s, t0_s, None)
    assert np.abs(batch.t_us - np.array(t_us, np.int64)).max(initial=0) <= 1
    assert batch.t_us.dtype == np.int64
    assert batch.count.tolist() == [2] * len(t_us)


@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.floats(-0.4, 0.4)), max_size=20),
    st.sampled_from([0.001, 0.02, 0.05, 1 / 30]),
)
def test_jittered_counts_lie_on_the_edge_of_their_bin(
    bins: list[tuple[int, float]], bin_s: float
) -> None:
    stamps = [1000.0 + (i + jitter) * bin_s for i, jitter in bins]
    batch = convert(parsed(stamps), 0.0, 1000.0, bin_s)
    assert batch.t_us.tolist() == [round(i * bin_s * 1e6) for i, _ in bins]


@pytest.mark.parametrize(("stamp", "sign"), [(1.7e15, 1), (1e300, 1), (-1e300, -1)])
def test_stamps_of_another_world_stay_far_away(stamp: float, sign: int) -> None:
    (t_us,) = convert(parsed([stamp]), 0.0, 1000.0, None).t_us.tolist()
    assert sign * t_us > 10**12
