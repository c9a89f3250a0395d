"""The loop over beats: wait, decode, publish, look after the settle time; no clock of its own."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from service.loop.beat import CATCH_UP_S, Beat
from service.loop.source import Arrival
from service.loop.wait import Wait
from streams.clock import Clock
from streams.wire.schema import Decode

LISTEN_S = 0.6
"""Heard before the first beat, so that a source with a delay loses no spike at the start."""
Report = Callable[[str, dict[str, Any]], None]


class Arrivals(Protocol):
    """Where arrivals come from: the ingest thread, or a test."""

    def await_arrival(self, wait_s: float) -> None:
        """Return once something was handed over, at the latest after `wait_s`."""

    def held_off(self) -> AbstractContextManager[None]:
        """Hold off the conversion of what arrives meanwhile."""


class BeatLoop:
    """Does beat after beat; one thread owns it.

    Args:
        clock: the daemon's clock.
        beat: decodes.
        wait: until a beat may be cut.
        inbox: where arrivals are.
        arrivals: who puts them there.
        report: called with (event, detail).
    """

    def __init__(
        self,
        clock: Clock,
        beat: Beat,
        wait: Wait,
        inbox: deque[Arrival],
        arrivals: Arrivals,
        report: Report,
    ) -> None:
        self.wait = wait
        self._clock, self._beat, self._inbox = clock, beat, inbox
        self._arrivals, self._report = arrivals, report
        self.t_due = 0.0

    def begin(self, t_open_s: float, stopping: Callable[[], bool] = lambda: False) -> None:
        """Hear how late spikes come, then run what came before the first beat through the memory.

        Args:
            t_open_s: when the stream was opened.
            stopping: whether the end was asked for.
        """
        beat, most = self._beat, math.ceil(CATCH_UP_S * 1e6 / self._beat.ring.hop_us)
        beat.settle.begin(t_open_s)
        beat.take_in(self._inbox)
        t_heard_s = t_open_s + LISTEN_S if beat.settle.settling else t_open_s
        while (left_s := t_heard_s - self._clock.now()) > 0 and not stopping():
            self._arrivals.await_arrival(left_s)
            beat.take_in(self._inbox)
        n_before = math.inf  # a decoder that is too slow would never be done beginning
        while 0 < (n := self._n_due()) < n_before and not stopping():
            if n > most:
                beat.leave_out(beat.last_k + n - most)
            beat.begin(beat.last_k + min(n, most))
            n_before = n

    def turn(self, publish: Callable[[Decode], float]) -> tuple[Decode, float]:
        """Wait for the next beat, decode it and publish it.

        Returns:
            The decode, and when it was out.
        """
        beat, settle = self._beat, self._beat.settle
        newest_due = beat.schedule.newest_due(self._clock.now(), settle.settle_s)
        k = max(beat.last_k + 1, newest_due)
        waited_s = -1.0
        while waited_s < settle.settle_s:  # it may grow by what comes meanwhile
            waited_s = settle.settle_s
            self.t_due = self.wait.until_settled(k, waited_s, settling=settle.settling)
        with self._arrivals.held_off():
            decode = beat.turn(k, settle.settle_s)
            return decode, publish(decode)

    def look_after(self, decode: Decode) -> None:
        """Once a decode is out: settle, and report what the source did."""
        beat, settle, t_s = self._beat, self._beat.settle, self._clock.now()
        told = settle.settle(decode.beat, t_s, is_ahead=self.wait.is_ahead)
        rejected = beat.admission.rejected
        if told is None:
            told = settle.grow(decode.beat, t_s, rejected.shares["late"], rejected.n_late)
        if told is not None:
            self._report("settled", told)
        settle.shrink()
        for happened in rejected.drain():
            self._report(happened.event, happened.detail)

    def _n_due(self) -> int:
        """How many beats might be cut by now."""
        beat = self._beat
        newest_due = beat.schedule.newest_due(self._clock.now(), beat.settle.settle_s)
        return newest_due - beat.last_k
