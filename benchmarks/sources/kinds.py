"""Ways in which sources send, and the pushes that each of them makes."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from streams.messages import Float64s, Int32s

BLOCK_S = 5e-3


@dataclass(frozen=True, slots=True)
class Kind:
    """How a source sends its blocks of `BLOCK_S`. What is said of its change holds while changed.

    Attributes:
        told: for people.
        by_channel: within a block spikes stand by channel, then by stamp.
        delay_s: how much later than its end a block leaves.
        jitter_s: and by chance up to so much later again, in order.
        behind_s: while changed, each spike leaves by chance up to so much after its block.
        falls_silent: while changed, no unit fires.
        marks: each block ends with a keep-alive; while spikes are behind none does.
    """

    told: str
    by_channel: bool = False
    delay_s: float = 0.0
    jitter_s: float = 0.0
    behind_s: float = 0.0
    falls_silent: bool = False
    marks: bool = True

    @property
    def changes(self) -> bool:
        """True if it sends otherwise for a part of the time."""
        return self.falls_silent or self.behind_s > 0


KINDS = {
    "blocks": Kind("blocks of 5 ms"),
    "by-channel": Kind("blocks of 5 ms, by channel", by_channel=True),
    "jitter": Kind("10 ms of jitter", jitter_s=10e-3),
    "disorderly": Kind("turns disorderly (3 ms)", behind_s=3e-3),
    "silent": Kind("falls silent", falls_silent=True),
    "silent-unmarked": Kind("falls silent, unmarked", falls_silent=True, marks=False),
    "old": Kind("in order, 60 ms old", delay_s=60e-3),
}


@dataclass(frozen=True, slots=True, order=True)
class Push:
    """One push; pushes are ordered by when they leave.

    Attributes:
        t_s: when it leaves.
        i: tells pushes of one time apart.
        stamps: (n,) of its spikes.
        unit: (n,) index of each one's unit.
        complete_until_s: stamp of the keep-alive at its end; None for none.
    """

    t_s: float
    i: int
    stamps: Float64s = field(compare=False)
    unit: Int32s = field(compare=False)
    complete_until_s: float | None = field(compare=False, default=None)


def pushes(
    kind: Kind, n_units: int, rate_hz: float, t_begin_s: float, is_changed: Callable[[], bool]
) -> Iterator[Push]:
    """Yield a source's pushes in the order in which they leave, for ever.

    A block is made when nothing earlier can leave any more, so that `is_changed` acts at once.

    Args:
        kind: how it sends.
        n_units: units, all alike.
        rate_hz: spikes per second of each.
        t_begin_s: the first block's begin.
        is_changed: returns True while it sends otherwise.
    """
    rng, waiting = np.random.default_rng(0), list[Push]()
    t_block_s, t_free_s, i = t_begin_s, -np.inf, 0
    while True:
        while not waiting or waiting[0].t_s > t_block_s + BLOCK_S:
            changed, end_s = kind.changes and is_changed(), t_block_s + BLOCK_S
            fires = not (changed and kind.falls_silent)
            n = int(rng.poisson(n_units * rate_hz * BLOCK_S)) if fires else 0
            stamps = np.sort(t_block_s + BLOCK_S * rng.random(n))
            unit = rng.integers(0, n_units, n, dtype=np.int32)
            if kind.by_channel:
                order = np.lexsort((stamps, unit))
                stamps, unit = stamps[order], unit[order]
            leaves_s = end_s + kind.delay_s + kind.jitter_s * rng.random()
            t_free_s = leaves_s = max(t_free_s, leaves_s)  # TCP keeps the order
            is_behind = changed and kind.behind_s > 0
            behind_s = kind.behind_s * rng.random(n) if is_behind else np.zeros(n)
            mark_s = end_s if kind.marks and not is_behind else None
            # A block without spikes is a push too: time goes on with it.
            for late_s in np.unique(behind_s) if n else (0.0,):
                here, i = behind_s == late_s, i + 1
                heapq.heappush(
                    waiting, Push(leaves_s + late_s, i, stamps[here], unit[here], mark_s)
                )
            t_block_s = end_s
        yield heapq.heappop(waiting)
