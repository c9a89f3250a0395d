"""From when on a subject that is being calibrated acquires targets as with a reference."""

from __future__ import annotations

import math

import pytest

from service.demo.driven import WINDOW_S, DrivenTargets


def heard(t_driven_s: float, acquired_s: list[float]) -> DrivenTargets:
    targets = DrivenTargets("nobody", "")
    targets.t_driven_s, targets._acquired_s = t_driven_s, acquired_s
    return targets


def test_only_driven_targets_count_and_a_whole_window_of_them() -> None:
    # By hand from 100 s on, one a second; driven from 120 s on, slowly, from 150 s on two a second.
    by_hand = [100.0 + i for i in range(20)]
    slow = [120.0 + 5.0 * i for i in range(1, 7)]
    fast = [150.0 + 0.5 * i for i in range(1, 100)]
    targets = heard(120.0, by_hand + slow + fast)
    assert targets.since(90.0) == 30.0
    from_s = targets.reaches(60.0, 90.0)
    assert from_s is not None
    n = sum(90.0 + from_s < t_s <= 90.0 + from_s + WINDOW_S for t_s in slow + fast)
    assert n >= 60.0 * WINDOW_S / 60.0
    assert 120.0 - 90.0 < from_s <= 150.0 - 90.0
    assert targets.reaches(1000.0, 90.0) is None


def test_nobody_drove() -> None:
    targets = heard(math.inf, [1.0, 2.0])
    assert targets.since(0.0) is None
    assert targets.reaches(1.0, 0.0) is None


def test_how_much_was_assisted() -> None:
    targets = heard(110.0, [])
    targets._assisted = [(110.0, 0.8), (120.0, 0.4), (125.0, 0.0)]
    assert targets.assistance(10.0, 100.0) == pytest.approx((10.0 * 0.8 + 5.0 * 0.4) / WINDOW_S)
    assert targets.assistance(25.0, 100.0) == 0.0
