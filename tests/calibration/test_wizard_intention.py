"""What was meant while driving; and, measured in full runs, that it makes a better decoder."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.errors import WizardError
from calibration.wizard.behavior import REACTION_S, Pace, intended, pace_of, with_intention
from streams.sessions.session import Behavior, Session
from streams.simulation.openloop import record_open_loop
from tests.calibration.recalibrated import LENGTHS, recalibrated
from tests.decoders.sessions import tuned_session

PLACE = "processing/behavior"
PACE = Pace(20.0, 5.0)


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
    meant = with_intention(session, "cursor", PACE, 1.0).signal("cursor_velocity")
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
    meant = with_intention(session, "cursor", PACE, 1.0).signal("cursor_velocity")
    since_s = meant.t_s % 2.0
    after_first = meant.t_s >= 2.0
    unknown = np.isnan(meant.values).all(axis=1)
    assert unknown[after_first & (since_s < REACTION_S - 0.02)].all()
    assert not unknown[after_first & (since_s > REACTION_S + 0.02)].any()


def test_the_pace_is_that_of_open_loop_reaches() -> None:
    session = record_open_loop(1, 1, 0.5)
    pace = pace_of(session, "cursor")
    assert 4.5 < pace.slow_within < 5.5
    assert 15.0 < pace.top < 45.0
    speed = pace.speed(np.array([0.0, 0.5 * pace.slow_within, 20.0]))
    np.testing.assert_allclose(speed, [0.0, 0.5 * pace.top, pace.top])
    with pytest.raises(WizardError, match="does not move to targets"):
        pace_of(replace(session, trials=None), "cursor")


def test_without_targets_nothing_can_be_meant() -> None:
    session = driven()
    without = {name: one for name, one in session.behavior.items() if "target" not in name}
    with pytest.raises(WizardError, match="Send `target_x`, `target_y`"):
        with_intention(replace(session, behavior=without), "cursor", PACE, 1.0)


def test_where_no_target_is_shown_nothing_is_meant() -> None:
    target = np.full((50, 2), np.nan)
    assert np.isnan(intended(np.zeros((50, 2)), target, PACE, 1.0)).all()


@pytest.mark.skipif("SPIKELOOP_FULL" not in os.environ, reason="takes long: SPIKELOOP_FULL=1")
def test_driving_makes_a_better_decoder_than_open_loop_alone(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    pairs = [recalibrated(tmp_path / str(seed), seed) for seed in range(5)]
    record_property(LENGTHS, str(pairs))
    assert np.mean([pair.gain for pair in pairs]) > 0.0, (LENGTHS, pairs)
