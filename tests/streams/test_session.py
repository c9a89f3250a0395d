"""Behaviour at a time, and signals by name."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import SessionError
from streams.messages import SpikeBatch
from streams.sessions.session import Behavior, Session

NO_SPIKES = SpikeBatch(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32))


def session_with(*paths: str) -> Session:
    signal = Behavior(np.arange(3.0), np.zeros((3, 2)), "cm")
    return Session("s/2026-01-01/n", (), NO_SPIKES, dict.fromkeys(paths, signal), None, 3.0)


def by_hand(signal: Behavior, t_s: float) -> float:
    """Straight line between the two finite samples around `t_s`, unless they are too far apart."""
    known = [
        (float(t), float(v))
        for t, v in zip(signal.t_s, signal.values[:, 0], strict=True)
        if np.isfinite(v)
    ]
    steps = np.diff([t for t, _ in known])
    for (t_0, v_0), (t_1, v_1) in pairwise(known):
        if t_0 <= t_s <= t_1 and t_1 - t_0 <= max(0.1, 1.5 * float(np.median(steps))):
            return v_0 + (v_1 - v_0) * (t_s - t_0) / (t_1 - t_0)
    return np.nan


@given(
    st.lists(st.integers(1, 12), min_size=3, max_size=20),
    st.data(),
)
def test_interpolation_equals_the_one_by_hand(steps: list[int], data: st.DataObject) -> None:
    t_s = np.cumsum(steps) * 0.02
    values = data.draw(
        st.lists(
            st.one_of(st.integers(-50, 50), st.just(float("nan"))),
            min_size=len(t_s),
            max_size=len(t_s),
        )
    )
    signal = Behavior(t_s, np.array(values, np.float64)[:, None], "cm")
    asked_s = data.draw(st.lists(st.floats(-1.0, float(t_s[-1]) + 1.0), max_size=10))
    got = signal.at(np.array(asked_s))[:, 0]
    if np.isfinite(signal.values).sum() < 2:
        assert np.isnan(got).all()
        return
    for t, value in zip(asked_s, got, strict=True):
        assert value == pytest.approx(by_hand(signal, t), nan_ok=True, abs=1e-9)


def test_a_sample_that_is_partly_unknown_counts_as_a_gap() -> None:
    values = np.array([[0.0, 0.0], [1.0, np.nan], [2.0, 2.0]])
    near = Behavior(np.array([0.0, 0.04, 0.08]), values, "cm")
    far = Behavior(np.array([0.0, 0.1, 0.2, 0.21, 0.22, 0.23]), np.resize(values, (6, 2)), "cm")
    assert near.at(np.array([0.04])).tolist() == [[1.0, 1.0]]
    assert np.isnan(far.at(np.array([0.1]))).all()


def test_the_first_sample_after_a_gap_is_known() -> None:
    signal = Behavior(np.array([0.0, 0.02, 0.04, 1.1, 1.12]), np.arange(5.0)[:, None], "cm")
    got = signal.at(np.array([0.04, 0.5, 1.1, 1.11]))[:, 0]
    np.testing.assert_allclose(got, [2.0, np.nan, 3.0, 3.5])


def test_a_signal_answers_to_its_path_and_to_the_end_of_it() -> None:
    session = session_with("processing/behavior/Position/hand", "acquisition/eval_mask")
    assert session.signal("hand") is session.signal("processing/behavior/Position/hand")
    assert session.signal("Position/hand") is session.signal("hand")


@pytest.mark.parametrize("name", ["velocity", "and", ""])
def test_an_unknown_signal_is_answered_with_those_that_exist(name: str) -> None:
    session = session_with("processing/behavior/Position/hand")
    with pytest.raises(SessionError, match=r"no behaviour .*processing/behavior/Position/hand"):
        session.signal(name)


def test_an_ambiguous_signal_is_refused() -> None:
    session = session_with("processing/a/velocity", "processing/b/velocity")
    with pytest.raises(SessionError, match="several behaviours"):
        session.signal("velocity")
    assert session.signal("b/velocity").unit == "cm"


def test_a_session_without_behaviour_says_so() -> None:
    with pytest.raises(SessionError, match="it has: none"):
        session_with().signal("velocity")
