"""Windows of any length come to stand in a bucket, and leave nothing of the one before."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from export.backends.staging import Staging
from streams.messages import TokenWindow


def window(n: int, seed: int = 0) -> TokenWindow:
    rng = np.random.default_rng(seed)
    return TokenWindow(
        rng.integers(1, 50, n).astype(np.int32),
        np.sort(rng.uniform(0.001, 0.02, n)).astype(np.float32),
        rng.integers(1, 4, n).astype(np.float32),
        t_window=1.0,
    )


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_every_window_is_followed_by_padding(lengths: list[int]) -> None:
    staging = Staging([8, 16, 64])
    for i, n in enumerate(lengths):
        given_window = window(n, seed=i)
        bucket = staging.take(given_window, 0.5)
        assert bucket == min(b for b in (8, 16, 64) if b >= n)
        np.testing.assert_array_equal(staging.unit[:n], given_window.unit)
        np.testing.assert_array_equal(staging.t_rel[:n], given_window.t_rel)
        np.testing.assert_array_equal(staging.count[:n], given_window.count)
        assert not staging.count[n:bucket].any()
        assert not staging.unit[n:bucket].any()
        assert staging.lead_s[0] == np.float32(0.5)


def test_buffers_never_move() -> None:
    staging = Staging([8, 16])
    before = [a.ctypes.data for a in (staging.unit, staging.t_rel, staging.count, staging.lead_s)]
    for n in (0, 16, 3, 9):
        staging.take(window(n), 0.1)
    after = [a.ctypes.data for a in (staging.unit, staging.t_rel, staging.count, staging.lead_s)]
    assert before == after


def test_too_many_tokens_are_thinned_evenly_over_units() -> None:
    staging = Staging([8])
    unit = np.repeat(np.arange(4, dtype=np.int32), 4)
    times = np.linspace(0, 0.02, 16, dtype=np.float32)
    assert staging.take(TokenWindow(unit, times, np.ones(16, np.float32), 0.0), 0.0) == 8
    assert np.bincount(staging.unit).tolist() == [2, 2, 2, 2]
