import math
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.simulation.subject import CENTRE, REACH_CM, ReachTask, targets_of


def task_at(*targets: tuple[float, float]) -> ReachTask:
    return ReachTask(iter(targets), radius_cm=2.0, hold_s=0.4, timeout_s=5.0)


def test_resting_in_the_target_for_the_hold_acquires_it() -> None:
    task = task_at((10.0, 0.0), CENTRE)
    assert task.step(0.0, CENTRE) == ["trial_start i=0 x=10.000 y=0.000"]
    assert task.step(1.0, (9.0, 0.0)) == ["target_entered i=0"]
    assert task.step(1.3, (10.0, 1.0)) == []
    assert task.step(1.4, (10.0, 0.0)) == [
        "trial_stop i=0 success=1",
        "trial_start i=1 x=0.000 y=0.000",
    ]
    assert task.n_acquired == 1
    assert task.acquisition_s == [pytest.approx(1.4)]


def test_leaving_begins_the_hold_anew() -> None:
    task = task_at((10.0, 0.0), CENTRE)
    task.step(0.0, CENTRE)
    task.step(1.0, (10.0, 0.0))
    assert task.step(1.35, (7.0, 0.0)) == ["target_left i=0"]
    task.step(1.4, (10.0, 0.0))
    assert task.step(1.6, (10.0, 0.0)) == []
    assert task.n_acquired == 0


def test_passing_through_acquires_nothing() -> None:
    task = task_at((10.0, 0.0), CENTRE)
    task.step(0.0, CENTRE)
    for i in range(1, 400):
        task.step(i * 0.005, (i * 0.1, 0.0))
    assert task.n_acquired == 0


def test_a_target_is_given_up_after_its_time() -> None:
    task = task_at((10.0, 0.0), CENTRE)
    task.step(2.0, CENTRE)
    assert task.step(6.9, CENTRE) == []
    assert task.step(7.0, CENTRE)[0] == "trial_stop i=0 success=0"
    assert task.n_acquired == 0
    assert [trial.success for trial in task.trials] == [False]
    assert (task.trials[0].t_start, task.trials[0].t_stop) == (2.0, 7.0)


def test_centre_out_shows_each_direction_once_a_round_and_returns_between() -> None:
    shown = list(islice(targets_of("centre-out", 5), 32))
    assert shown[1::2] == [CENTRE] * 16
    for round_ in (shown[0:16:2], shown[16:32:2]):
        angles = sorted(round(math.degrees(math.atan2(y, x))) % 360 for x, y in round_)
        assert angles == list(range(0, 360, 45))
        assert all(math.isclose(math.hypot(*target), REACH_CM) for target in round_)


@given(st.integers(0, 1000))
def test_random_targets_lie_inside_and_apart(seed: int) -> None:
    shown = np.array([CENTRE, *islice(targets_of("random", seed), 30)])
    assert np.abs(shown).max() <= REACH_CM
    assert np.linalg.norm(np.diff(shown, axis=0), axis=1).min() >= 6.0


def test_the_same_seed_shows_the_same_targets() -> None:
    assert list(islice(targets_of("random", 3), 5)) == list(islice(targets_of("random", 3), 5))
    assert list(islice(targets_of("random", 3), 5)) != list(islice(targets_of("random", 4), 5))
