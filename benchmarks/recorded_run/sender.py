"""The sender: Poisson spikes in blocks, some far too late, and an outage when it is asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from service.bench.sender import unit_keys
from service.signals import until_signalled
from streams.clock import MonotonicClock
from streams.lsl.inlets import quieten
from streams.lsl.outlets import SpikeOutlet

BLOCK_S = 5e-3
LATE_EVERY_S, LATE_BY_S, N_LATE = 2.0, 0.7, 20


def send(name: str, n_units: int, rate_hz: float, outage: Path) -> None:
    """Send until SIGTERM; while the file `outage` exists the stream is gone."""
    is_stopped, clock, rng = until_signalled(), MonotonicClock(), np.random.default_rng(0)
    outlet: SpikeOutlet | None = None
    t_block_s = t_late_s = clock.now()
    while not is_stopped():
        if outage.exists():
            if outlet is not None:
                outlet.close()
                outlet = None
        elif outlet is None:
            keys = unit_keys(n_units)
            outlet = SpikeOutlet(name, name, keys, max(50_000.0, 2 * n_units * rate_hz))
        n = int(rng.poisson(n_units * rate_hz * BLOCK_S))
        stamps = t_block_s + np.sort(rng.random(n)) * BLOCK_S
        t_block_s += BLOCK_S
        if t_block_s >= t_late_s:
            t_late_s += LATE_EVERY_S
            late = t_block_s - LATE_BY_S + np.sort(rng.random(N_LATE)) * 1e-2
            stamps = np.concatenate((stamps, late))
        clock.sleep_until(t_block_s)
        if outlet is not None:
            units = rng.integers(0, n_units, len(stamps), dtype=np.int32)
            outlet.push(stamps, units, t_block_s)


if __name__ == "__main__":
    quieten()
    send(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
