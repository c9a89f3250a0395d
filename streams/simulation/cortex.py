"""Motor cortex model: an intended velocity goes in, spikes with exact times come out.

A unit's log rate follows the plan `lag_ms` before (cosine tuning, Georgopoulos et al.
1982, with a speed term as in Moran and Schwartz 1999), the position, noise shared by the
population, its own noise and a slow drift. Spikes are drawn in steps of 1 ms; each gets a time
to the microsecond inside its step and must pass the refractory period.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from streams.errors import SimulationError
from streams.messages import Float32s, Float64s, Int64s, SpikeBatch

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
STEP_US = 1000
"""Step length; also the resolution of plan and lags."""
_MAX_LAG_MS = 128
_NOISE_STEP_MS = 10
_DRIFT_STEPS = 100
_SATURATION = 1.8
_MAX_RATE_HZ = 250.0


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

    Day 0 is drawn from the subject's seed; each later day is one step in a random walk whose draws
    depend on the subject and that day alone. A day is therefore the same whichever days were asked
    for before, and a large population's first units are the small one's.

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


class MotorCortex:
    """One subject's spikes on one day, from the plan that it is handed.

    The result depends on the plan alone, not on the pieces that it came in.

    Args:
        subject_seed: which subject.
        day: the subject's day, from 0.
        n_units: how many units the array sees.
        seed: the session on that day: other noise, same neurons.

    Raises:
        SimulationError: no such subject or session.
    """

    def __init__(self, subject_seed: int, day: int, n_units: int = 96, *, seed: int = 0) -> None:
        if seed < 0:
            raise SimulationError(f"no such session: seed {seed}; seeds count from 0")
        self.population = population_on(subject_seed, day, n_units)
        self.unit_keys = self.population.keys
        self.n_spikes = 0
        self._weights = _Weights(self.population)
        self._noise = RateNoise(self.population, np.random.SeedSequence([subject_seed, day, seed]))
        self._refractory = Refractory(n_units)
        bernoulli, place = np.random.SeedSequence([subject_seed, day, seed, 1]).spawn(2)
        self._bernoulli = np.random.default_rng(bernoulli)
        self._place = np.random.default_rng(place)
        self._past = np.zeros((_MAX_LAG_MS, 3), np.float32)
        self._i_step = 0

    def advance(self, velocity: Float64s, position: Float64s) -> SpikeBatch:
        """Draw the spikes in the next m milliseconds.

        Args:
            velocity: (m, 2) the plan at each millisecond's end, cm/s.
            position: (m, 2) where the hand or cursor is felt to be, cm from the centre.

        Returns:
            Spikes ordered by millisecond, stamped in microseconds since the start;
            `unit` indexes `unit_keys`.
        """
        rate_hz = self._rates(velocity, position)
        chance = -np.expm1(rate_hz * np.float32(-STEP_US * 1e-6))
        drawn = self._bernoulli.random(chance.shape, np.float32) < chance
        i_step, unit = np.nonzero(drawn)
        draws = self._place.random((len(unit), 2))
        inside_us = 1 + (draws[:, 0] * STEP_US).astype(np.int64)
        t_us = (self._i_step + i_step) * STEP_US + inside_us
        keep = self._refractory.passes(t_us, unit, draws[:, 1])
        self._i_step += len(velocity)
        self.n_spikes += len(keep)
        return SpikeBatch(t_us[keep], unit[keep].astype(np.int32), np.ones(len(keep), np.int32))

    def _rates(self, velocity: Float64s, position: Float64s) -> Float32s:
        """(m, n_units) spikes/s in each millisecond."""
        m = len(velocity)
        drive = np.empty((_MAX_LAG_MS + m, 3), np.float32)
        drive[:_MAX_LAG_MS] = self._past
        drive[_MAX_LAG_MS:, :2] = velocity / REFERENCE_SPEED_CM_S
        drive[_MAX_LAG_MS:, 2] = np.hypot(velocity[:, 0], velocity[:, 1]) / REFERENCE_SPEED_CM_S
        self._past = drive[m:].copy()
        log_ratio = self._weights.tuned(drive, m)
        log_ratio += self._weights.placed(position)
        np.tanh(log_ratio / _SATURATION, out=log_ratio)
        log_ratio *= _SATURATION
        log_ratio += self._noise.log_rates(self._i_step, m)
        rate_hz: Float32s = np.exp(log_ratio, out=log_ratio)
        return np.minimum(rate_hz, np.float32(_MAX_RATE_HZ), out=rate_hz)


class _Weights:
    """All units' tuning, laid out for whole pieces of plan."""

    def __init__(self, units: Population) -> None:
        self.x = (units.gain * np.cos(units.direction)).astype(np.float32)
        self.y = (units.gain * np.sin(units.direction)).astype(np.float32)
        self.speed = units.speed_gain.astype(np.float32)
        self.position = (units.position_gain / REFERENCE_REACH_CM).astype(np.float32)
        self.first = (_MAX_LAG_MS - units.lag_ms).astype(np.int64)

    def tuned(self, drive: Float32s, m: int) -> Float32s:
        """(m, n_units) log-rate change; `drive` holds 128 ms before the piece, too."""
        index = self.first[None, :] + np.arange(m)[:, None]
        out: Float32s = np.take(drive[:, 0], index) * self.x
        out += np.take(drive[:, 1], index) * self.y
        out += np.take(drive[:, 2], index) * self.speed
        return out

    def placed(self, position: Float64s) -> Float32s:
        """(m, n_units) log-rate change by position."""
        where = position.astype(np.float32)
        out: Float32s = where[:, :1] * self.position[:, 0]
        out += where[:, 1:] * self.position[:, 1]
        return out


