"""Which channels are dead, duplicated or bursting, from some seconds of spikes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from streams.sessions.session import Session

COINCIDENT_US = 500
DUPLICATED_SHARE = 0.7
FEWEST_SPIKES = 20
BURST_WINDOW_S = 0.1
BURSTING_FANO = 6.0
REFRACTORY_US = 1000
NOISY_SHARE = 0.05
DEAD_BY_CHANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Channels:
    """What stands out; every list holds unit keys.

    Attributes:
        seconds: looked at.
        rates_hz: of every unit.
        dead: silent, though yesterday they were not.
        duplicated: pairs that fire together within half a millisecond, nearly always.
        bursting: counts in 0.1 s vary far more than a neuron's.
        noisy: over a twentieth of the intervals are shorter than a neuron can fire.
        unknown: that the base decoder does not know.
    """

    seconds: float
    rates_hz: dict[str, float]
    dead: list[str]
    duplicated: list[tuple[str, str]]
    bursting: list[str]
    noisy: list[str]
    unknown: list[str]


def look_at_channels(session: Session, before_hz: Mapping[str, float]) -> Channels:
    """Judge every unit.

    Args:
        session: some seconds.
        before_hz: rate of each unit when the base decoder was made; empty where unknown.
    """
    spikes, keys = session.spikes, session.unit_keys
    seconds = max(session.duration_s, 1e-9)
    times = [spikes.t_us[spikes.unit == i] for i in range(len(keys))]
    rates_hz = {key: len(t_us) / seconds for key, t_us in zip(keys, times, strict=True)}
    enough = -np.log(DEAD_BY_CHANCE) / seconds
    alive = [i for i, t_us in enumerate(times) if len(t_us) >= FEWEST_SPIKES]
    return Channels(
        seconds=seconds,
        rates_hz=rates_hz,
        dead=[key for key, hz in before_hz.items() if hz > enough and not rates_hz.get(key)],
        duplicated=[
            (keys[i], keys[j])
            for n, i in enumerate(alive)
            for j in alive[n + 1 :]
            if _are_one(times[i], times[j])
        ],
        bursting=[keys[i] for i in alive if _fano(times[i], seconds) > BURSTING_FANO],
        noisy=[keys[i] for i in alive if np.mean(np.diff(times[i]) < REFRACTORY_US) > NOISY_SHARE],
        unknown=[key for key in keys if before_hz and key not in before_hz and rates_hz[key]],
    )


def _are_one(a_us: np.ndarray, b_us: np.ndarray) -> bool:
    """Whether most spikes of the rarer of two units have one of the other beside them."""
    few, many = (a_us, b_us) if len(a_us) <= len(b_us) else (b_us, a_us)
    if len(few) < DUPLICATED_SHARE * len(many):
        return False
    place = np.searchsorted(many, few)
    before = np.abs(few - many[np.maximum(place - 1, 0)])
    after = np.abs(few - many[np.minimum(place, len(many) - 1)])
    return bool(np.mean(np.minimum(before, after) <= COINCIDENT_US) > DUPLICATED_SHARE)


def _fano(t_us: np.ndarray, seconds: float) -> float:
    n_windows = max(2, round(seconds / BURST_WINDOW_S))
    counts = np.bincount((t_us / (BURST_WINDOW_S * 1e6)).astype(np.int64), minlength=n_windows)
    return float(np.var(counts) / max(float(np.mean(counts)), 1e-9))
