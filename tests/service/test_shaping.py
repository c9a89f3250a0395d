"""Shaping, and the safe value of each policy."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.manifest import Output
from service.config import ShapingConfig
from service.daemon.compose import shaping_of
from service.loop.shaping import HOLD_MAX_S, Shaper, Shaping, as_values

FINITE = st.floats(-1e6, 1e6)
PAIRS = st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=12)


def output(name: str, safe: str, dims: int = 2) -> Output:
    fields = {"name": name, "dims": dims, "unit": "cm", "safe": safe}
    return Output.model_validate(fields | {"low": [-1.0] * dims, "high": [1.0] * dims})


VELOCITY, POSITION, CLASS = (
    output("velocity", "zero"),
    output("position", "hold"),
    output("grip", "nan", dims=1),
)
RAW = {
    "velocity": np.array([1.5, -2.5], np.float32),
    "position": np.array([3.0, 4.0], np.float32),
    "grip": np.array([2.0], np.float32),
}


def test_without_shaping_the_value_is_the_raw_one() -> None:
    shaped = Shaper([VELOCITY, POSITION, CLASS]).shape(RAW, 1.0)
    assert shaped == {"velocity": [1.5, -2.5], "position": [3.0, 4.0], "grip": [2.0]}


def test_gain_is_for_velocities_only() -> None:
    shaped = Shaper([VELOCITY, POSITION, CLASS], Shaping(gain=2.0)).shape(RAW, 1.0)
    assert shaped == {"velocity": [3.0, -5.0], "position": [3.0, 4.0], "grip": [2.0]}


def velocity(shaping: Shaping, *value: float) -> list[float | None] | None:
    """What comes of one velocity."""
    return Shaper([VELOCITY], shaping).shape({"velocity": np.array(value)}, 1.0)["velocity"]


def test_bias_is_subtracted_before_the_gain() -> None:
    assert velocity(Shaping(bias=(1.0, -1.0), gain=2.0), 3.0, 4.0) == [4.0, 10.0]
    assert velocity(Shaping(bias=(1.0,)), 3.0, 4.0) == [2.0, 4.0]
    assert velocity(Shaping(bias=(1.0, 0.0, 9.0)), 3.0, 4.0) == [2.0, 4.0]


def test_the_networks_own_buffer_is_left_alone() -> None:
    buffer = np.array([3.0, 4.0])
    Shaper([VELOCITY], Shaping(bias=(1.0, 1.0), gain=2.0)).shape({"velocity": buffer}, 1.0)
    assert buffer.tolist() == [3.0, 4.0]


@given(st.floats(-100, 100), st.floats(-100, 100), st.floats(0.1, 4.0), st.floats(0.1, 50.0))
def test_the_power_changes_speed_and_never_direction(
    x: float, y: float, power: float, reference: float
) -> None:
    shaped = velocity(Shaping(speed_power=power, speed_ref=reference), x, y)
    speed = math.hypot(x, y)
    np.testing.assert_allclose(
        np.array(shaped) * speed,
        np.array([x, y]) * reference * (speed / reference) ** power,
        rtol=1e-9,
        atol=1e-6,
    )


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(0.1, 100.0), st.floats(0.0, 10.0))
def test_the_longest_vector_is_the_speed_allowed(
    x: float, y: float, max_speed: float, gain: float
) -> None:
    shaped = velocity(Shaping(gain=gain, max_speed=max_speed), x, y)
    shortened = gain * math.hypot(x, y) > max_speed
    factor = max_speed / math.hypot(x, y) if shortened else gain
    np.testing.assert_allclose(np.array(shaped), factor * np.array([x, y]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("speed", [0.0, 5e-324, 1e-300, 1e-30, 1.0, 3.4e38])
@pytest.mark.parametrize("power", [0.1, 4.0])
@pytest.mark.parametrize("reference", [1e-3, 1.0, 1e300])
def test_no_speed_that_a_network_can_say_leaves_the_finite_numbers(
    speed: float, power: float, reference: float
) -> None:
    settings = ShapingConfig(gain=100.0, speed_power=power, speed_ref=reference)
    shaped = velocity(shaping_of(settings), speed, 0.0)
    assert shaped is not None
    assert all(v is not None and math.isfinite(v) for v in shaped)


def test_bounds_are_for_the_output_that_they_name() -> None:
    shaper = Shaper([VELOCITY, POSITION], Shaping(gain=10.0, bounds={"position": (-1.0, 3.5)}))
    shaped = shaper.shape(RAW, 1.0)
    assert shaped == {"velocity": [15.0, -25.0], "position": [3.0, 3.5]}
    assert shaper.safe(1.1)["position"] == [3.0, 3.5]


@given(PAIRS, st.floats(0.0, 0.99), st.floats(0.0, 100.0))
def test_smoothing_is_an_exponential_mean_of_what_came(
    values: list[tuple[float, float]], smoothing: float, gain: float
) -> None:
    shaper = Shaper([VELOCITY, POSITION], Shaping(gain=gain, smoothing=smoothing))
    mean = np.array(values[0])
    for i, value in enumerate(values):
        mean = smoothing * mean + (1 - smoothing) * np.array(value)
        shaped = shaper.shape({"velocity": np.array(value), "position": np.array(value)}, i * 0.02)
        np.testing.assert_allclose(np.array(shaped["velocity"]), gain * mean, rtol=1e-9, atol=1e-6)
        assert shaped["position"] == list(value)


def test_smoothing_begins_anew_after_a_decode_that_was_not_ok() -> None:
    shaper = Shaper([VELOCITY], Shaping(smoothing=0.9))
    shaper.shape({"velocity": np.array([100.0, 100.0])}, 1.0)
    shaper.safe(1.02)
    assert shaper.shape({"velocity": np.array([1.0, -1.0])}, 1.04)["velocity"] == [1.0, -1.0]


def test_each_policy_has_its_safe_value() -> None:
    shaper = Shaper([VELOCITY, POSITION, CLASS], Shaping(gain=3.0))
    assert shaper.safe(0.5) == {"velocity": [0.0, 0.0], "position": None, "grip": None}
    shaper.shape(RAW, 1.0)
    assert shaper.safe(1.02) == {"velocity": [0.0, 0.0], "position": [3.0, 4.0], "grip": None}


@given(st.floats(0.0, 5.0))
def test_a_position_is_held_for_a_fifth_of_a_second(after_s: float) -> None:
    shaper = Shaper([POSITION])
    shaper.shape(RAW, 0.0)
    assert shaper.safe(after_s)["position"] == ([3.0, 4.0] if after_s <= HOLD_MAX_S else None)
    assert HOLD_MAX_S == 0.2


def test_the_hold_counts_from_the_last_ok_value() -> None:
    shaper = Shaper([POSITION])
    shaper.shape(RAW, 0.0)
    shaper.shape(RAW | {"position": np.array([5.0, 6.0])}, 1.0)
    assert shaper.safe(1.1)["position"] == [5.0, 6.0]
    assert shaper.safe(1.15)["position"] == [5.0, 6.0]
    assert shaper.safe(1.25)["position"] is None


def test_a_held_value_is_not_that_of_the_buffer_which_the_backend_writes_next() -> None:
    shaper = Shaper([POSITION])
    buffer = np.array([3.0, 4.0])
    shaped = shaper.shape({"position": buffer}, 0.0)
    buffer[:] = 9.0
    assert shaped["position"] == shaper.safe(0.1)["position"] == [3.0, 4.0]


def test_a_swap_makes_no_step_of_its_own() -> None:
    before = Shaper([VELOCITY, POSITION], Shaping(gain=2.0, smoothing=0.5))
    before.shape(RAW, 1.0)
    after = before.fresh()
    after.continue_from(before)
    step = {"velocity": np.array([0.5, 0.5]), "position": np.array([0.0, 0.0])}
    assert after.safe(1.1)["position"] == [3.0, 4.0]
    after.continue_from(before)
    assert after.shape(step, 1.02) == before.shape(step, 1.02)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null(wrong: float) -> None:
    values = as_values({"velocity": np.array([1.5, wrong], np.float32)}, ["velocity"])
    assert values == {"velocity": [1.5, None]}
    json.dumps(values, allow_nan=False)


def test_what_was_not_said_is_null() -> None:
    assert as_values(None, ["velocity", "grip"]) == {"velocity": None, "grip": None}


def test_a_value_that_is_not_finite_is_none() -> None:
    steep = Shaper([VELOCITY], Shaping(speed_power=4.0, speed_ref=1e-3))
    assert steep.shape({"velocity": np.array([1e200, 1.0])}, 1.0) is None
    assert Shaper([VELOCITY]).shape({"velocity": np.array([math.inf, 0.0])}, 1.0) is None
    held = Shaper([VELOCITY, POSITION], Shaping(bias=(-1e308, 0.0)))
    raw = {"velocity": np.array([1.7e308, 0.0]), "position": np.array([1.0, 2.0])}
    assert held.shape(raw, 1.0) is None
    assert held.safe(1.0) == {"velocity": [0.0, 0.0], "position": None}


@pytest.mark.parametrize(
    ("shaping", "told"),
    [
        (Shaping(), ""),
        (Shaping(bias=(1.0, -2.0), bounds={"position": (0.0, 1.0)}), ""),
        (Shaping(bias=(1.0,)), "bias has 1 numbers"),
        (Shaping(bias=(3.0, 0.0)), "larger than the range"),
        (Shaping(bounds={"gripp": (0.0, 1.0)}), "the outputs are: velocity, position, grip"),
    ],
)
def test_what_does_not_fit_the_outputs_is_told(shaping: Shaping, told: str) -> None:
    complaint = shaping.complaint([VELOCITY, POSITION, CLASS])
    assert told in complaint
    assert bool(told) == bool(complaint)


@pytest.mark.parametrize("key", ["gain", "max_speed", "speed_ref", "speed_power", "smoothing"])
def test_settings_are_finite(key: str) -> None:
    for value in (math.inf, math.nan):
        with pytest.raises(ValueError, match=key):
            ShapingConfig.model_validate({key: value})
