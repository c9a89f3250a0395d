"""When the page's process makes its pictures."""

from __future__ import annotations

import numpy as np
import pytest

from service.page.show import PICTURE_S, next_picture_s, pause_s


def begun_s(late_s: list[float]) -> list[float]:
    """Times at which pictures begin, each so much later than it was due."""
    t_due_s = 0.0
    begun: list[float] = []
    for late in late_s:
        begun.append(max(t_due_s, begun[-1] if begun else 0.0) + late)
        t_due_s = next_picture_s(t_due_s, PICTURE_S, begun[-1])
    return begun


@pytest.mark.parametrize("late_s", [0.0, 0.01, 0.03])
def test_pictures_that_are_a_little_late_are_as_many(late_s: float) -> None:
    assert begun_s([late_s] * 300)[-1] == pytest.approx(299 * PICTURE_S + late_s)


def test_pictures_that_a_stall_took_are_not_made_up_for() -> None:
    begun = begun_s([0.0] * 10 + [2.0] + [0.0] * 60)
    assert np.sum(np.array(begun) > 2.2) >= 55
    # One more at once, then at their rate.
    assert np.diff(begun)[12:] == pytest.approx(PICTURE_S)


@pytest.mark.parametrize("late_s", [0.0, 0.01, 0.04, 0.2])
def test_pictures_come_so_far_apart_that_a_screen_shows_each(late_s: float) -> None:
    """A screen of sixty pictures a second, and late ones of ours between those in time."""
    now_s = t_due_s = 0.0
    begun = []
    for n in range(60):
        now_s += late_s if n % 5 == 4 else 0.0
        begun.append(now_s)
        t_due_s = next_picture_s(t_due_s, PICTURE_S, now_s)
        now_s += pause_s(t_due_s, PICTURE_S, now_s)
    assert np.diff(begun).min() >= 0.99 / 60
    if late_s < 2 * PICTURE_S:
        assert len(begun) / (begun[-1] + PICTURE_S) == pytest.approx(30.0, rel=0.05)
