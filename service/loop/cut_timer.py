"""Wait for a bin's last spikes and predecode it meanwhile.

The bin is decoded as far as it has come, and again when more comes: at its cut it is mostly done.
If it is not, code and weights are at least in the processor's caches: after a sleep a decode takes
three times as long as just after another one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from streams.clock import Clock

if TYPE_CHECKING:
    from service.loop.decode_loop import DecodeLoop

AWAKE_S, AWAKE_OF_HOP = 3e-3, 0.3
"""Predecoding begins at most so long before a cut, and at most this share of a hop."""
AWAKE_RUNS = 4
"""It begins so many first runs, the slow ones, before the cut. Staying awake longer would starve
other threads on the same core."""
FIRST_WEIGHT = 0.1
"""Weight of the newest first run in their running mean."""
LOOKED_EVERY_S = 50e-6
"""Interval at which the loop looks for new spikes once the bin is predecoded."""
PREDECODED_EVERY_S = 1e-3
QUICK_OF_HOP = 0.2
"""A decoder that takes longer than this share of a hop does not predecode: it might run twice."""
LEEWAY = 1.5
"""A predecode may take so much longer than the one before it."""
WARM_LEEWAY = 2.0
"""The same for one that only keeps the caches warm: it must not delay a finished decode."""
MOST_PREDECODES = 100
"""Before one cut."""
LONGER_OF_HOP = 0.9
"""A bin that may lack spikes at its cut is waited for so much longer at most, if that can tell."""
CARRIED_S, CARRIED_OF_HOP = 1e-3, 0.1
"""Nearly every decode reaches its client in this time; the loop idles so long if it is no more than
this share of a hop. A shorter pause would be worse than none: the loop would go on just as the
client wakes."""
Cut = Literal["auto", "settled", "arrived"]
CutBy = Literal["watermark", "arrived", "settled"]
"""Rule that cut a bin: everything stamped in it was known to have come, something later had come,
or the settle time was over."""


class CutTimer:
    """Waits until a beat may be cut; owned by the loop.

    Args:
        clock: the daemon's.
        loop: admits and predecodes.
        await_arrival: returns once something arrived, at the latest after so many seconds.
        cut: `settled`: when the settle time is over; `auto`: as soon as the watermark has passed
            the window, if that is earlier; `arrived`: as soon as something stamped later came.
        predecode: decode bins while they wait.

    Attributes:
        cut_by: the rule that the newest bin was cut by.
    """

    def __init__(
        self,
        clock: Clock,
        loop: DecodeLoop,
        await_arrival: Callable[[float], None],
        *,
        cut: Cut,
        predecode: bool,
    ) -> None:
        self._clock, self._loop, self._await_arrival = clock, loop, await_arrival
        self._cut, self._may_predecode = cut, predecode
        self.cut_by: CutBy = "settled"
        self._cuts: deque[CutBy] = deque(maxlen=max(1, round(1.0 / loop.schedule.hop_s)))
        self._publish_s = 0.0
        self._first_s = AWAKE_S / AWAKE_RUNS

    def until_cut(self, k: int, settle_s: float, *, settling: bool) -> float:
        """Wait for beat k, and admit what arrives meanwhile.

        Args:
            k: the beat.
            settle_s: how long spikes are waited for after its window.
            settling: the settle time is still being measured, so that no beat is cut earlier.

        Returns:
            When cutting was due.
        """
        clock, loop = self._clock, self._loop
        t_window = loop.schedule.window_end_s(k)
        t_settled = t_window + settle_s
        longest_s = min(AWAKE_S, AWAKE_OF_HOP * loop.schedule.hop_s)
        awake_s = min(longest_s, AWAKE_RUNS * self._first_s) if self._predecodes else 0.0
        self.cut_by = "settled"
        if self._cut != "settled":
            # While the settle time is measured, an early cut would hide how late spikes come.
            may_cut = not settling and (
                self._cut == "arrived" or loop.admission.watermark.is_learnt
            )
            t_awake = t_window + awake_s if may_cut else t_settled
            self._admit_until((t_window if may_cut else t_settled) - awake_s)
            t_due = self._until_whole_or_settled(k, t_awake, t_settled, may_cut=may_cut)
            self._until_whole(k, settle_s)
            return t_due
        # Admitting most spikes at the window's end leaves less to do just before the cut.
        clock.sleep_until(min(t_window, t_settled - awake_s))
        loop.admit()
        clock.sleep_until(t_settled - awake_s)
        loop.admit()
        # A source of counts may have moved the schedule meanwhile.
        self._predecode_until(k, loop.schedule.window_end_s(k) + settle_s)
        loop.admit()
        self._until_whole(k, settle_s)
        return t_settled

    def count_cut(self) -> None:
        """Count the rule by which the beat is cut."""
        self._cuts.append(self.cut_by)

    @property
    def cut_shares(self) -> dict[str, float]:
        """Shares of the last second's bins that each rule cut."""
        return {rule: n / len(self._cuts) for rule, n in Counter(self._cuts).items()}

    @property
    def follows_watermark(self) -> bool:
        """True if the watermark may cut bins."""
        return self._cut == "auto"

    @property
    def predecodes_until_cut(self) -> bool:
        """True if bins are decoded until the settle time is over."""
        return self._cut == "settled" and self._predecodes

    def idle_after_publish(self) -> None:
        """Pause while a published decode is carried to its client.

        Two hardware threads on one core, or a sender and a client on few cores, run at half their
        speed beside a loop that goes on at once, and its remaining work is in no hurry.
        """
        if self._is_quick and CARRIED_OF_HOP * self._loop.schedule.hop_s >= CARRIED_S:
            self._clock.sleep_until(self._clock.now() + CARRIED_S)

    def _predecode_until(self, k: int, t_settled: float) -> None:
        """Decode what has come, again whenever more does, and stay awake until the cut.

        A run that began in time may end after the cut: nothing is lost if no spike comes.
        """
        clock, loop = self._clock, self._loop
        if not self._predecodes:
            clock.sleep_until(t_settled)
            return
        for i in range(MOST_PREDECODES):
            if clock.now() >= t_settled:
                return
            if not loop.is_predecoded(k):
                loop.predecode(k)
                if i == 0:  # after a sleep it is slow: later ones tell nothing about that
                    self._first_s += FIRST_WEIGHT * (loop.predecode_s - self._first_s)
            elif not self._keep_warm(k, t_settled - clock.now()):
                clock.spin_until(min(clock.now() + LOOKED_EVERY_S, t_settled))
            loop.admit()
        clock.spin_until(t_settled)

    def _keep_warm(self, k: int, left_s: float) -> bool:
        """Predecode once more, or nearer to the cut warm up publishing; False if time is short."""
        if left_s > WARM_LEEWAY * self._loop.predecode_s:
            self._loop.predecode(k)
        elif left_s > WARM_LEEWAY * self._publish_s:
            t_s = self._clock.now()
            self._loop.warm_up_publish()
            self._publish_s = self._clock.now() - t_s
        else:
            return False
        return True

    def _until_whole(self, k: int, settle_s: float) -> None:
        """Wait a little longer if no later stamp has come, and waiting can tell why."""
        loop = self._loop
        longest_s = settle_s + LONGER_OF_HOP * loop.schedule.hop_s
        t_longest = loop.schedule.window_end_s(k) + longest_s
        while loop.admission.waits_for_more(k, longest_s, t_now := self._clock.now()):
            left_s = t_longest - t_now
            if left_s <= 0:
                return
            self._await_arrival(min(left_s, LOOKED_EVERY_S * 10))
            loop.admit()

    def _admit_until(self, t_s: float) -> None:
        """Admit arrivals as they come."""
        while (left_s := t_s - self._clock.now()) > 0:
            self._await_arrival(left_s)
            self._loop.admit()

    def _until_whole_or_settled(
        self, k: int, t_awake: float, t_settled: float, *, may_cut: bool
    ) -> float:
        """Wait until the bin is found whole; predecode while no arrival is expected.

        Predecodes follow one another until `t_awake`. After that they are rare, because the wait is
        long if no unit fires.

        Returns:
            When cutting was due: `t_settled`, or earlier if it `may_cut` earlier.
        """
        clock, loop = self._clock, self._loop
        while (t_now := clock.now()) < t_settled:
            loop.admit()
            if may_cut and self._is_whole(k):
                return clock.now()
            # A predecode that is under way when the next block arrives delays the decode itself.
            may_come = loop.blocks.may_come(t_now, t_now + self._predecode_s)
            predecoded = not may_come and self._predecode(k, t_settled)
            wait_s = t_settled - clock.now()
            if predecoded:
                wait_s = 0.0 if t_now < t_awake else min(wait_s, PREDECODED_EVERY_S)
            self._await_arrival(wait_s)
        return t_settled

    def _is_whole(self, k: int) -> bool:
        """Return True if beat k's bin can be cut before the settle time is over; note the rule."""
        admission = self._loop.admission
        if self._cut == "arrived":
            self.cut_by = "arrived" if admission.has_heard_of(k) else "settled"
        else:
            self.cut_by = "watermark" if admission.is_known_whole(k) else "settled"
        return self.cut_by != "settled"

    @property
    def _predecode_s(self) -> float:
        """Time that a predecode may take."""
        return LEEWAY * min(self._loop.predecode_s, self._loop.newest.run_s)

    def _predecode(self, k: int, t_until: float) -> bool:
        """Predecode once if that is done by `t_until`; return True if it was."""
        if not self._predecodes or self._clock.now() + self._predecode_s >= t_until:
            return False
        self._loop.predecode(k)
        return True

    @property
    def _predecodes(self) -> bool:
        """True if predecoding is asked for and possible, and there is time to run a bin twice."""
        return self._may_predecode and self._is_quick and self._loop.decoder.can_predecode

    @property
    def _is_quick(self) -> bool:
        """True if a beat leaves most time in its hop."""
        return self._loop.newest.run_s < QUICK_OF_HOP * self._loop.schedule.hop_s
