"""Following drift: what a bin usually holds, as the last minutes tell.

Rates drift within a session, and a network takes what lies beyond the usual for movement. So the
mean of the last minutes is followed, of the latents and of the linear filter's sums, and what it
moved by since calibration is taken away. No label is needed. A rest is followed too, and forgotten
as fast; a drift that is larger than what latents vary by from bin to bin is followed no further.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FOLLOW_S = 120.0
LARGEST = 1.0


def follow_share(bin_s: float) -> float:
    """By how much one bin counts, for a memory of `FOLLOW_S`."""
    return 1.0 - math.exp(-bin_s / FOLLOW_S)


def bounded(drift: Tensor, pooled_gain: Tensor) -> Tensor:
    """(1, n_pooled) drift of the latents, within `LARGEST` of what they vary by."""
    bound = LARGEST / pooled_gain
    return torch.minimum(torch.maximum(drift, -bound), bound)
