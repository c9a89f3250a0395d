import math

import numpy as np
import pytest

from streams.simulation.control import (
    SILENCE_S,
    DecodedVelocity,
    Estimate,
    VelocityScore,
    guided,
)
from streams.simulation.user import PLAN_TO_HAND_S, TICK_S, Hand


def decode(value: list[float | None] | None, validity: str = "ok") -> dict[str, object]:
    return {
        "validity": validity,
        "t_window": 7.0,
        "lead_s": 0.1,
        "value": {"velocity": value},
    }


def test_a_trustworthy_decode_moves_the_cursor() -> None:
    decoded = DecodedVelocity()
    assert not decoded.connected
    assert decoded.take(decode([3.0, -4.0]), 7.01) == Estimate(pytest.approx(7.1), (3.0, -4.0))
    assert decoded.connected
    assert decoded.at(7.02) == (3.0, -4.0)


@pytest.mark.parametrize("validity", ["warmup", "stale", "paused", "fault"])
def test_a_decode_that_is_not_ok_stops_the_cursor(validity: str) -> None:
    decoded = DecodedVelocity()
    decoded.take(decode([3.0, -4.0]), 7.01)
    assert decoded.take(decode([9.0, 9.0], validity), 7.03) is None
    assert decoded.at(7.03) == (0.0, 0.0)


@pytest.mark.parametrize("value", [None, [None, 1.0]])
def test_null_stops_the_cursor(value: list[float | None] | None) -> None:
    decoded = DecodedVelocity()
    decoded.take(decode([3.0, -4.0]), 7.01)
    assert decoded.take(decode(value), 7.03) is None
    assert decoded.at(7.03) == (0.0, 0.0)


def test_waiting_decodes_do_not_engage_the_task() -> None:
    decoded = DecodedVelocity()
    decoded.take(decode([3.0, -4.0], "warmup"), 7.01)
    assert not decoded.connected


def test_silence_stops_the_cursor() -> None:
    decoded = DecodedVelocity()
    decoded.take(decode([3.0, -4.0]), 7.0)
    assert decoded.at(7.0 + 0.9 * SILENCE_S) == (3.0, -4.0)
    assert decoded.at(7.0 + 1.1 * SILENCE_S) == (0.0, 0.0)


def test_assistance_leads_to_the_target() -> None:
    assert guided((5.0, 5.0), (0.0, 0.0), (10.0, 0.0), 0.0) == (5.0, 5.0)
    assert guided((5.0, 5.0), (0.0, 0.0), None, 1.0) == (5.0, 5.0)
    assert guided((5.0, 5.0), (0.0, 0.0), (10.0, 0.0), 1.0) == pytest.approx((20.0, 0.0))
    assert guided((0.0, 8.0), (10.0, 0.0), (10.0, 0.0), 0.25) == pytest.approx((0.0, 6.0))


def test_the_score_is_r2_against_the_interpolated_velocity() -> None:
    rng = np.random.default_rng(2)
    t_s = 100.0 + TICK_S * np.arange(4000)
    driving = np.stack([np.sin(t_s), np.cos(0.7 * t_s)], axis=1) * 10.0
    t_decoded = 100.0 + 0.02 * np.arange(1, 950) + 0.0013
    truth = np.stack([np.interp(t_decoded, t_s, driving[:, i]) for i in range(2)], axis=1)
    decoded = truth + rng.normal(0.0, 3.0, truth.shape)
    score, i_next = VelocityScore(), 0
    for t, velocity in zip(t_s, driving, strict=True):
        while i_next < len(t_decoded) and t_decoded[i_next] <= t + 0.03:
            score.expect(Estimate(t_decoded[i_next], tuple(decoded[i_next])))
            i_next += 1
        score.drove(t, tuple(velocity))
    errors = ((decoded - truth) ** 2).sum(axis=0)
    spread = ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    assert score.n_scored == len(t_decoded)
    assert score.r2() == pytest.approx(tuple(1.0 - errors / spread), abs=1e-9)


def test_nothing_decoded_has_no_score() -> None:
    score = VelocityScore()
    score.drove(1.0, (1.0, 2.0))
    assert score.r2() is None


def test_a_decode_of_a_time_long_gone_is_not_scored() -> None:
    score = VelocityScore()
    for i in range(10):
        score.drove(50.0 + i * TICK_S, (float(i), 0.0))
    score.expect(Estimate(20.0, (1.0, 1.0)))
    score.drove(50.1, (0.0, 0.0))
    assert score.n_scored == 0


def test_the_hand_follows_the_plan_by_its_delay_and_keeps_its_speed() -> None:
    hand = Hand()
    followed = [hand.step((10.0, -5.0) if i < 200 else (0.0, 0.0))[0] for i in range(400)]
    assert followed[round(0.09 / TICK_S)] == 0.0
    assert math.isclose(followed[199], 10.0, rel_tol=1e-3)
    assert sum(followed) == pytest.approx(200 * 10.0, rel=1e-6)
    half = next(i for i, speed in enumerate(followed) if speed >= 5.0) * TICK_S
    assert half == pytest.approx(PLAN_TO_HAND_S, abs=0.02)
