"""A linear filter beside the network, fitted to today's labels.

A network trained on other units reads what units have in common. How much a unit follows behaviour,
and when, is fitted in closed form to the same labelled seconds. The filter is worse than the
network but has other errors, so a mean with mostly the network is better than either.

The filter keeps leaky sums; a spike adds its unit's row to them. It is fitted to the present and
serves a little ahead too. An estimate far ahead is the network's alone.

This module does not import torch, because backends without torch read it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

TAPS_S = (0.0, 0.1)
SERVES_TO_S, FADES_OVER_S = 0.1, 0.1
"""New bundles use the filter in full for leads up to the first, and fade it out over the second."""
LARGEST = 1.0
"""Most that a spike burst moves an output by, in its standard deviations."""


def decays(taps_s: Sequence[float], bin_s: float) -> list[float]:
    """Factor on each sum after a bin."""
    return [math.exp(-bin_s / tap_s) if tap_s > 0.0 else 0.0 for tap_s in taps_s]


def counts_at(lead_s: float, serves_to_s: float) -> float:
    """Weight from 0 to 1 for an estimate so far ahead, by a filter that serves so far."""
    return min(max(1.0 - (abs(lead_s) - serves_to_s) / FADES_OVER_S, 0.0), 1.0)
