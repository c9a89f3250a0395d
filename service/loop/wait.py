"""The wait between a window's end and its cutting: for stamped spikes, and made use of.

After a sleep, code and weights are far from the core: a decode takes three times as long as one
just after another. Therefore decodes are rehearsed, without consequence, until the cut is due.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
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
        await_arrival: returns once something arrived, at the latest after so many seconds.
        cut: `settled`: when the settle time is over; `arrived`: as soon as something stamped later
            than the window came, if that is earlier.
        rehearse: decode before, without consequence.
    """

    def __init__(
        self,
        clock: Clock,
        beat: Beat,
        inbox: deque[Arrival],
        await_arrival: Callable[[float], None],
        *,
        cut: Literal["settled", "arrived"],
        rehearse: bool,
    ) -> None:
        self._clock, self._beat, self._inbox = clock, beat, inbox
        self._await_arrival = await_arrival
        self._cut, self._may_rehearse = cut, rehearse

    def until_settled(self, k: int, settle_s: float, *, settling: bool) -> float:
        """Wait for beat k, and take in what came.

        Args:
            k: the beat.
            settle_s: how long spikes are waited for after its window.
            settling: the settle time is still being measured, so that no beat is cut earlier.

        Returns:
            When cutting was due.
        """
        clock, beat = self._clock, self._beat
        t_window = beat.schedule.window_end_s(k)
        t_settled = t_window + settle_s
        hop_s = beat.ring.hop_us * 1e-6
        awake_s = min(AWAKE_S, AWAKE_OF_HOP * hop_s) if self._may_rehearse else 0.0
        if self._cut == "arrived":
            self._take_in_until(t_settled if settling else t_window)
            return self._until_heard_of(k, t_window + awake_s, t_settled)
        clock.sleep_until(min(t_window, t_settled - awake_s))
        beat.take_in(self._inbox)
        clock.sleep_until(t_settled - awake_s)
        beat.take_in(self._inbox)
        n_rehearsed = 0
        while self._rehearse(k, t_settled) and n_rehearsed < MOST_REHEARSALS:
            n_rehearsed += 1
            beat.take_in(self._inbox)
        clock.spin_until(t_settled) if n_rehearsed else clock.sleep_until(t_settled)
        beat.take_in(self._inbox)
        return t_settled

    def _take_in_until(self, t_s: float) -> None:
        """Take in arrivals as they come."""
        while (left_s := t_s - self._clock.now()) > 0:
            self._await_arrival(left_s)
            self._beat.take_in(self._inbox)

    def _until_heard_of(self, k: int, t_awake: float, t_settled: float) -> float:
        """Wait for a stamp later than the window; rehearse while no arrival is expected.

        One after another until `t_awake`, then now and then: where no unit fires, the wait is long.
        """
        clock, beat = self._clock, self._beat
        while (t_now := clock.now()) < t_settled:
            beat.take_in(self._inbox)
            if beat.has_heard_of(k):
                return clock.now()
            may_come = beat.blocks.may_come(t_now, t_now + self._rehearsal_s)
            rehearsed = not may_come and self._rehearse(k, t_settled)
            wait_s = t_settled - clock.now()
            if rehearsed:
                wait_s = 0.0 if t_now < t_awake else min(wait_s, REHEARSED_EVERY_S)
            self._await_arrival(wait_s)
        return t_settled

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
