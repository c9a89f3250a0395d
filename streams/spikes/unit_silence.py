"""Silence of a unit: can chance explain it?"""

from __future__ import annotations

import math

WATCHED_CHANCE, SCREENED_CHANCE = 1e-6, 1e-4
"""A unit counts as dead if it is silent by chance less often than this: the daemon looks every
second for hours, the wizard's screening once."""


def is_telling(rate_hz: float, seconds: float, chance: float) -> bool:
    """Return True if a unit with this rate fires within so long, except by `chance` (Poisson)."""
    return rate_hz * seconds >= -math.log(chance)
