"""Following drift: what a bin usually holds, as the last minutes tell.

Rates drift within a session, and a network takes what lies beyond the usual for movement. So the
mean of the last minutes is followed, of the latents and of the linear filter's sums, and what it
moved by since calibration is taken away. No label is needed. A rest is followed too, and forgotten
as fast; a drift that is larger than what latents vary by from bin to bin is followed no further.

Numbers only, without torch: backends that run without it read them too.
"""

from __future__ import annotations

import math

FOLLOW_S = 120.0
LARGEST = 1.0
"""Drift of a latent that is followed, in standard deviations of it from bin to bin."""


def follow_share(bin_s: float) -> float:
    """Weight for one bin, for a memory as long as `FOLLOW_S`."""
    return 1.0 - math.exp(-bin_s / FOLLOW_S)
