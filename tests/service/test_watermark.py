"""The watermark: what is known to have come, and by how much a source's order may be trusted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.loop.intake.arrivals import Arrival
from service.loop.intake.watermark import AGAIN_AFTER_S, LEARNT_AFTER_S, Watermark
from streams.messages import SpikeBatch

SETTLE_S = 0.02


def arrive(
    watermark: Watermark, t_us: list[int], *, mark_us: int | None = None, t_s: float | None = None
) -> None:
    """Stamps in microseconds since 0, arriving with the newest unless the test says later."""
    stamps = np.array(t_us, np.int64)
    newest_us = max([*t_us, *([] if mark_us is None else [mark_us])])
    arrived_s = newest_us * 1e-6 if t_s is None else t_s
    ones = np.ones(len(stamps), np.int32)
    watermark.note(
        Arrival(
            t_s=arrived_s,
            t_read_s=arrived_s,
            batch=SpikeBatch(stamps, np.zeros(len(stamps), np.int32), ones),
            latest_us=round(arrived_s * 1e6) + 5000,
            newest_keep_alive_us=mark_us,
            invalid_us=np.zeros(0, np.int64),
        ),
        stamps,
        0.0,
        SETTLE_S,
    )


def events(watermark: Watermark) -> list[dict[str, object]]:
    return [happened.detail for happened in watermark.drain()]


def learn(watermark: Watermark, until_s: float = LEARNT_AFTER_S + 1.0) -> int:
    """Blocks of two spikes every 5 ms, in order; the last block's end."""
    end_us = 0
    while end_us < until_s * 1e6:
        end_us += 5000
        arrive(watermark, [end_us - 3000, end_us - 100])
    return end_us


def test_a_spike_tells_of_those_before_it_and_a_mark_of_its_own_instant_too() -> None:
    watermark = Watermark()
    assert not watermark.has_passed(0)
    arrive(watermark, [1000, 2000])
    assert watermark.has_passed(1999)
    assert not watermark.has_passed(2000)
    arrive(watermark, [], mark_us=2000)
    assert watermark.has_passed(2000)
    assert not watermark.has_passed(2001)


def test_it_is_not_trusted_before_the_source_has_been_watched() -> None:
    watermark = Watermark()
    learn(watermark, LEARNT_AFTER_S - 0.1)
    assert not watermark.is_learnt
    learn(watermark)
    assert watermark.is_learnt
    watermark.begin_anew()
    assert not watermark.is_learnt
    assert watermark.until_us is None


def test_disorder_is_waited_for_and_forgotten_after_a_minute_in_order() -> None:
    watermark = Watermark()
    end_us = learn(watermark)
    assert events(watermark) == []
    arrive(watermark, [end_us + 4000, end_us + 1000])  # 3 ms behind, within one chunk
    assert watermark.disorder_s == pytest.approx(3e-3)
    assert not watermark.has_passed(end_us + 1000)
    assert watermark.has_passed(end_us + 999)
    (told,) = events(watermark)
    assert told["behind"] == "spikes"
    assert told["disorder_ms"] == pytest.approx(3.0)
    assert "3.0 ms after spikes with later stamps" in str(told["warning"])
    assert not watermark.is_learnt
    arrive(watermark, [end_us + 8000], t_s=end_us * 1e-6 + AGAIN_AFTER_S + 0.1)
    assert watermark.is_learnt
    for _ in range(61):
        end_us += 1_000_000
        arrive(watermark, [end_us])
    assert watermark.disorder_s == 0
    assert watermark.is_learnt
    assert events(watermark) == [{"behind": "spikes", "disorder_ms": 0.0}]


def test_a_mark_that_came_too_early_is_waited_for() -> None:
    watermark = Watermark()
    arrive(watermark, [1000], mark_us=10_000)
    assert watermark.has_passed(10_000)
    arrive(watermark, [8000], t_s=0.012)
    assert not watermark.has_passed(8001)
    assert watermark.has_passed(8000)


def test_blocks_out_of_order_within_are_whole_at_their_mark() -> None:
    watermark = Watermark()
    arrive(watermark, [4900, 1000, 3000], mark_us=5000)
    arrive(watermark, [9900, 5500, 7000], mark_us=10_000)
    assert watermark.disorder_s == pytest.approx(4.4e-3)
    assert watermark.has_passed(10_000)


def test_what_comes_later_than_the_settle_time_tells_no_disorder() -> None:
    watermark = Watermark()
    end_us = learn(watermark)
    arrive(watermark, [end_us - 25_000], t_s=end_us * 1e-6)
    assert watermark.disorder_s == 0
    arrive(watermark, [end_us - 15_000], t_s=end_us * 1e-6)
    assert watermark.disorder_s == pytest.approx(14.9e-3)


def test_stamps_of_the_future_mark_nothing() -> None:
    watermark = Watermark()
    arrive(watermark, [], mark_us=50_000, t_s=0.01)
    assert watermark.until_us is None


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9)), min_size=1, max_size=60),
    st.integers(1, 7),
)
def test_nothing_that_came_once_as_late_is_beyond_it_again(
    steps: list[tuple[int, int]], n_chunk: int
) -> None:
    """Any order, in any chunks: the second time round, all is behind the watermark in time."""
    ahead_us, stamps = 0, []
    for ahead, behind in steps:
        ahead_us += ahead * 100
        stamps.append(ahead_us + 1000 - 100 * behind)
    watermark, period_us = Watermark(), stamps[-1] + 2000
    for turn in range(2):
        for i in range(0, len(stamps), n_chunk):
            chunk = [turn * period_us + us for us in stamps[i : i + n_chunk]]
            if turn:
                assert not watermark.has_passed(min(chunk))
            t_s = (turn * period_us + max(stamps[: i + n_chunk])) * 1e-6
            arrive(watermark, chunk, t_s=t_s)
