"""Each unit: whether it fires like a neuron, and what it is tuned to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from calibration.ridge import binned_counts
from calibration.wizard.behavior import continuous_targets
from export.bundle import DecoderBundle
from streams.messages import Float64s
from streams.r2 import r2_score
from streams.sessions.session import Session
from streams.spikes.unit_silence import SCREENED_CHANCE, is_telling

# Half a refractory time: two neurons do not do that for most of their spikes.
COINCIDENT_US = 500
DUPLICATED_SHARE = 0.7
# Fewer spikes tell nothing about bursts or coincidences.
FEWEST_SPIKES = 20
BURST_WINDOW_S = 0.1
# A Poisson process has 1, cortical units little more, bursts of noise far more.
BURSTING_FANO = 6.0
REFRACTORY_US = 1000
NOISY_SHARE = 0.05
TUNING_BIN_S = 0.1
# Rates of the same unit vary from day to day, rarely threefold.
CHANGED_FACTOR = 3.0
# So slow a unit was hardly there when the base decoder was made.
SILENT_BEFORE_HZ = 0.2
Health = Literal["ok", "changed", "new", "silent"]


@dataclass(frozen=True, slots=True)
class UnitScreening:
    """Units that stand out; every list holds unit keys.

    Attributes:
        rates_hz: spikes/s by unit.
        dead: silent, though they fired when the base decoder was made.
        duplicated: pairs that nearly always fire within half a millisecond.
        bursting: counts in 0.1 s vary far more than a neuron's.
        noisy: over 5 % of the intervals are shorter than a neuron can fire.
        unknown: that the base decoder does not know.
    """

    rates_hz: dict[str, float]
    dead: list[str]
    duplicated: list[tuple[str, str]]
    bursting: list[str]
    noisy: list[str]
    unknown: list[str]


def unit_rates_hz(bundle: DecoderBundle) -> dict[str, float]:
    """Read each unit's spikes/s when the decoder was made; empty where it does not say."""
    rates: Any = bundle.manifest.training.get("unit_rates_hz")
    return dict(rates) if isinstance(rates, dict) else {}


def screen_units(session: Session, before_hz: Mapping[str, float]) -> UnitScreening:
    """Judge every unit.

    Args:
        session: some seconds.
        before_hz: spikes/s by unit when the base decoder was made; empty where unknown.
    """
    spikes, keys = session.spikes, session.unit_keys
    seconds = max(session.duration_s, 1e-9)
    times = [spikes.t_us[spikes.unit == i] for i in range(len(keys))]
    rates_hz = {key: len(t_us) / seconds for key, t_us in zip(keys, times, strict=True)}
    alive = [i for i, t_us in enumerate(times) if len(t_us) >= FEWEST_SPIKES]
    return UnitScreening(
        rates_hz=rates_hz,
        dead=[
            key
            for key, hz in before_hz.items()
            if is_telling(hz, seconds, SCREENED_CHANCE) and not rates_hz.get(key)
        ],
        duplicated=[
            (keys[i], keys[j])
            for n, i in enumerate(alive)
            for j in alive[n + 1 :]
            if _fire_as_one(times[i], times[j])
        ],
        bursting=[keys[i] for i in alive if _fano(times[i], seconds) > BURSTING_FANO],
        noisy=[keys[i] for i in alive if np.mean(np.diff(times[i]) < REFRACTORY_US) > NOISY_SHARE],
        unknown=[key for key in keys if before_hz and key not in before_hz and rates_hz[key]],
    )


def _fire_as_one(a_us: np.ndarray, b_us: np.ndarray) -> bool:
    """Return True where most of the rarer unit's spikes have one of the other beside them."""
    few, many = (a_us, b_us) if len(a_us) <= len(b_us) else (b_us, a_us)
    if len(few) < DUPLICATED_SHARE * len(many):
        return False
    # The nearest spike is one of the two around the place where it would be sorted in.
    place = np.searchsorted(many, few)
    before = np.abs(few - many[np.maximum(place - 1, 0)])
    after = np.abs(few - many[np.minimum(place, len(many) - 1)])
    return bool(np.mean(np.minimum(before, after) <= COINCIDENT_US) > DUPLICATED_SHARE)


