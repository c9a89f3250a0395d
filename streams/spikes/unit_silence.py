"""Silence of a unit: can chance explain it?"""

from __future__ import annotations

import math

DEAD_BY_CHANCE = 1e-6
"""A unit counts as dead if it would be silent for so long by chance less often than this."""


def is_telling(rate_hz: float, seconds: float) -> bool:
    """Return True if a unit with this rate fires within so long, except by chance (Poisson)."""
    return rate_hz * seconds >= -math.log(DEAD_BY_CHANCE)
