"""What was meant while driving; and, measured in full runs, that it makes a better decoder."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.wizard.errors import WizardError
from calibration.wizard.intention import REACTION_S, intended, usual_speed, with_intention
from streams.session import Behavior, Session
from tests.calibration.recalibrated import LENGTHS, recalibrated
from tests.decoders.sessions import tuned_session

PLACE = "processing/behavior"


def driven(n: int = 600, noise: float = 4.0, seed: int = 0) -> Session:
    """A cursor that goes to one target after another by a noisy hand."""
    rng = np.random.default_rng(seed)
    t_s = np.arange(n) * 0.01
    target = np.where((t_s[:, None] % 4.0) < 2.0, [8.0, 0.0], [-8.0, 3.0])
    cursor, velocity = np.zeros((n, 2)), np.zeros((n, 2))
    for i in range(1, n):
        velocity[i] = 3.0 * (target[i] - cursor[i - 1]) + noise * rng.standard_normal(2)
        cursor[i] = cursor[i - 1] + 0.01 * velocity[i]
    return replace(
        tuned_session(duration_s=n * 0.01),
        behavior={
            f"{PLACE}/BehavioralTimeSeries/cursor_velocity": Behavior(t_s, velocity, "cm/s"),
            f"{PLACE}/Position/cursor_position": Behavior(t_s, cursor, "cm"),
            f"{PLACE}/Position/target_position": Behavior(t_s, target, "cm"),
        },
    )


def test_what_is_meant_points_to_the_target_and_rests_on_it() -> None:
    session = driven()
    meant = with_intention(session, "cursor", 1.0).signal("cursor_velocity")
    cursor = session.signal("cursor_position").values
    target = session.signal("target_position").values
    known = np.isfinite(meant.values).all(axis=1)
    way = target - cursor
    near = known & (np.linalg.norm(way, axis=1) <= 1.0)
    assert near.any()
    assert not meant.values[near].any()
    far = known & ~near & (np.linalg.norm(meant.values, axis=1) > 1e-9)
    cross = way[far, 0] * meant.values[far, 1] - way[far, 1] * meant.values[far, 0]
    np.testing.assert_allclose(cross, 0.0, atol=1e-9)
    assert ((way[far] * meant.values[far]).sum(axis=1) > 0).all()
    assert meant.unit == "cm/s"


def test_nobody_knows_what_is_meant_right_after_a_new_target() -> None:
    session = driven()
    meant = with_intention(session, "cursor", 1.0).signal("cursor_velocity")
    since_s = meant.t_s % 2.0
    after_first = meant.t_s >= 2.0
    unknown = np.isnan(meant.values).all(axis=1)
    assert unknown[after_first & (since_s < REACTION_S - 0.02)].all()
    assert not unknown[after_first & (since_s > REACTION_S + 0.02)].any()


def test_the_noise_of_single_instants_does_not_reach_the_speed() -> None:
    session = driven(2400, noise=12.0)
    moved = session.signal("cursor_velocity").values
    meant = with_intention(session, "cursor", 0.5).signal("cursor_velocity").values
    known = np.isfinite(meant).all(axis=1)
    went, willed = (float(np.linalg.norm(one[known], axis=1).mean()) for one in (moved, meant))
    quiet = with_intention(driven(2400, noise=0.0), "cursor", 0.5).signal("cursor_velocity").values
    expected = float(np.nanmean(np.linalg.norm(quiet, axis=1)))
    assert went > 4.0 * expected
    assert 0.5 * expected < willed < 1.5 * expected


def test_without_targets_nothing_can_be_meant() -> None:
    session = driven()
    without = {name: one for name, one in session.behavior.items() if "target" not in name}
    with pytest.raises(WizardError, match="Send `target_x`, `target_y`"):
        with_intention(replace(session, behavior=without), "cursor", 1.0)


@given(st.integers(30, 300), st.integers(0, 100))
def test_the_usual_speed_is_never_away_from_the_target(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    away = rng.uniform(0.0, 20.0, n)
    away[rng.random(n) < 0.1] = np.nan
    speed = usual_speed(away, rng.normal(0.0, 10.0, n))
    assert np.array_equal(np.isnan(speed), np.isnan(away))
    assert (speed[np.isfinite(speed)] >= 0.0).all()
    steady = usual_speed(away, 2.0 * away)
    known = np.isfinite(away)
    np.testing.assert_allclose(steady[known], 2.0 * away[known], atol=4.0)


def test_where_no_target_is_shown_nothing_is_meant() -> None:
    target = np.full((50, 2), np.nan)
    assert np.isnan(intended(np.ones((50, 2)), np.zeros((50, 2)), target, 1.0)).all()


@pytest.mark.skipif("SPIKELOOP_FULL" not in os.environ, reason="takes long: SPIKELOOP_FULL=1")
def test_driving_makes_a_better_decoder_than_open_loop_alone(tmp_path: Path) -> None:
    pairs = [recalibrated(tmp_path / str(seed), seed) for seed in range(5)]
    gains = [pair.driven_per_min - pair.open_loop_per_min for pair in pairs]
    assert np.mean(gains) > 0.0, (LENGTHS, pairs)
