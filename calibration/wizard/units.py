"""Each unit today: how it fires, what it is tuned to, and how that compares with before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from calibration.wizard.aims import aims_of, rates_of
from export.bundle import DecoderBundle
from streams.messages import Float64s
from streams.sessions.session import Session

BIN_S = 0.1
CHANGED_FACTOR = 3.0
SILENT_BEFORE_HZ = 0.2
Health = Literal["ok", "changed", "new", "silent"]


@dataclass(frozen=True, slots=True)
class UnitRow:
    """One unit.

    Attributes:
        key: of the unit.
        health: as before, changed by a factor of three, new to the base decoder, or silent.
        rate_hz: today.
        before_hz: when the base decoder was made; None where it does not say.
        x_hz: modulation along the first dimension, spikes/s at the usual speed.
        y_hz: along the second, 0 where there is none.
        r2: of the tuning.
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


def units_of(session: Session, base: DecoderBundle) -> list[UnitRow]:
    """Every unit, fitted with a cosine of the behaviour."""
    before = rates_of(base)
    counts, behavior = _binned(session, aims_of(base)[0].behavior)
    slopes, r2 = _tuning(counts, behavior)
    n = np.bincount(session.spikes.unit, session.spikes.count, len(session.unit_keys))
    rates_hz = n / max(session.duration_s, 1e-9)
    return [
        UnitRow(
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


def _binned(session: Session, behavior: str) -> tuple[Float64s, Float64s]:
    """(n_bins, n_units) counts and (n_bins, dims) behaviour where it is known."""
    n_bins, n_units = int(session.duration_s / BIN_S), len(session.unit_keys)
    i_bin = (session.spikes.t_us / (BIN_S * 1e6)).astype(np.int64)
    held = (i_bin >= 0) & (i_bin < n_bins)
    cell = i_bin[held] * n_units + session.spikes.unit[held]
    counts = np.bincount(cell, session.spikes.count[held], n_bins * n_units)
    middle_s: Float64s = (np.arange(n_bins, dtype=np.float64) + 0.5) * BIN_S
    values = session.signal(behavior).at(middle_s)
    known = np.isfinite(values).all(axis=1)
    return counts.reshape(n_bins, n_units)[known].astype(np.float64), values[known]


def _tuning(counts: Float64s, behavior: Float64s) -> tuple[Float64s, Float64s]:
    """(dims, n_units) spikes/s at the behaviour's usual size, and (n_units,) R2."""
    if len(counts) < behavior.shape[1] + 2:
        return np.zeros((behavior.shape[1], counts.shape[1])), np.zeros(counts.shape[1])
    size = float(np.sqrt(np.square(behavior).sum(axis=1).mean())) or 1.0
    features = np.concatenate([behavior / size, np.ones((len(behavior), 1))], axis=1)
    weights = np.linalg.lstsq(features, counts, rcond=None)[0]
    error = np.square(counts - features @ weights).sum(axis=0)
    spread = np.square(counts - counts.mean(axis=0)).sum(axis=0)
    r2 = np.where(spread > 0, 1.0 - error / np.where(spread > 0, spread, 1.0), 0.0)
    return weights[:-1] / BIN_S, r2
