"""The wait between a window's end and its cutting: for stamped spikes, and made use of."""

from __future__ import annotations

import threading
from collections import deque
from typing import Literal

from service.loop.beat import Beat
from service.loop.ingest import Arrival
from streams.clock import Clock

REHEARSAL_S = 0.2e-3
REHEARSED_EVERY_S = 1e-3
REHEARSED_OF_HOP = 0.1
"""A decoder that takes longer than this share of a hop gains little from a rehearsal."""


class Wait:
    """Waits until a beat may be cut; one thread owns it.

    Args:
        clock: the daemon's.
        beat: takes in what arrives meanwhile.
        inbox: where that is.
        arrived: set whenever something arrived.
        cut: `settled`: when the settle time is over; `arrived`: as soon as something stamped later
            than the window came, if that is earlier.
        rehearse: decode just before, without consequence.
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
        clock, beat = self._clock, self._beat
        on_arrival = self._cut == "arrived" and not settling
        self._rehearse(k, t_settled, at_once=on_arrival)
        if on_arrival:
            return self._until_heard_of(k, t_settled)
        clock.sleep_until(t_settled)
        beat.take_in(self._inbox)
        return t_settled

    def _until_heard_of(self, k: int, t_settled: float) -> float:
        """Wait for a later stamp; nobody knows when it comes, so that a rehearsal is repeated."""
        clock, beat = self._clock, self._beat
        while not beat.has_heard_of(k) and (left_s := t_settled - clock.now()) > 0:
            if self._arrived.wait(min(left_s, REHEARSED_EVERY_S)):
                self._arrived.clear()
                beat.take_in(self._inbox)
            else:
                self._rehearse(k, t_settled, at_once=True)
        return min(t_settled, clock.now())

    def _rehearse(self, k: int, t_settled: float, *, at_once: bool) -> None:
        """As close before the cut as can be, so that little comes between; if there is time."""
        beat = self._beat
        is_quick = beat.taken_s < REHEARSED_OF_HOP * beat.ring.hop_us * 1e-6
        t_start = t_settled - REHEARSAL_S - 1.2 * max(beat.rehearsal_s, beat.taken_s)
        if not (self._may_rehearse and is_quick and t_start > self._clock.now()):
            return
        if not at_once:
            self._clock.sleep_until(t_start)
            beat.take_in(self._inbox)
        beat.rehearse(k)
