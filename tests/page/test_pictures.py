"""When the page's process makes its pictures."""

from __future__ import annotations

import numpy as np
import pytest

from service.page.show import PICTURE_S, next_picture_s


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
