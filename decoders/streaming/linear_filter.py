"""A linear filter beside the network: what today's labels tell of a unit that its profile does not.

A network that others' units taught reads what units have in common. How much one of them follows
behaviour, and when, is fitted from the same labelled seconds in closed form: a filter, worse than
the network, whose errors are others. A mean of both, mostly the network, is better than either.

The filter keeps leaky sums of the spikes; a spike adds its unit's row to them. It answers for the
present alone: the further ahead an estimate is asked for, the less it counts.

Numbers only, without torch: backends that run without it read them too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

TAPS_S = (0.0, 0.1)
FADES_OVER_S = 0.1
LARGEST = 1.0
"""Standard deviations of an output that a burst of spikes moves it by at most."""


def decays(taps_s: Sequence[float], bin_s: float) -> list[float]:
    """What is left of each sum after a bin."""
    return [math.exp(-bin_s / tap_s) if tap_s > 0.0 else 0.0 for tap_s in taps_s]
