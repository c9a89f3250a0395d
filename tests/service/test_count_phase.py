"""Bins of counts keep their numbers, whatever the device's true rate is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.loop.intake.count_phase import CountPhase

BIN_S = 0.02
BIN_US = 20_000


def numbers(stamps: np.ndarray, bin_s: float = BIN_S) -> list[int]:
    ends_us = CountPhase(bin_s).ends_us(stamps)
    assert (ends_us % round(bin_s * 1e6) == 0).all()
    return (ends_us // round(bin_s * 1e6)).tolist()


@given(
    st.floats(-0.02, 0.02),
    st.lists(st.floats(-0.3, 0.3), min_size=50, max_size=300),
    st.sampled_from([0.001, 0.02, 0.05, 1 / 30]),
)
def test_bins_of_a_drifting_device_keep_their_numbers(
    off: float, jitter: list[float], bin_s: float
) -> None:
    true_bin_s = bin_s / (1.0 + off)
    stamps = (np.arange(1, len(jitter) + 1) + np.array([0.0, *jitter[1:]])) * true_bin_s
    found = numbers(np.sort(stamps), bin_s)
    assert found == list(range(found[0], found[0] + len(jitter)))


@pytest.mark.parametrize("rate_hz", [50.05, 49.95, 50.5, 49.0])
def test_an_hour_of_drift_moves_the_grid_and_loses_no_bin(rate_hz: float) -> None:
    n = 20_000
    phase = CountPhase(BIN_S)
    stamps = np.arange(1, n + 1) / rate_hz
    ends_us = phase.ends_us(stamps)
    assert (np.diff(ends_us) == BIN_US).all()
    assert phase.moved_s == pytest.approx(stamps[-1] - ends_us[-1] * 1e-6, abs=1e-4)


def test_a_bin_that_never_came_leaves_its_number_out() -> None:
    stamps = np.delete(np.arange(1, 101) * BIN_S / 1.001, [50, 51])
    found = numbers(stamps)
    assert sorted(set(range(found[0], found[-1] + 1)) - set(found)) == [51, 52]


def test_a_bin_that_comes_again_has_its_number_again() -> None:
    assert numbers(np.array([0.02, 0.04, 0.04, 0.02, 0.06])) == [1, 2, 2, 1, 3]
