"""The wait between a window's end and its cutting: for stamped spikes, and made use of.

The bin is decoded as far as it has come, and again when more comes: at the cut it is mostly done
(see `ahead`). Where it is not, code and weights are at least near the core: after a sleep a decode
takes three times as long as one just after another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

from service.loop.beat import Beat
from service.loop.source import Arrival
from streams.clock import Clock

AWAKE_S, AWAKE_OF_HOP = 3e-3, 0.3
"""How long before a cut the rehearsals begin at most, and this share of a hop at most."""
AWAKE_RUNS = 4
"""So many first rehearsals, the slow ones: who is awake for longer takes the core from others."""
FIRST_WEIGHT = 0.1
"""Of the newest in the running mean of what first rehearsals take."""
LOOKED_EVERY_S = 50e-6
"""How often a beat that is decoded looks whether more has come."""
REHEARSED_EVERY_S = 1e-3
REHEARSED_OF_HOP = 0.2
"""A decoder that takes longer than this share of a hop is not run ahead: it may have to twice."""
LEEWAY = 1.5
"""A rehearsal may take so much longer than the one before it."""
WARM_LEEWAY = 2.0
"""The same where it only keeps things near the core: what is done already must not be delayed."""
MOST_REHEARSALS = 100
"""Before one cut."""
LONGER_OF_HOP = 0.9
"""A bin that may lack spikes at its cut is waited for so much longer at most, if that can tell."""
CARRIED_S, CARRIED_OF_HOP = 1e-3, 0.1
"""What a decode takes to its client, nearly always; the beat keeps still for it if it is no more of
a hop. For less would be worse than not at all: the beat would go on as the client wakes."""


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
        self._telling_s = 0.0
        self._first_s = AWAKE_S / AWAKE_RUNS

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
        longest_s = min(AWAKE_S, AWAKE_OF_HOP * hop_s)
        awake_s = min(longest_s, AWAKE_RUNS * self._first_s) if self._rehearses else 0.0
        if self._cut == "arrived":
            self._take_in_until(t_settled if settling else t_window)
            t_due = self._until_heard_of(k, t_window + awake_s, t_settled)
            self._until_whole(k, settle_s)
            return t_due
        clock.sleep_until(min(t_window, t_settled - awake_s))
        beat.take_in(self._inbox)
        clock.sleep_until(t_settled - awake_s)
        beat.take_in(self._inbox)
        self._decode_ahead(k, settle_s)
        beat.take_in(self._inbox)
        self._until_whole(k, settle_s)
        return t_settled

    @property
    def is_ahead(self) -> bool:
        """Whether bins are decoded while they wait."""
        return self._cut == "settled" and self._rehearses

    def while_carried(self) -> None:
        """Keep still while a decode that has just been published is carried to its client.

        Two hardware threads of one core, or a sender and a client on few cores, run at half their
        speed beside a beat that goes on at once, and what it has left to do is in no hurry.
        """
        hop_s = self._beat.ring.hop_us * 1e-6
        if self._is_quick and CARRIED_OF_HOP * hop_s >= CARRIED_S:
            self._clock.sleep_until(self._clock.now() + CARRIED_S)

    def _decode_ahead(self, k: int, settle_s: float) -> None:
        """Decode what has come, again whenever more does, and stay awake until the cut.

        One that is begun in time may end after it: nothing is lost, as long as nothing comes.
        """
        clock, beat = self._clock, self._beat
        t_settled = beat.schedule.window_end_s(k) + settle_s
        if not self._rehearses:
            clock.sleep_until(t_settled)
            return
        for i in range(MOST_REHEARSALS):
            if clock.now() >= t_settled:
                return
            if not beat.is_ahead(k):
                beat.rehearse(k)
                if i == 0:
                    self._first_s += FIRST_WEIGHT * (beat.rehearsal.taken_s - self._first_s)
            elif not self._keep_warm(k, settle_s, t_settled - clock.now()):
                clock.spin_until(min(clock.now() + LOOKED_EVERY_S, t_settled))
            beat.take_in(self._inbox)
        clock.spin_until(t_settled)

    def _until_whole(self, k: int, settle_s: float) -> None:
        """Wait a little longer where nothing stamped after the bin has come, if that can tell."""
        longest_s = settle_s + LONGER_OF_HOP * self._beat.ring.hop_us * 1e-6
        t_longest = self._beat.schedule.window_end_s(k) + longest_s
        admission = self._beat.admission
        while admission.waits_for_more(k, longest_s, t_now := self._clock.now()):
            left_s = t_longest - t_now
            if left_s <= 0:
                return
            self._await_arrival(min(left_s, LOOKED_EVERY_S * 10))
            self._beat.take_in(self._inbox)

    def _keep_warm(self, k: int, settle_s: float, left_s: float) -> bool:
        """Rehearse the decode once more, or nearer to the cut what follows it, if there is time."""
        if left_s > WARM_LEEWAY * self._beat.rehearsal.taken_s:
            self._beat.rehearse(k)
        elif left_s > WARM_LEEWAY * self._telling_s:
            t_s = self._clock.now()
            self._beat.rehearse_telling(settle_s)
            self._telling_s = self._clock.now() - t_s
        else:
            return False
        return True

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
        return LEEWAY * min(self._beat.rehearsal.taken_s, self._beat.newest.run_s)

    def _rehearse(self, k: int, t_until: float) -> bool:
        """Rehearse once if that is done by `t_until`; whether it was."""
        if not self._rehearses:
            return False
        if self._clock.now() + self._rehearsal_s >= t_until:
            return False
        self._beat.rehearse(k)
        return True

    @property
    def _rehearses(self) -> bool:
        """Whether that is asked for and can be, and there is time to run a bin twice."""
        return self._may_rehearse and self._is_quick and self._beat.decoder.can_rehearse

    @property
    def _is_quick(self) -> bool:
        """Whether a beat leaves most of its hop."""
        beat = self._beat
        return beat.newest.run_s < REHEARSED_OF_HOP * beat.ring.hop_us * 1e-6
