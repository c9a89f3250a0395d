import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.errors import SimulationError
from streams.simulation.cortex import UPHEAVAL_EVERY_DAYS, Population, population_on

SUBJECTS = range(1, 21)


def share_of_same_neurons(before: Population, after: Population) -> float:
    return float(np.mean((before.neuron == after.neuron) & after.alive))


def mean_share(day_before: int, day_after: int) -> float:
    return float(
        np.mean(
            [
                share_of_same_neurons(
                    population_on(subject, day_before, 96), population_on(subject, day_after, 96)
                )
                for subject in SUBJECTS
            ]
        )
    )


def test_a_day_does_not_depend_on_which_days_were_asked_for_before() -> None:
    population_on.cache_clear()
    first = population_on(4, 12, 32)
    population_on.cache_clear()
    for day in (30, 3, 11):
        population_on(4, day, 32)
    again = population_on(4, 12, 32)
    assert first.keys == again.keys
    for name in ("neuron", "alive", "log_rate", "direction", "gain", "shared_gain", "lag_ms"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 50), st.integers(0, 30), st.integers(1, 60))
def test_a_small_array_sees_the_first_units_of_a_large_one(
    subject: int, day: int, n_units: int
) -> None:
    small, large = population_on(subject, day, n_units), population_on(subject, day, 64)
    assert small.keys == large.keys[:n_units]
    np.testing.assert_array_equal(small.direction, large.direction[:n_units])
    np.testing.assert_array_equal(small.shared_gain, large.shared_gain[:n_units])


def test_subjects_differ() -> None:
    one, other = population_on(1, 0, 96), population_on(2, 0, 96)
    assert not np.array_equal(one.direction, other.direction)


def test_rates_are_log_normal_around_8_hz_and_below_60() -> None:
    rate_hz = np.concatenate([np.exp(population_on(s, 0, 96).log_rate) for s in SUBJECTS])
    assert 7.0 < np.median(rate_hz) < 9.0
    assert rate_hz.max() <= 60.0 + 1e-9
    assert np.percentile(rate_hz, 90) > 2.0 * np.median(rate_hz)


def test_some_units_are_untuned_and_some_are_noisy() -> None:
    gain = np.concatenate([population_on(s, 0, 96).gain for s in SUBJECTS])
    private_sd = np.concatenate([population_on(s, 0, 96).private_sd for s in SUBJECTS])
    assert 0.15 < np.mean(gain == 0.0) < 0.25
    assert 0.1 < np.mean(private_sd > 0.4) < 0.2


def test_a_few_percent_of_units_change_overnight_and_about_half_in_three_weeks() -> None:
    assert 0.94 < mean_share(1, 2) < 0.975
    assert 0.4 < mean_share(1, UPHEAVAL_EVERY_DAYS - 1) < 0.7


def test_the_upheaval_replaces_far_more_than_a_night() -> None:
    assert mean_share(UPHEAVAL_EVERY_DAYS - 1, UPHEAVAL_EVERY_DAYS) < 0.75


def test_most_units_keep_their_key_and_lost_channels_come_back_with_a_new_number() -> None:
    before, after = population_on(3, 0, 400), population_on(3, 40, 400)
    kept = np.array(before.keys) == np.array(after.keys)
    assert 0.6 < kept.mean() < 0.9
    assert after.number.max() >= 2
    assert set(before.number) == {1}
    assert 0.9 < after.alive.mean() < 1.0


def test_a_new_number_means_a_new_neuron() -> None:
    before, after = population_on(3, 0, 400), population_on(3, 40, 400)
    renumbered = before.number != after.number
    assert not np.any(renumbered & (before.neuron == after.neuron))


@pytest.mark.parametrize(("subject", "day", "n_units"), [(-1, 0, 96), (1, -1, 96), (1, 0, 0)])
def test_impossible_subjects_are_refused(subject: int, day: int, n_units: int) -> None:
    with pytest.raises(SimulationError, match="no such subject"):
        population_on(subject, day, n_units)


def test_a_population_cannot_be_changed_by_its_users() -> None:
    with pytest.raises(ValueError, match="read-only"):
        population_on(1, 1, 8).gain[0] = 3.0
