import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.errors import SimulationError
from streams.messages import SpikeBatch
from streams.simulation.cortex import MotorCortex, RateNoise, Refractory, population_on

SECONDS = 60


def sweep(seconds: int) -> tuple[np.ndarray, np.ndarray]:
    """A plan that turns slowly at 20 cm/s, and rests at the centre."""
    angle = 2.0 * np.pi * 0.5 * np.arange(seconds * 1000) * 1e-3
    velocity = 20.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return velocity, np.zeros_like(velocity)


@pytest.fixture(scope="module")
def swept() -> tuple[MotorCortex, SpikeBatch, np.ndarray]:
    cortex = MotorCortex(1, 1, 96)
    velocity, position = sweep(SECONDS)
    return cortex, cortex.advance(velocity, position), velocity


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(0, 5))
def test_pieces_of_any_length_give_the_same_spikes(lengths: list[int], seed: int) -> None:
    velocity, position = sweep(1)
    total = sum(lengths)
    whole = MotorCortex(2, 3, 40, seed=seed).advance(velocity[:total], position[:total])
    cortex, pieces, start = MotorCortex(2, 3, 40, seed=seed), [], 0
    for length in lengths:
        part = slice(start, start + length)
        pieces.append(cortex.advance(velocity[part], position[part]))
        start += length
    np.testing.assert_array_equal(np.concatenate([p.t_us for p in pieces]), whole.t_us)
    np.testing.assert_array_equal(np.concatenate([p.unit for p in pieces]), whole.unit)


def test_sessions_of_a_day_differ_in_noise_only() -> None:
    velocity, position = sweep(5)
    one, other = MotorCortex(1, 1, 96, seed=0), MotorCortex(1, 1, 96, seed=1)
    assert one.unit_keys == other.unit_keys
    first, second = one.advance(velocity, position), other.advance(velocity, position)
    assert not np.array_equal(first.t_us, second.t_us)


def test_stamps_are_spread_inside_the_millisecond(
    swept: tuple[MotorCortex, SpikeBatch, np.ndarray],
) -> None:
    _, spikes, _ = swept
    assert spikes.t_us.dtype == np.int64
    assert spikes.t_us.min() > 0
    assert spikes.t_us.max() <= SECONDS * 1_000_000
    share = np.histogram(spikes.t_us % 1000, bins=10, range=(0, 1000))[0] / len(spikes)
    assert np.all(np.abs(share - 0.1) < 0.02)


def test_no_unit_fires_within_2_ms_of_itself(
    swept: tuple[MotorCortex, SpikeBatch, np.ndarray],
) -> None:
    _, spikes, _ = swept
    order = np.lexsort((spikes.t_us, spikes.unit))
    gap_us = np.diff(spikes.t_us[order])[np.diff(spikes.unit[order]) == 0]
    assert gap_us.min() >= Refractory.ABSOLUTE_US


def test_a_refractory_unit_fires_less_until_it_has_recovered() -> None:
    rng = np.random.default_rng(0)
    t_us = np.cumsum(rng.exponential(3000.0, 40_000)).astype(np.int64)
    kept = Refractory(1).passes(t_us, np.zeros(len(t_us), np.int64), rng.random(len(t_us)))
    gap_us = np.diff(t_us[kept])
    assert gap_us.min() >= Refractory.ABSOLUTE_US
    early = np.mean((gap_us >= 2000) & (gap_us < 3500))
    later = np.mean((gap_us >= 5000) & (gap_us < 6500))
    assert early < later


def test_lost_units_are_silent_and_the_others_are_not() -> None:
    day = 20
    alive = population_on(3, day, 400).alive
    velocity, position = sweep(10)
    spikes = MotorCortex(3, day, 400).advance(velocity, position)
    n = np.bincount(spikes.unit, minlength=400)
    assert np.count_nonzero(~alive) > 0
    assert n[~alive].sum() == 0
    assert np.mean(n[alive] > 0) > 0.97


def test_units_prefer_their_direction_and_lead_by_their_lag(
    swept: tuple[MotorCortex, SpikeBatch, np.ndarray],
) -> None:
    cortex, spikes, velocity = swept
    units = cortex.population
    heading = np.arctan2(velocity[:, 1], velocity[:, 0])
    tuned = np.flatnonzero((units.gain > 0.5) & (units.log_rate > np.log(4.0)) & units.alive)
    assert len(tuned) > 10
    errors = []
    for i in tuned:
        i_plan = spikes.t_us[spikes.unit == i] // 1000 - units.lag_ms[i]
        mean = np.exp(1j * heading[i_plan[i_plan >= 0]]).mean()
        errors.append(np.angle(mean * np.exp(-1j * units.direction[i])))
    assert np.median(np.abs(errors)) < 0.15


def test_the_rate_at_rest_is_the_base_rate() -> None:
    still = np.zeros((120_000, 2))
    cortex = MotorCortex(1, 0, 96)
    spikes = cortex.advance(still, still)
    rate_hz = np.bincount(spikes.unit, minlength=96) / 120.0
    ratio = np.log(np.maximum(rate_hz, 0.01)) - cortex.population.log_rate
    assert abs(np.median(ratio)) < 0.2


def test_the_rate_drifts_within_a_session() -> None:
    noise = RateNoise(population_on(1, 0, 60), np.random.SeedSequence(4))
    piece = 10_000
    mean = np.array([noise.log_rates(i * piece, piece).mean(axis=0) for i in range(90)])
    minutes = mean.reshape(15, 6, 60).mean(axis=1)
    a_minute_on = np.std(minutes[1:] - minutes[:-1])
    ten_minutes_on = np.std(minutes[10:] - minutes[:-10])
    assert ten_minutes_on > 1.5 * a_minute_on


def test_a_negative_session_seed_is_refused() -> None:
    with pytest.raises(SimulationError, match="no such session"):
        MotorCortex(1, 1, 8, seed=-1)
