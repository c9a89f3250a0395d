"""Profiles say how units follow behaviour, and newcomers are told from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decoders.streaming.network import RotationAugmentation
from decoders.streaming.profile_encoder import ProfileEncoder
from decoders.streaming.trainer import normalisation, output_columns
from decoders.streaming.tuning import (
    LAGS_S,
    counts_matrix,
    fit_unit_profiles,
    profiles,
    profiles_given,
    regressors,
    shrunk_covariance,
    tuning_sums,
)
from decoders.training.output_columns import OutputColumns
from decoders.training.recordings import record
from streams.spikes.tokenizer import TokenBins
from tests.decoders.sessions import small_config, tuned_session

HOP_S = 0.05
VELOCITY = OutputColumns("velocity", slice(0, 2), slice(0, 2), classes=False, weight=1.0)
PHASE = OutputColumns("phase", slice(2, 5), slice(2, 3), classes=True, weight=1.0)


def walk(n_bins: int, seed: int = 0) -> np.ndarray:
    """(n_bins, 2) smooth random movement of unit variance."""
    steps = np.random.default_rng(seed).normal(size=(n_bins + 20, 2))
    smooth = np.apply_along_axis(lambda v: np.convolve(v, np.ones(20), "valid"), 0, steps)
    return (smooth[:n_bins] - smooth.mean(axis=0)) / smooth.std(axis=0)


def spikes_of(movement: np.ndarray, slopes: np.ndarray, seed: int = 1) -> np.ndarray:
    """(n_bins, U) Poisson counts about 3 a bin that follow the movement of the same bin."""
    rate = np.maximum(3.0 + np.sqrt(3.0) * movement @ slopes.T, 0.01)
    return np.random.default_rng(seed).poisson(rate).astype(np.float64)


def plain(movement: np.ndarray) -> np.ndarray:
    return regressors(movement, [VELOCITY], np.zeros(2), np.ones(2), HOP_S)


SLOPES = np.array([[0.8, 0.0], [0.0, 0.6], [-0.5, 0.5], [0.0, 0.0]])


def test_counts_are_those_of_the_tokens() -> None:
    tokens = TokenBins(
        unit=np.array([1, 1, 0], np.int32),
        t_rel=np.zeros(3, np.float32),
        count=np.array([1.0, 2.0, 4.0], np.float32),
        offsets=np.array([0, 2, 2, 3]),
    )
    np.testing.assert_array_equal(counts_matrix(tokens, 2), [[0, 3], [0, 0], [4, 0]])


def test_regressors_are_shifted_by_their_lag() -> None:
    movement = walk(50)
    found = plain(movement)
    n_lag = round(LAGS_S[-1] / HOP_S)
    assert found.shape == (50, 7)
    np.testing.assert_allclose(found[:-n_lag, 4:6], movement[n_lag:])
    np.testing.assert_allclose(found[n_lag:, 0:2], movement[:-n_lag])
    assert np.isnan(found[-n_lag:, 4:6]).all()
    np.testing.assert_allclose(found[:, 6], np.linalg.norm(movement, axis=1))


def test_classes_become_one_column_each() -> None:
    targets = np.column_stack([walk(30), np.arange(30) % 3])
    targets[4, 2] = np.nan
    found = regressors(targets, [VELOCITY, PHASE], np.zeros(5), np.ones(5), HOP_S)
    np.testing.assert_array_equal(found[5, 7:], [0.0, 0.0, 1.0])
    assert np.isnan(found[4, 7:]).all()


def test_profiles_find_the_tuning() -> None:
    movement = walk(8000)
    found = profiles(tuning_sums(spikes_of(movement, SLOPES), plain(movement)))
    np.testing.assert_allclose(found[:, 2:4], SLOPES, atol=0.12)
    np.testing.assert_allclose(np.exp(found[:, -1]), 3.0, atol=0.3)


def test_little_evidence_stays_near_what_is_usual() -> None:
    """The fewer bins, the nearer the prior; with plenty, the same as without one."""
    movement = walk(8000)
    counts, behavior = spikes_of(movement, SLOPES), plain(movement)
    usual, spread = np.full(7, 0.05), 0.1 * np.eye(7)
    gaps = []
    for n_bins in (0, 40, 8000):
        found = tuning_sums(counts[:n_bins], behavior[:n_bins])
        gaps.append(np.abs(profiles_given(found, usual, spread, 3.0)[:, :-1] - usual).max())
    assert gaps[0] == pytest.approx(0.0, abs=1e-9)
    assert gaps[0] < gaps[1] < gaps[2]
    whole = tuning_sums(counts, behavior)
    given, free = profiles_given(whole, usual, spread, 3.0), profiles(whole)
    np.testing.assert_allclose(given, free, atol=0.1)


def test_a_prior_of_each_unit_is_its_own() -> None:
    usual = np.arange(28.0).reshape(4, 7)
    nothing = tuning_sums(np.zeros((0, 4)), np.zeros((0, 7)))
    found = profiles_given(nothing, usual, np.eye(7), 1.0)
    np.testing.assert_allclose(found[:, :-1], usual)


def test_little_evidence_errs_less_with_the_prior() -> None:
    movement = walk(200, seed=5)
    rng = np.random.default_rng(6)
    slopes = rng.normal(0.0, 0.15, (60, 2))
    found = tuning_sums(spikes_of(movement, slopes, seed=7), plain(movement))
    truth = np.zeros((60, 7))
    truth[:, 2:4] = slopes
    spread = shrunk_covariance(truth + rng.normal(0.0, 1e-3, truth.shape))
    given = profiles_given(found, np.zeros(7), spread, 1.0)[:, :-1]
    assert np.square(given - truth).sum() < 0.5 * np.square(profiles(found)[:, :-1] - truth).sum()


def test_a_turned_profile_is_the_profile_in_the_turned_world() -> None:
    turning = RotationAugmentation([2, 3], [False, True])
    turns = turning.draw(torch.Generator().manual_seed(3))
    turn = turns[2].double().numpy()
    np.testing.assert_allclose(turn @ turn.T, np.eye(2), atol=1e-6)
    movement = walk(4000)
    counts = spikes_of(movement, SLOPES)
    as_is = torch.from_numpy(profiles(tuning_sums(counts, plain(movement))))
    turned = profiles(tuning_sums(counts, plain(movement @ turn.T)))
    found = turning.profiles(as_is, {2: turns[2].double()})
    np.testing.assert_allclose(found.numpy(), turned, atol=1e-6)


def test_answers_turn_back() -> None:
    turning = RotationAugmentation([2, 1, 3, 4], [False, False, True, False])
    turns = turning.draw(torch.Generator().manual_seed(0))
    actual = torch.randn(5, 10)
    seen = actual.clone()
    seen[:, :2] = actual[:, :2] @ turns[2].T
    seen[:, 2:3] = actual[:, 2:3] @ turns[1].T
    torch.testing.assert_close(turning.back(seen, turns), actual)
    assert 4 not in turns


def test_a_census_knows_every_row() -> None:
    config = small_config()
    recordings = [record(tuned_session(str(n), n_units=n, seed=n), config) for n in (4, 7)]
    outputs = output_columns(config, recordings[0])
    offset, scale = (v.double().numpy() for v in normalisation(recordings, outputs))
    args = (recordings, outputs, offset, scale, 2, config.beat.hop_ms / 1000)
    census, again = fit_unit_profiles(*args, seed=0), fit_unit_profiles(*args, seed=0)
    assert census.best.shape == (11, 10)
    assert census.variants.shape[1:] == (11, 10)
    assert census.session_of_row.tolist() == [0] * 4 + [1] * 7
    np.testing.assert_array_equal(census.variants, again.variants)
    spread_over_variants = census.variants.std(axis=0)[:, :-1]
    assert (spread_over_variants > 0).all()


def test_identity_norms_what_it_met() -> None:
    config = small_config()
    recordings = [record(tuned_session(n_units=9), config)]
    outputs = output_columns(config, recordings[0])
    offset, scale = (v.double().numpy() for v in normalisation(recordings, outputs))
    census = fit_unit_profiles(recordings, outputs, offset, scale, 2, 0.02, seed=0)
    identity = ProfileEncoder(census.best.shape[1], 16, 0.5)
    identity.fit_statistics(census)
    best = torch.from_numpy(census.best).float()
    normed = (best - identity.mean) * identity.gain
    torch.testing.assert_close(normed.mean(dim=0), torch.zeros(10), atol=1e-4, rtol=0.0)
    embedding = identity(best)
    assert embedding.shape == (9, 16)
    assert 0.1 < float(embedding.detach().std()) < 1.0
