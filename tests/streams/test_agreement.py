"""Units that were replaced are noticed without labels; another amount of movement is not."""

from __future__ import annotations

import numpy as np
import pytest

from streams.messages import Float64s
from streams.spikes.agreement import (
    BIN_S,
    BLOCK_S,
    Reference,
    SharedSums,
    lost_by,
    moved_since,
    reference_of,
)

N_UNITS, SECONDS, R2 = 60, 300.0, 0.8
KEYS = tuple(f"u{i}" for i in range(N_UNITS))


def tuning(seed: int) -> Float64s:
    """(U, 2) slopes of log rate."""
    slopes: Float64s = 0.5 * np.random.default_rng(seed).standard_normal((N_UNITS, 2))
    return slopes


def counts_of(slopes: Float64s, amount: float = 1.0, seed: int = 0) -> tuple[Float64s, Float64s]:
    """Counts in bins, and the movement, some of which is slower and larger."""
    rng = np.random.default_rng(seed)
    t_s = np.arange(0.0, SECONDS, BIN_S)
    phases = rng.uniform(0.0, 2.0 * np.pi, (2, 6))
    hz = rng.uniform(0.2, 1.0, (2, 6))
    moved = amount * np.sin(2.0 * np.pi * hz[..., None] * t_s + phases[..., None]).sum(axis=1).T / 2
    rates = 8.0 * np.exp(moved @ slopes.T)
    return rng.poisson(rates * BIN_S).astype(np.float64), moved


def reference(slopes: Float64s) -> Reference:
    found = reference_of(KEYS, *counts_of(slopes), R2)
    assert found is not None
    return Reference.from_json(found.as_json())


def share_of(told: Reference, counts: Float64s) -> float:
    sums = SharedSums(told.mean, told.deviation, told.readout)
    for row in counts:
        sums.add(row)
    moved = moved_since(told, sums)
    assert moved is not None
    assert moved.r2_lost == pytest.approx(lost_by(moved.share, R2))
    return moved.share


def test_the_share_of_the_signal_that_is_the_same_is_told() -> None:
    before, others = tuning(0), tuning(1)
    told = reference(before)
    for n_same in (60, 45, 30, 10):
        mixed = before.copy()
        mixed[n_same:] = others[n_same:]
        found = share_of(told, counts_of(mixed, seed=2)[0])
        assert found == pytest.approx((n_same / N_UNITS) ** 2, abs=0.12)


@pytest.mark.parametrize("amount", [0.6, 1.5])
def test_how_much_the_subject_moves_changes_nothing(amount: float) -> None:
    slopes = tuning(0)
    assert share_of(reference(slopes), counts_of(slopes, amount, seed=3)[0]) > 0.9


def test_rates_that_drift_change_nothing() -> None:
    slopes = tuning(0)
    told = reference(slopes)
    counts, _ = counts_of(slopes, seed=4)
    slow = np.linspace(0.0, 1.0, len(counts))[:, None] * np.linspace(-1.0, 1.0, N_UNITS)
    assert share_of(told, np.maximum(counts + np.rint(slow), 0.0)) > 0.85


def test_where_units_share_nothing_nothing_is_told() -> None:
    told = reference(tuning(0))
    noise = np.random.default_rng(0).poisson(1.0, (3000, N_UNITS)).astype(np.float64)
    sums = SharedSums(told.mean, told.deviation, told.readout)
    for row in noise:
        sums.add(row)
    assert moved_since(told, sums) is None
    counts, moved = counts_of(tuning(0))
    assert reference_of(KEYS, counts[:50], moved[:50], R2) is None


def test_old_blocks_are_forgotten() -> None:
    before, others = tuning(0), tuning(1)
    told = reference(before)
    sums = SharedSums(told.mean, told.deviation, told.readout, over_s=100.0)
    for slopes in (others, before):
        for row in counts_of(slopes, seed=5)[0]:
            sums.add(row)
    assert sums.seconds == 100.0
    moved = moved_since(told, sums)
    assert moved is not None
    assert moved.share > 0.8


def test_too_little_is_not_compared() -> None:
    told = reference(tuning(0))
    sums = SharedSums(told.mean, told.deviation, told.readout)
    for row in counts_of(tuning(0))[0][: round(1.5 * BLOCK_S / BIN_S)]:
        sums.add(row)
    assert moved_since(told, sums) is None


def test_what_is_lost() -> None:
    assert lost_by(1.0, 0.8) == pytest.approx(0.0)
    assert lost_by(0.0, 0.8) == pytest.approx(0.8)
    assert lost_by(0.5, 0.8) == pytest.approx(0.8 - 0.4 / 0.6)
