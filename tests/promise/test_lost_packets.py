"""Packets of a source are lost: TCP sends them again, and holds back what came after them.

In simulated time.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.promise.rigs import KEYS
from tests.promise.test_promise import decoder
from tests.promise.world import T_BEGIN_S, Push, SentStream, SimulatedDaemon, World

HOP_S, SPIKES_EVERY_S, ALIVE_EVERY_S = 0.02, 0.01, 0.05
LOOKS_EVERY_S, BUSY_S, BUSY_SHARE = 2e-3, 6e-3, 0.02
"""The sender looks so often what is due; now and then its machine is busy for longer."""
LOST_SHARE, LOSSES_FOR_S = 0.1, 4.0
SENT_AGAIN_S, AS_OFTEN = (0.012, 0.025, 0.04, 0.2, 0.4), (0.3, 0.3, 0.2, 0.15, 0.05)


def metronome(seed: int, t_lost_s: float) -> SentStream:
    """Each bin holds a spike at least, and each spike is a packet."""
    rng = np.random.default_rng(seed)
    t_s = t_spike_s = t_alive_s = T_BEGIN_S - 1.0
    t_free_s, n, pushes = 0.0, 0, list[Push]()
    while t_s < T_BEGIN_S + t_lost_s + LOSSES_FOR_S:
        t_s += LOOKS_EVERY_S + (BUSY_S * rng.random() if rng.random() < BUSY_SHARE else 0.0)
        rows = list[list[int]]()
        if t_s >= t_spike_s:
            t_spike_s, n = t_s + SPIKES_EVERY_S, n + 1
            rows.append([n % len(KEYS) + 1, 1])
        if t_s >= t_alive_s:
            t_alive_s = t_s + ALIVE_EVERY_S
            rows.append([-1, -1])
        if not rows:
            continue
        out_s = t_s + 0.3e-3 * (1.0 + rng.random())
        if t_s > T_BEGIN_S + t_lost_s and rng.random() < LOST_SHARE:
            out_s += rng.choice(SENT_AGAIN_S, p=AS_OFTEN) * (0.8 + 0.4 * rng.random())
        t_free_s = max(t_free_s, out_s)
        pushes.append(Push(t_free_s, np.array(rows), np.full(len(rows), t_s)))
    return SentStream(("channel", "unit"), pushes)


@pytest.mark.parametrize("t_lost_s", [1.0, 12.0])
@pytest.mark.parametrize("seed", range(6))
def test_no_empty_bin_is_ok_while_packets_are_lost(seed: int, t_lost_s: float) -> None:
    daemon = SimulatedDaemon(World([metronome(seed, t_lost_s)]), decoder(HOP_S), HOP_S)
    daemon.run(T_BEGIN_S + t_lost_s + LOSSES_FOR_S)
    warm = [decode for decode in daemon.decodes if decode.t_window > T_BEGIN_S + 0.6]
    before = [decode.validity for decode in warm if decode.t_window < T_BEGIN_S + t_lost_s]
    assert sum(validity != "ok" for validity in before) <= 0.01 * len(before) + 1
    good = [decode for decode in warm if decode.validity == "ok"]
    assert len(good) > 0.5 * len(warm)
    assert [decode.beat for decode in good if decode.tokens == 0] == []
