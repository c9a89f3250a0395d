"""The neurons that an array sees on a given day: what each is tuned to, and how that changes.

Day 0 is drawn from the subject's seed; each later day is one step in a random walk whose draws
depend on the subject and that day alone. A day is therefore the same whichever days were asked for
before, and a large population's first units are the small one's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from streams.errors import SimulationError
from streams.messages import Float64s, Int64s

REFERENCE_SPEED_CM_S = 20.0
"""The speed at which a unit's gain acts in full: log rate changes by `gain` at this speed."""
REFERENCE_REACH_CM = 10.0
N_SHARED_SOURCES = 4
UPHEAVAL_EVERY_DAYS = 25
"""On these days (25, 50, ...) the array has shifted: yesterday's decoder fails."""

_SHARE_UNTUNED = 0.2
_SHARE_NOISY = 0.15
_SHARE_FRAGILE = 0.2
_LOSS_FRAGILE = 0.11
_LOSS_STABLE = 0.015
_SAME_KEY = 0.6
_NEW_KEY_AT_ONCE = 0.2
_RETURN_PER_DAY = 0.15
_N_NORMALS = 12
_N_UNIFORMS = 4


@dataclass(frozen=True, slots=True)
class _Change:
    """Change from one day to the next.

    Attributes:
        rate_sd: standard deviation of the log rate's step.
        turn_rad: standard deviation of the preferred direction's turn.
        replaced: share of units that become other neurons, beside those lost.
    """

    rate_sd: float
    turn_rad: float
    replaced: float


_ORDINARY = _Change(rate_sd=0.09, turn_rad=math.radians(4.0), replaced=0.0)
_UPHEAVAL = _Change(rate_sd=0.3, turn_rad=math.radians(60.0), replaced=0.3)


@dataclass(frozen=True, slots=True)
class Population:
    """One subject's units on one day.

    Attributes:
        neuron: (n,) int64, which neuron it is; changes when the unit is replaced.
        number: (n,) int64, the unit's number on its channel (channel i + 1), from 1.
        alive: (n,) bool; a lost unit is silent.
        log_rate: (n,) natural log base rate, in spikes/s.
        direction: (n,) preferred direction, radians.
        gain: (n,) log rate change at 20 cm/s along the preferred direction.
        speed_gain: (n,) log rate change at 20 cm/s, whatever the direction.
        position_gain: (n, 2) log rate change 10 cm from the centre.
        lag_ms: (n,) how long after the plan the unit answers, milliseconds.
        private_sd: (n,) standard deviation of its own slow rate noise, in log rate.
        shared_gain: (n, 4) how strongly it follows each shared noise source.
        fragile: (n,) bool, likely to be lost soon.
    """

    neuron: Int64s
    number: Int64s
    alive: np.ndarray
    log_rate: Float64s
    direction: Float64s
    gain: Float64s
    speed_gain: Float64s
    position_gain: Float64s
    lag_ms: Int64s
    private_sd: Float64s
    shared_gain: Float64s
    fragile: np.ndarray

    def __len__(self) -> int:
        return len(self.number)

    @property
    def keys(self) -> tuple[str, ...]:
        """Return a key such as `ch12/u1` for each unit, lost ones too."""
        return tuple(f"ch{i + 1}/u{number}" for i, number in enumerate(self.number))


@lru_cache(maxsize=256)
def population_on(subject_seed: int, day: int, n_units: int) -> Population:
    """The subject's units on that day; the arrays are read-only.

    Raises:
        SimulationError: a negative day or seed, or no units.
    """
    if day < 0 or subject_seed < 0 or n_units < 1:
        raise SimulationError(
            f"no such subject: seed {subject_seed}, day {day}, {n_units} units; "
            "seed and day count from 0, units from 1"
        )
    units = _newborn(subject_seed, 0, n_units)
    for i_day in range(1, day + 1):
        units = _next_day(units, subject_seed, i_day)
    population = Population(**units)
    for array in units.values():
        array.setflags(write=False)
    return population


