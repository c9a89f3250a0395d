"""The page's running scores, against calibration's and against trials counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from calibration.scoring import score_output
from service.page.scores import RunningR2, ScoredTrial, fitts_bits_per_s, grid_bits_per_s
from streams.messages import SpikeBatch
from streams.sessions.session import Behavior, Session


def session(signal: Behavior, duration_s: float) -> Session:
    none = SpikeBatch(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32))
    return Session("nobody/2026-11-28/walk", (), none, {"v": signal}, None, duration_s)


def test_r2_is_calibrations() -> None:
    rng = np.random.default_rng(1)
    t_s = np.sort(rng.uniform(0.0, 29.0, 2000))
    t_s = t_s[(t_s < 11.0) | (t_s > 12.0)]  # a gap, which nobody bridges
    values = np.cumsum(rng.normal(0.0, 1.0, (len(t_s), 2)), axis=0)
    at_s = np.arange(0.5, 28.5, 0.02)
    signal = Behavior(t_s, values, "cm/s")
    decoded = np.nan_to_num(signal.at(at_s)) + rng.normal(0.0, 5.0, (len(at_s), 2))
    running = RunningR2()
    for t, value in zip(t_s, values, strict=True):
        running.add_actual(float(t), value.tolist())
    for t, value in zip(at_s, decoded, strict=True):
        running.add_decoded(float(t), value.tolist())
    wanted = score_output(decoded, at_s, signal, session(signal, 29.0)).r2
    assert running.r2() == pytest.approx(wanted, abs=1e-12)


def test_r2_is_of_the_last_seconds() -> None:
    running = RunningR2(over_s=5.0)
    for i in range(1000):
        t_s, value = i * 0.02, math.sin(i * 0.1)
        running.add_actual(t_s, [value])
        running.add_decoded(t_s - 0.01, [value if i > 600 else -value])
    found = running.r2()
    assert found is not None
    assert found[0] > 0.9


def test_r2_waits_for_enough_and_begins_anew_when_time_goes_back() -> None:
    running = RunningR2()
    assert running.r2() is None
    for i in range(100):
        running.add_actual(i * 0.02, [float(i)])
        running.add_decoded(i * 0.02, [float(i)])
    assert running.r2() == pytest.approx([1.0])
    running.add_decoded(0.0, [0.0])
    assert running.r2() is None


def test_r2_of_behavior_that_rests_is_not_a_number() -> None:
    running = RunningR2()
    for i in range(100):
        running.add_actual(i * 0.02, [1.0, float(i)])
        running.add_decoded(i * 0.02, [1.0, float(i)])
    found = running.r2()
    assert found is not None
    assert math.isnan(found[0])
    assert found[1] == pytest.approx(1.0)


def reach(off_cm: float, seconds: float = 2.0, *, is_success: bool = True) -> ScoredTrial:
    return ScoredTrial(seconds, is_success, (10.0, 0.0), (0.0, 0.0), (10.0 + off_cm, 0.7))


def test_fitts_by_hand() -> None:
    off = [-1.0, -0.5, 0.0, 0.5, 1.0]
    trials = [reach(one) for one in off]
    width = 4.133 * np.std(off, ddof=1)
    assert fitts_bits_per_s(trials) == pytest.approx(math.log2(10.0 / width + 1.0) / 2.0)
    failed = [reach(9.0, 5.0, is_success=False), ScoredTrial(1.0, True)]
    assert fitts_bits_per_s(trials + failed) == fitts_bits_per_s(trials)
    assert fitts_bits_per_s(trials[:4]) is None


def test_grid_by_hand() -> None:
    trials = [ScoredTrial(1.5, i != 3) for i in range(6)]
    assert grid_bits_per_s(trials, 9) == pytest.approx(3.0 * (5 - 1) / 9.0)
    misses = [ScoredTrial(1.0, is_success=False)] * 6
    assert grid_bits_per_s(misses, 9) == 0.0
    assert grid_bits_per_s(trials, 2) is None
    assert grid_bits_per_s(trials[:4], 9) is None
