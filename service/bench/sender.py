"""The sender for `bench loop`: Poisson spikes from many units over LSL, in blocks."""

from __future__ import annotations

import sys

import numpy as np

from service.daemon.realtime import set_priority
from service.signals import until_signalled
from streams.clock import MonotonicClock
from streams.lsl.outlets import SpikeOutlet

WAIT_FOR_CONSUMER_S = 60.0


def unit_keys(n_units: int) -> list[str]:
    """Keys of the units sent: `ch1/u1`, `ch2/u1`, ..."""
    return [f"ch{channel}/u1" for channel in range(1, n_units + 1)]


def send(
    *,
    n_units: int,
    rate_hz: float,
    block_s: float,
    seconds: float,
    name: str,
    delay_s: float = 0.0,
    priority: int = 0,
) -> int:
    """Send until the time is over or SIGTERM comes; begins when somebody listens.

    Args:
        n_units: units, all alike.
        rate_hz: spikes per second of each.
        block_s: spikes leave in blocks of this length, as amplifiers send them.
        seconds: how long.
        name: name of the stream.
        delay_s: blocks leave so much later than they end, as from a slow acquisition program.
        priority: SCHED_FIFO priority to ask for, as nothing here stands in an amplifier's way.

    Returns:
        How many spikes were sent.
    """
    is_stopped = until_signalled()
    if priority and not (had := set_priority(priority))[0]:
        sys.stderr.write(f"the sender: {had[1]}\n")
    clock, rng = MonotonicClock(), np.random.default_rng(0)
    outlet = SpikeOutlet(name, name, unit_keys(n_units), max(50_000.0, 2 * n_units * rate_hz))
    outlet.wait_for_consumers(WAIT_FOR_CONSUMER_S)
    t_block_s, n_sent = clock.now(), 0
    t_end_s = t_block_s + seconds
    while t_block_s < t_end_s and not is_stopped():
        n = int(rng.poisson(n_units * rate_hz * block_s))
        stamps = t_block_s + np.sort(rng.random(n)) * block_s
        t_block_s += block_s
        clock.sleep_until(t_block_s + delay_s)
        outlet.push(stamps, rng.integers(0, n_units, n, dtype=np.int32), t_block_s)
        n_sent += n
    outlet.close()
    return n_sent
