"""The wait between a window's end and its cutting: for stamped spikes, and made use of.

After a sleep, code and weights are far from the core: a decode takes three times as long as one
just after another. Therefore decodes are rehearsed, without consequence, until the cut is due.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Literal

from service.loop.beat import Beat
from service.loop.ingest import Arrival
from streams.clock import Clock

AWAKE_S, AWAKE_OF_HOP = 3e-3, 0.3
"""How long before a cut the rehearsals begin, at most this share of a hop: the first are slow."""
REHEARSED_EVERY_S = 1e-3
REHEARSED_OF_HOP = 0.1
"""A decoder that takes longer than this share of a hop gains little from a rehearsal."""
LEEWAY = 1.2
"""A rehearsal may take so much longer than the one before it."""
MOST_REHEARSALS = 100
"""Before one cut."""


class Wait:
    """Waits until a beat may be cut; one thread owns it.

    Args:
        clock: the daemon's.
        beat: takes in what arrives meanwhile.
        inbox: where that is.
        arrived: set whenever something arrived.
        cut: `settled`: when the settle time is over; `arrived`: as soon as something stamped later
            than the window came, if that is earlier.
        rehearse: decode before, without consequence.
    """

    def __init__(
        self,
        clock: Clock,
        beat: Beat,
        inbox: deque[Arrival],
        arrived: threading.Event,
        *,
        cut: Literal["settled", "arrived"],
        rehearse: bool,
    ) -> None:
        self._clock, self._beat, self._inbox, self._arrived = clock, beat, inbox, arrived
        self._cut, self._may_rehearse = cut, rehearse

    def until_settled(self, k: int, t_settled: float, *, settling: bool) -> float:
        """Wait for beat k, and take in what came.

        Args:
            k: the beat.
            t_settled: its window's end and the settle time.
            settling: the settle time is still being measured, so that no beat is cut earlier.

        Returns:
            When cutting was due.
        """
        self._beat.take_in(self._inbox)
        if self._cut == "arrived" and not settling:
            return self._until_heard_of(k, t_settled)
        self._awake(k, t_settled)
        self._clock.spin_until(t_settled)
        self._beat.take_in(self._inbox)
        return t_settled

    def _awake(self, k: int, t_settled: float) -> None:
        """Sleep until shortly before the cut; from then on the core does not."""
        hop_s = self._beat.ring.hop_us * 1e-6
        self._clock.sleep_until(t_settled - min(AWAKE_S, AWAKE_OF_HOP * hop_s))
        for _ in range(MOST_REHEARSALS):
            self._beat.take_in(self._inbox)
            if not self._rehearse(k, t_settled):
                return

    def _until_heard_of(self, k: int, t_settled: float) -> float:
        """Wait for a later stamp; rehearse while none is expected to come meanwhile."""
        clock, beat = self._clock, self._beat
        while not beat.has_heard_of(k) and clock.now() < t_settled:
            t_now = clock.now()
            may_come = beat.blocks.may_come(t_now, t_now + self._rehearsal_s)
            rehearsed = not may_come and self._rehearse(k, t_settled)
            left_s = t_settled - clock.now()
            if self._arrived.wait(min(left_s, REHEARSED_EVERY_S) if rehearsed else left_s):
                self._arrived.clear()
                beat.take_in(self._inbox)
        return min(t_settled, clock.now())

    @property
    def _rehearsal_s(self) -> float:
        """What a rehearsal may take."""
        return LEEWAY * min(self._beat.rehearsal_s, self._beat.taken_s)

    def _rehearse(self, k: int, t_until: float) -> bool:
        """Rehearse once if that is done by `t_until`; whether it was."""
        beat = self._beat
        is_quick = beat.taken_s < REHEARSED_OF_HOP * beat.ring.hop_us * 1e-6
        if not (self._may_rehearse and is_quick):
            return False
        if self._clock.now() + self._rehearsal_s >= t_until:
            return False
        beat.rehearse(k)
        return True
