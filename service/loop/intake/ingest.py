"""Ingest: pull the stream, convert its stamps once, and hand arrivals to the loop."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.guard import Guard
from service.loop.intake.arrivals import Arrival
from service.loop.intake.schedule import Schedule
from service.loop.intake.source import Source
from streams.clock import Clock
from streams.errors import StreamAmbiguousError, StreamLostError, StreamUnfitError

RECENT_S = 0.05
CATCH_UP_WITHIN_S = 2.0
PULL_WAIT_S = 0.1
HELD_OFF_AT_MOST_S = 0.05
OFFSET_EVERY_S = 1.0
SILENT_S = 6.0
"""A source that sent nothing and did not answer about its clock for so long is gone, though its
connection may still stand: a cable was pulled, or its machine was switched off. LSL asks for the
clock every 2 s, for up to 0.7 s; once may get lost."""
STOOD_STILL_S = 1.0
"""From one pull to the next: the process did not listen (SIGSTOP, a suspended machine)."""


class Ingest:
    """Pulls in a thread until told to stop; a second thread keeps the sender's clock measured.

    The loop's thread may pull itself while it waits (`by_loop`): spikes reach it without waking
    another thread. If the source is lost then, the first thread starts, looks for it, and pulls
    from then on: no beat waits for that.

    Args:
        source: the stream.
        clock: the daemon's clock.
        schedule: tells what stamps count from.
        inbox: where arrivals go.
        report: called with (event, detail) when the source goes or comes back.
        failed: called once with the error that ended the thread.
        by_loop: the loop's thread pulls, in `await_arrival`.

    Attributes:
        is_lost: the stream ended, and is looked for.
        puller: the thread that pulls, started once it is needed.
    """

    def __init__(
        self,
        source: Source,
        clock: Clock,
        schedule: Schedule,
        inbox: deque[Arrival],
        report: Callable[[str, dict[str, object]], None],
        failed: Callable[[Exception], None],
        *,
        by_loop: bool = False,
    ) -> None:
        self.puller = threading.Thread(target=self._pull, name="ingest", daemon=True)
        self._source, self._clock, self._schedule = source, clock, schedule
        self._inbox, self._report, self._failed = inbox, report, failed
        self._by_loop, self.is_lost = by_loop, False
        self._refused = ""
        self._t_heard_s = self._t_answered_s = self._t_pulled_s = clock.now()
        self._arrived = threading.Event()
        self._may_convert = threading.Event()
        self._may_convert.set()
        self._stopping = threading.Event()
        self._caught_up = threading.Event()
        self._offsets = threading.Thread(target=self._measure, name="clock", daemon=True)

    @property
    def source_fault(self) -> str:
        """The whole source's fault, a validity reason; "" if there is none."""
        if self._refused:
            return "source_changed"
        offset = self._source.offset
        if offset.jumped:
            return "clock_jump"
        return "clock_uncertain" if self._source.clock_is_uncertain else ""

    def start(self) -> None:
        """Start both threads; if the loop pulls, the second alone."""
        if not self._by_loop:
            self.puller.start()
        self._offsets.start()

    def wait_until_caught_up(self, meanwhile: Callable[[], None]) -> None:
        """Wait until everything sent before the start is handed over, for 2 s at most.

        Args:
            meanwhile: called after each arrival, and every 0.1 s.
        """
        t_end = self._clock.now() + CATCH_UP_WITHIN_S
        while not self._caught_up.is_set() and (left_s := t_end - self._clock.now()) > 0:
            self.await_arrival(min(left_s, PULL_WAIT_S))
            meanwhile()

    def await_arrival(self, wait_s: float) -> None:
        """Return once something was handed over, at the latest after `wait_s`.

        Raises:
            StreamUnfitError: if the loop pulls: an arrival cannot be read.
        """
        if self._by_loop:
            self.pull_once(max(0.0, wait_s))
        elif self._arrived.wait(wait_s):
            self._arrived.clear()

    @contextmanager
    def held_off(self) -> Iterator[None]:
        """Convert new arrivals only afterwards: the interpreter is the loop's alone meanwhile."""
        self._may_convert.clear()
        try:
            yield
        finally:
            self._may_convert.set()

    def stop(self) -> None:
        """End both threads and wait for them."""
        self._stopping.set()
        for thread in (self.puller, self._offsets):
            if thread.is_alive():
                thread.join(timeout=5.0)
        self._source.close()

    def _pull(self) -> None:
        """Pull, convert and hand over until told to stop."""
        with Guard(Exception, self._failed):  # it ends the daemon
            while not self._stopping.is_set():
                if self.is_lost:
                    self.look_for_source()
                else:
                    self.pull_once(PULL_WAIT_S)

    def look_for_source(self) -> None:
        """Look for the stream that `[input]` describes, for a second; take it if it fits."""
        try:
            is_back = self._source.reopen()
        except (StreamUnfitError, StreamAmbiguousError) as err:
            if str(err) != self._refused:
                self._refused = str(err)
                self._report("source_changed", {"warning": self._refused})
            self._stopping.wait(1.0)
            return
        self._refused = ""  # what did not fit is gone
        if is_back:
            self.is_lost = False
            self._t_heard_s = self._t_answered_s = self._t_pulled_s = self._clock.now()
            self._report("source_back", self._told_back())

    def _told_back(self) -> dict[str, object]:
        stream, changed = self._source.inlet.description, self._source.changed
        told: dict[str, object] = {"stream": str(stream), "changed": changed}
        if "hostname" in changed or "source_id" in changed:
            told["warning"] = (
                f"another sender took over: {stream}; its memory begins anew. `hostname` and "
                "`source_id` under [input] keep others out"
            )
        return told

    def pull_once(self, wait_s: float) -> None:
        """Wait for samples, convert them and hand them over; notice when the stream is lost."""
        try:
            samples, stamps, t_s = self._source.pull(wait_s)
        except StreamLostError:
            self._lose("it ended")
            return
        arrival = None
        # What came while this process stood still may not have been read yet.
        held_up_s = t_s - self._t_pulled_s - wait_s
        self._t_heard_s += held_up_s if held_up_s > STOOD_STILL_S else 0.0
        self._t_pulled_s = t_s
        if len(stamps):
            self._t_heard_s = t_s
            # Bounded: a decode that hangs must not stop the stream from being read.
            self._may_convert.wait(HELD_OFF_AT_MOST_S)
            arrival = self._source.arrival(samples, stamps, t_s, self._schedule.zero_s)
            self._inbox.append(arrival)
            self._arrived.set()
        elif t_s - max(self._t_heard_s, self._t_answered_s) > SILENT_S:
            self._lose(f"it was not heard of for {SILENT_S:g} s")
        # What was heard while the stream was opened is handed over later than it arrived.
        is_held = self._clock.now() - t_s >= RECENT_S
        is_recent = arrival is None or not len(arrival.batch) or arrival.age_s < RECENT_S
        if is_recent and not is_held:
            self._caught_up.set()

    def _lose(self, why: str) -> None:
        stream = str(self._source.inlet.description)
        self._report("source_lost", {"stream": stream, "why": why})
        self.is_lost = True
        if self._by_loop:  # looking for a stream takes a second: no beat waits for that
            self._by_loop = False
            self.puller.start()

    def _measure(self) -> None:
        while not self._stopping.wait(OFFSET_EVERY_S):
            if not self.is_lost and self._source.measure_offset(timeout_s=0.5):
                self._t_answered_s = self._clock.now()