def _fano(t_us: np.ndarray, seconds: float) -> float:
    n_windows = max(2, round(seconds / BURST_WINDOW_S))
    counts = np.bincount((t_us / (BURST_WINDOW_S * 1e6)).astype(np.int64), minlength=n_windows)
    return float(np.var(counts) / max(float(np.mean(counts)), 1e-9))


@dataclass(frozen=True, slots=True)
class UnitTuning:
    """One unit, its rate fitted with a cosine.

    Attributes:
        key: unit key.
        health: as before, changed by a factor of three, new to the base decoder, or silent.
        rate_hz: today.
        before_hz: when the base decoder was made; None where it does not say.
        x_hz: modulation along the first dimension, spikes/s at the usual speed.
        y_hz: along the second, 0 where there is none.
        r2: how well the cosine fits.
    """

    key: str
    health: Health
    rate_hz: float
    before_hz: float | None
    x_hz: float
    y_hz: float
    r2: float

    @property
    def depth_hz(self) -> float:
        """Modulation along the preferred direction."""
        return math.hypot(self.x_hz, self.y_hz)

    @property
    def direction_deg(self) -> float:
        """Preferred direction."""
        return math.degrees(math.atan2(self.y_hz, self.x_hz)) % 360.0


def fit_tuning(session: Session, base: DecoderBundle) -> list[UnitTuning]:
    """Fit every unit's rate with a cosine of the behaviour that the base decoder follows."""
    before = unit_rates_hz(base)
    n_bins = int(session.duration_s / TUNING_BIN_S)
    middle_s: Float64s = (np.arange(n_bins, dtype=np.float64) + 0.5) * TUNING_BIN_S
    behavior = session.signal(continuous_targets(base)[0].behavior).at(middle_s)
    known = np.isfinite(behavior).all(axis=1)
    slopes, r2 = _cosine(binned_counts(session, TUNING_BIN_S, n_bins)[known], behavior[known])
    n = np.bincount(session.spikes.unit, session.spikes.count, len(session.unit_keys))
    rates_hz = n / max(session.duration_s, 1e-9)
    return [
        UnitTuning(
            key=key,
            health=_health(float(rates_hz[i]), before.get(key)),
            rate_hz=float(rates_hz[i]),
            before_hz=before.get(key),
            x_hz=float(slopes[0, i]),
            y_hz=float(slopes[1, i]) if len(slopes) > 1 else 0.0,
            r2=float(r2[i]),
        )
        for i, key in enumerate(session.unit_keys)
    ]


def _health(rate_hz: float, before_hz: float | None) -> Health:
    if before_hz is None or before_hz < SILENT_BEFORE_HZ:
        return "new" if rate_hz else "silent"
    if not rate_hz:
        return "silent"
    factor = max(rate_hz / before_hz, before_hz / rate_hz)
    return "changed" if factor > CHANGED_FACTOR else "ok"


def _cosine(counts: Float64s, behavior: Float64s) -> tuple[Float64s, Float64s]:
    """(dims, n_units) spikes/s at the behaviour's usual size, and (n_units,) R2."""
    if len(counts) < behavior.shape[1] + 2:
        return np.zeros((behavior.shape[1], counts.shape[1])), np.zeros(counts.shape[1])
    # At the usual speed, so that modulations can be compared across days.
    size = float(np.sqrt(np.square(behavior).sum(axis=1).mean())) or 1.0
    features = np.concatenate([behavior / size, np.ones((len(behavior), 1))], axis=1)
    weights = np.linalg.lstsq(features, counts, rcond=None)[0]
    r2 = np.nan_to_num(r2_score(features @ weights, counts))
    return weights[:-1] / TUNING_BIN_S, r2
