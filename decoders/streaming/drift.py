"""Constants for following drift.

Rates drift within a session, and a network takes the change for movement. So a running mean over
the last minutes follows the latents and the linear filter's sums, and the decoder subtracts how far
it has moved since calibration. This needs no labels. A long rest is followed too, and forgotten as
fast. The subtracted drift never exceeds what latents vary by from bin to bin.

This module does not import torch, because backends without torch read it.
"""

from __future__ import annotations

import math

FOLLOW_S = 120.0
LARGEST = 1.0
"""Largest drift that is subtracted, in a latent's standard deviations from bin to bin."""


def follow_share(bin_s: float) -> float:
    """Weight for one bin, for a memory as long as `FOLLOW_S`."""
    return 1.0 - math.exp(-bin_s / FOLLOW_S)