def _draws(subject_seed: int, day: int, what: int, n_units: int) -> tuple[Float64s, Float64s]:
    """Normal (n, 12) and uniform (n, 4) draws; each row is the same whatever `n_units` is."""
    normal = np.random.default_rng([subject_seed, day, what, 0])
    uniform = np.random.default_rng([subject_seed, day, what, 1])
    return normal.standard_normal((n_units, _N_NORMALS)), uniform.random((n_units, _N_UNIFORMS))


def _newborn(subject_seed: int, day: int, n_units: int) -> dict[str, np.ndarray]:
    """Neurons never seen before, one for each channel."""
    normal, uniform = _draws(subject_seed, day, 0, n_units)
    tuned = uniform[:, 0] >= _SHARE_UNTUNED
    noisy = uniform[:, 1] < _SHARE_NOISY
    return {
        "neuron": np.arange(n_units) + day * 1_000_000,
        "number": np.ones(n_units, np.int64),
        "alive": np.ones(n_units, np.bool_),
        "log_rate": np.log(np.clip(8.0 * np.exp(0.8 * normal[:, 0]), 0.5, 60.0)),
        "direction": 2.0 * np.pi * uniform[:, 2],
        "gain": np.where(tuned, 0.45 * np.exp(0.45 * normal[:, 1]), 0.0),
        "speed_gain": np.where(tuned, 0.08 + 0.15 * normal[:, 2], 0.0),
        "position_gain": np.where(tuned[:, None], 0.12 * normal[:, 3:5], 0.0),
        "lag_ms": np.clip(np.rint(50.0 + 25.0 * normal[:, 5]), 0, 110).astype(np.int64),
        "private_sd": np.where(noisy, 0.7, 0.2) * np.exp(0.2 * normal[:, 6]),
        "shared_gain": 0.12 * normal[:, 7 : 7 + N_SHARED_SOURCES],
        "fragile": uniform[:, 3] < _SHARE_FRAGILE,
    }


def _next_day(units: dict[str, np.ndarray], subject_seed: int, day: int) -> dict[str, np.ndarray]:
    """Walk one step: every unit drifts, some are lost or replaced, some channels wake."""
    normal, uniform = _draws(subject_seed, day, 1, len(units["number"]))
    alive = units["alive"]
    change = _ORDINARY if day % UPHEAVAL_EVERY_DAYS else _UPHEAVAL
    lost = alive & (uniform[:, 0] < np.where(units["fragile"], _LOSS_FRAGILE, _LOSS_STABLE))
    same_key = lost & (uniform[:, 1] < _SAME_KEY)
    same_key |= alive & ~lost & (uniform[:, 3] < change.replaced)
    at_once = lost & ~same_key & (uniform[:, 1] < _SAME_KEY + _NEW_KEY_AT_ONCE)
    new_key = at_once | (~alive & (uniform[:, 2] < _RETURN_PER_DAY))
    units = _drifted(units, normal, change)
    units = _replaced(units, _newborn(subject_seed, day, len(alive)), same_key | new_key)
    units["number"] = units["number"] + new_key
    units["alive"] = (alive & ~lost) | same_key | new_key
    return units


def _drifted(
    units: dict[str, np.ndarray], normal: Float64s, change: _Change
) -> dict[str, np.ndarray]:
    """Return base rate (kept near its range), direction and gain after one more day."""
    units = dict(units)
    toward_usual = 0.01 * (np.log(8.0) - units["log_rate"])
    log_rate = units["log_rate"] + change.rate_sd * normal[:, 0] + toward_usual
    units["log_rate"] = np.clip(log_rate, np.log(0.3), np.log(60.0))
    units["direction"] = units["direction"] + change.turn_rad * normal[:, 1]
    units["gain"] = units["gain"] * np.exp(0.05 * normal[:, 2])
    units["position_gain"] = 0.99 * units["position_gain"] + np.where(
        units["gain"][:, None] > 0.0, 0.015 * normal[:, 3:5], 0.0
    )
    return units


def _replaced(
    units: dict[str, np.ndarray], newborn: dict[str, np.ndarray], which: np.ndarray
) -> dict[str, np.ndarray]:
    """New neurons where `which`, under the old unit numbers."""
    mixed = {}
    for name, old in units.items():
        pick = which[:, None] if old.ndim == 2 else which
        mixed[name] = np.where(pick, newborn[name], old)
    return mixed | {"number": units["number"]}
