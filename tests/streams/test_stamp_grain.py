"""Whether equal stamps of a unit are two spikes of a block, or one that was sent twice."""

from __future__ import annotations

import numpy as np
import pytest

from streams.spikes.layouts.stamp_grain import StampGrain, are_blocks

N_UNITS = 20


def heard(stamps: np.ndarray, unit: np.ndarray, n_each: int) -> StampGrain:
    """A grain that saw the samples, so many a pull."""
    grain = StampGrain()
    for i in range(0, len(stamps), n_each):
        grain.note(stamps[i : i + n_each], unit[i : i + n_each].astype(np.int32))
    return grain


def poisson(rate_hz: float, seconds: float = 5.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(int(rate_hz))
    n = int(rate_hz * seconds)
    return np.sort(100.0 + rng.random(n) * seconds), rng.integers(0, N_UNITS, n)


@pytest.mark.parametrize("rate_hz", [300.0, 1000.0, 20_000.0])
@pytest.mark.parametrize("tick_s", [None, 1 / 30_000])
@pytest.mark.parametrize("n_each", [1, 7, 100])
def test_stamps_of_single_spikes_are_fine(
    rate_hz: float, tick_s: float | None, n_each: int
) -> None:
    stamps, unit = poisson(rate_hz)
    if tick_s:
        stamps = np.round(stamps / tick_s) * tick_s
    assert not heard(stamps, unit, n_each).is_coarse


@pytest.mark.parametrize("block_s", [1e-3, 5e-3, 20e-3, 0.1])
@pytest.mark.parametrize("rate_hz", [200.0, 2000.0, 20_000.0])
@pytest.mark.parametrize("n_each", [1, 30])
def test_stamps_of_blocks_are_coarse(block_s: float, rate_hz: float, n_each: int) -> None:
    stamps, unit = poisson(rate_hz)
    stamps = np.ceil(stamps / block_s) * block_s
    assert heard(stamps, unit, n_each).is_coarse


def test_blocks_that_come_unevenly_are_coarse_still() -> None:
    """As from a loop that is held up at times and then catches up (Neural Data Simulator)."""
    rng = np.random.default_rng(4)
    edges = 100.0 + np.cumsum(rng.choice([0.5e-3, 1e-3, 1e-3, 1e-3, 4e-3], 4000))
    stamps, unit = poisson(2300.0)
    stamps = edges[np.searchsorted(edges, stamps)]
    assert heard(stamps, unit, 12).is_coarse


@pytest.mark.parametrize("rate_hz", [30.0, 300.0])
def test_a_stream_in_which_all_comes_twice_is_no_stream_of_blocks(rate_hz: float) -> None:
    stamps, unit = poisson(rate_hz)
    assert not heard(np.repeat(stamps, 2), np.repeat(unit, 2), 8).is_coarse


@pytest.mark.parametrize(
    ("step_us", "blocks"), [(1, False), (33, False), (1000, True), (20_000, True)]
)
def test_a_recording(step_us: int, blocks: bool) -> None:
    stamps, _ = poisson(1000.0)
    t_us = np.ceil((stamps - 100.0) * 1e6 / step_us).astype(np.int64) * step_us
    assert are_blocks(t_us) is blocks
    assert not are_blocks(t_us[:1])