class RateNoise:
    """Log rates at rest: base, slow drift, shared and private noise, renewed every 10 ms.

    All three noises are Ornstein-Uhlenbeck processes: private 0.2 s, shared 0.3 s, drift 15 min.
    """

    def __init__(self, units: Population, seed: np.random.SeedSequence) -> None:
        private, shared, drift = (np.random.default_rng(child) for child in seed.spawn(3))
        self._rng = {"private": private, "shared": shared, "drift": drift}
        self._base = np.where(units.alive, units.log_rate, -np.inf)
        self._private_sd, self._shared_gain = units.private_sd, units.shared_gain
        self._private = private.standard_normal(len(units))
        self._shared = shared.standard_normal(N_SHARED_SOURCES)
        self._drift = np.zeros(len(units))
        self._row = self._mixed()
        self._i_row = 0

    def log_rates(self, i_step: int, m: int) -> Float32s:
        """Return (m, n_units) for the steps from `i_step`, which must follow those before."""
        last = (i_step + m - 1) // _NOISE_STEP_MS
        rows = [self._row]
        while self._i_row < last:
            self._renew()
            rows.append(self._row)
        first = last - len(rows) + 1
        return np.stack(rows)[(i_step + np.arange(m)) // _NOISE_STEP_MS - first]

    def _renew(self) -> None:
        self._i_row += 1
        step_s = _NOISE_STEP_MS * 1e-3
        self._private = _relaxed(self._private, step_s / 0.2, self._rng["private"])
        self._shared = _relaxed(self._shared, step_s / 0.3, self._rng["shared"])
        if self._i_row % _DRIFT_STEPS == 0:
            self._drift = _relaxed(self._drift, _DRIFT_STEPS * step_s / 900.0, self._rng["drift"])
        self._row = self._mixed()

    def _mixed(self) -> Float32s:
        noise = self._private_sd * self._private + self._shared_gain @ self._shared
        return (self._base + noise + 0.25 * self._drift).astype(np.float32)


def _relaxed(value: Float64s, steps: float, rng: np.random.Generator) -> Float64s:
    """Take one exact step in a unit-variance Ornstein-Uhlenbeck process, `steps` time constants."""
    keep = np.exp(-steps)
    out: Float64s = keep * value + np.sqrt(1.0 - keep**2) * rng.standard_normal(len(value))
    return out


class Refractory:
    """Refractory filter: no spike within 2 ms after the unit's last, fewer up to 8 ms."""

    ABSOLUTE_US = 2000
    RECOVERED_US = 8000

    def __init__(self, n_units: int) -> None:
        self._last_us = [-self.RECOVERED_US] * n_units

    def passes(self, t_us: Int64s, unit: Int64s, chance: Float64s) -> list[int]:
        """Return the indices that pass; each unit's stamps must increase."""
        last_us, kept = self._last_us, []
        span_us = self.RECOVERED_US - self.ABSOLUTE_US
        each = zip(t_us.tolist(), unit.tolist(), chance.tolist(), strict=True)
        for i, (t, u, share) in enumerate(each):
            if t - last_us[u] >= self.ABSOLUTE_US + share * span_us:
                last_us[u] = t
                kept.append(i)
        return kept
