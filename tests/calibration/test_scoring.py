"""Scores: R2 as defined, intervals over blocks, the sign of a lag, splits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.errors import CalibrationError
from calibration.scoring import (
    best_lag,
    blocks_of,
    parse_split,
    r2_score,
    score_output,
)
from streams.sessions.session import Behavior, Trials, in_intervals
from tests.decoders.sessions import VELOCITY, tuned_session

SESSION = tuned_session()
SIGNAL = SESSION.behavior[VELOCITY]
T_S = np.arange(1, 1900) * 0.02


def test_r2_is_one_minus_sse_over_sst() -> None:
    actual = np.array([[0.0], [1.0], [2.0], [np.nan]])
    assert r2_score(np.array([[0.0], [1.0], [2.0], [7.0]]), actual) == [1.0]
    assert r2_score(np.array([[1.0], [1.0], [1.0], [7.0]]), actual) == [0.0]
    assert r2_score(np.array([[0.0], [1.0], [3.0], [7.0]]), actual) == [0.5]


def test_a_perfect_decode_has_an_interval_of_one() -> None:
    score = score_output(SIGNAL.at(T_S), T_S, SIGNAL, SESSION)
    assert score.r2 == [1.0, 1.0]
    assert score.ci == [[1.0, 1.0], [1.0, 1.0]]
    assert (score.best_lag_s, score.blocks, score.n) == (0.0, "trials", len(T_S))


def test_the_interval_holds_r2_and_narrows_with_less_noise() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for sd in (8.0, 2.0):
        decoded = SIGNAL.at(T_S) + rng.normal(0.0, sd, (len(T_S), 2))
        score = score_output(decoded, T_S, SIGNAL, SESSION)
        for r2, (low, high) in zip(score.r2, score.ci, strict=True):
            assert low < r2 < high
        widths.append(score.ci[0][1] - score.ci[0][0])
    assert widths[1] < widths[0]


@pytest.mark.parametrize("lag_s", [-0.1, 0.06])
def test_a_lag_is_positive_when_the_decode_is_of_the_future(lag_s: float) -> None:
    found, scores = best_lag(SIGNAL.at(T_S + lag_s), T_S, SIGNAL, 0.1)
    assert found == pytest.approx(lag_s)
    assert min(scores) > 0.999


def test_few_trials_give_blocks_of_ten_seconds_unless_those_are_fewer() -> None:
    long_ones = replace(SESSION, trials=Trials(np.array([1.0, 20.0]), np.array([7.0, 30.0])))
    block, kind = blocks_of(long_ones, T_S)
    assert kind == "10 s blocks"
    assert set(block.tolist()) == {0, 1, 2, 3}
    assert blocks_of(SESSION, T_S)[1] == "trials"
    block, kind = blocks_of(SESSION, T_S[T_S > 35.0])
    assert kind == "trials"
    assert set(block.tolist()) == {18, 19}


def test_splits() -> None:
    assert parse_split("last:0.2", 100.0) == [(80.0, 100.0)]
    assert parse_split("10-20,35.5-60", 100.0) == [(10.0, 20.0), (35.5, 60.0)]
    assert parse_split("all", 7.0) == [(0.0, 7.0)]
    chosen = in_intervals(np.array([0.0, 10.0, 10.02, 20.0, 20.02]), [(10.0, 20.0)])
    assert chosen.tolist() == [False, False, True, True, False]


@pytest.mark.parametrize("split", ["last:0", "last:2", "first:0.2", "20-10", "10", "a-b"])
def test_impossible_splits_are_refused(split: str) -> None:
    with pytest.raises(CalibrationError, match="cannot score split"):
        parse_split(split, 100.0)


def test_behaviour_that_is_absent_still_or_of_another_length_is_refused() -> None:
    with pytest.raises(CalibrationError, match="0 usable samples"):
        score_output(np.zeros((5, 2)), 1e4 + np.arange(5.0), SIGNAL, SESSION)
    still = Behavior(SIGNAL.t_s, np.ones_like(SIGNAL.values), "cm/s")
    with pytest.raises(CalibrationError, match="does not vary"):
        score_output(np.zeros((len(T_S), 2)), T_S, still, SESSION)
    with pytest.raises(CalibrationError, match="gives 3 dimensions"):
        score_output(np.zeros((len(T_S), 3)), T_S, SIGNAL, SESSION)


def test_one_trial_alone_is_refused() -> None:
    chosen = (T_S > 2.0) & (T_S < 6.0)
    alone = replace(SESSION, trials=Trials(np.array([1.0]), np.array([7.0])))
    with pytest.raises(CalibrationError, match=r"one trial only .*score a longer part"):
        score_output(SIGNAL.at(T_S[chosen]), T_S[chosen], SIGNAL, alone)
