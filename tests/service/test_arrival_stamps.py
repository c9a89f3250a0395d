"""Times of arrival in place of stamps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.loop.intake.arrival_stamps import LONGEST_BLOCK_S, ArrivalStamps

PULLS = st.lists(st.tuples(st.floats(1e-4, 0.4), st.integers(0, 40)), min_size=1, max_size=30)


@given(PULLS)
def test_samples_lie_after_the_pull_before_and_the_last_is_now(
    pulls: list[tuple[float, int]],
) -> None:
    stamper, t_s, newest_s = ArrivalStamps(), 100.0, -np.inf
    for apart_s, n in pulls:
        t_s += apart_s
        stamps = stamper.stamps(n, t_s)
        assert len(stamps) == n
        if n:
            assert stamps[-1] == t_s
            assert (np.diff(stamps) >= 0).all()
            assert stamps[0] > newest_s
            newest_s = t_s


def test_a_block_fills_the_time_in_which_it_was_gathered() -> None:
    stamper = ArrivalStamps()
    stamper.stamps(3, 10.0)
    np.testing.assert_allclose(stamper.stamps(4, 10.1), [10.025, 10.05, 10.075, 10.1])


def test_after_a_silence_nothing_is_spread_over_it() -> None:
    stamper = ArrivalStamps()
    stamper.stamps(1, 10.0)
    t_s = 10.0 + 2 * LONGEST_BLOCK_S
    assert stamper.stamps(2, t_s).tolist() == pytest.approx([t_s, t_s])
