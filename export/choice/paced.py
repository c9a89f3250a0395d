"""Steps timed as the loop makes them: after a wait, one bin after the other, memory carried on.

Back to back, code and weights stay in the processor's caches, and a step of fifty operators looks
little slower than one compiled function. In the loop some milliseconds pass between two steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from export.backends.table import Backend
from export.bundle import DecoderBundle
from streams.clock import Clock, MonotonicClock

N_TURNS = 40
LONGEST_WAIT_S = 0.01


def time_in_turn(
    bundle: DecoderBundle, backends: Mapping[str, Backend], clock: Clock | None = None
) -> dict[str, float]:
    """Time steps of several backends in turn, so that a busy moment strikes them alike.

    Args:
        bundle: whose parity record holds the bins.
        backends: by name; each has run before. Their memory is zero afterwards.
        clock: the machine's, by default: a step on a GPU does not take processor time.

    Returns:
        Per backend the median step, seconds, copies included.
    """
    clock = clock or MonotonicClock()
    record, lead_s = bundle.parity(), bundle.manifest.lead_s.default
    wait_s = min(bundle.manifest.hop_s, LONGEST_WAIT_S)
    taken_s: dict[str, list[float]] = {name: [] for name in backends}
    for i_turn in range(N_TURNS):
        window = record.window(i_turn % len(record))
        for name, backend in backends.items():
            clock.sleep_until(clock.now() + wait_s)
            t_start_s = clock.now()
            backend.step(window, lead_s)
            taken_s[name].append(clock.now() - t_start_s)
    for backend in backends.values():
        backend.reset()
    return {name: float(np.median(taken)) for name, taken in taken_s.items()}
