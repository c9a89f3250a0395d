"""The ingest thread: pulls the stream, converts its stamps once, and hands arrivals to the beat."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from service.config import InputConfig
from streams.clock import Clock, ClockOffset, stamps_to_us
from streams.lsl import (
    KEEP_ALIVE_EVERY_S,
    Inlet,
    StreamAbsentError,
    StreamAmbiguousError,
    StreamLostError,
    StreamUnfitError,
    find_inlet,
)
from streams.messages import Float64s, Int64s, SpikeBatch
from streams.spikes.layouts import CountsLayout, EventLayout, Layout, Parsed, layout_of
from streams.spikes.steps import PLAIN, Steps

FUTURE_TOLERANCE_S = 5e-3
BEFORE_OPEN_S = 0.1
RECENT_S = 0.05
CATCH_UP_WITHIN_S = 2.0
PULL_WAIT_S = 0.1
HELD_OFF_AT_MOST_S = 0.05
OFFSET_EVERY_S = 1.0
FIRST_OFFSET_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """What one pull brought, on the daemon's clock.

    Attributes:
        t_s: when it arrived.
        t_read_s: when it was read, and could be admitted.
        batch: the spikes; stamps in microseconds since t0.
        latest_us: stamps beyond this lie in the future.
        newest_keep_alive_us: None where the pull held none.
        n_invalid: spikes that are none.
        n_duplicate: spikes whose sequence number came before.
        n_lost: sequence numbers that never came.
    """

    t_s: float
    t_read_s: float
    batch: SpikeBatch
    latest_us: int
    newest_keep_alive_us: int | None
    n_invalid: int
    n_duplicate: int
    n_lost: int


class Source:
    """The one stream, its layout and its clock.

    Args:
        config: which stream.
        known_keys: the decoder's unit keys.
        clock: the daemon's clock.
        steps: which code reads it.

    Raises:
        StreamAbsentError, StreamAmbiguousError: see `find_inlet`.
        StreamUnfitError: see `layout_of`; or its clock cannot be measured.
    """

    def __init__(
        self,
        config: InputConfig,
        known_keys: tuple[str, ...],
        clock: Clock,
        steps: Steps = PLAIN,
    ) -> None:
        self._config = config
        self.steps = steps
        self._held: list[tuple[np.ndarray, Float64s]] = []
        self.inlet = self._find(config.wait_s)
        self.layout = self._layout_of(self.inlet, known_keys)
        self.t_open_s = clock.now()
        self.inlet.open()
        self.offset = ClockOffset(same_host=self.inlet.same_host)
        if not self.measure_offset(FIRST_OFFSET_WITHIN_S):
            raise StreamUnfitError(
                f"the clock of LSL stream {self.inlet.description} could not be measured within "
                f"{FIRST_OFFSET_WITHIN_S:g} s; is UDP blocked between the two machines?"
            )

    @property
    def keys(self) -> list[str]:
        """Key of each source unit met so far; it only grows."""
        if isinstance(self.layout, EventLayout):
            return self.layout.table.keys
        return self.layout.keys

    @property
    def bin_s(self) -> float | None:
        """Length of a bin of counts; None where spikes come as they happen."""
        return self.layout.bin_s

    @property
    def keep_alive_every_s(self) -> float:
        """How often a living source is heard."""
        return max(KEEP_ALIVE_EVERY_S, self.bin_s or 0.0)

    def measure_offset(self, timeout_s: float) -> bool:
        """Measure the sender's clock; False when it did not answer."""
        estimate = self.inlet.clock_offset(timeout_s)
        if estimate is not None:
            self.offset.add(estimate)
        return estimate is not None

    def origin_s(self) -> float:
        """A t0 that no stamp of this source lies before; for counts, one of its bin edges.

        Raises:
            StreamAbsentError: a source of counts sent none in time.
        """
        if self.bin_s is None:
            return self.t_open_s - BEFORE_OPEN_S
        self._held.append(self.inlet.pull(self._config.wait_s))
        stamps = self._held[0][1]
        if not len(stamps):
            raise StreamAbsentError(
                f"LSL stream {self.inlet.description} sent no bin within {self._config.wait_s:g} s"
            )
        return float(stamps[0]) + self.offset.current.offset_s - self.bin_s

    def pull(self, timeout_s: float) -> tuple[np.ndarray, Float64s]:
        """Wait for samples; see `Inlet.pull`.

        Raises:
            StreamLostError: the source ended and cannot be recovered by LSL itself.
        """
        return self._held.pop() if self._held else self.inlet.pull(timeout_s)

    def reopen(self) -> bool:
        """Look for the stream again; True when it is back with the layout that it had.

        Raises:
            StreamUnfitError: it came back with another layout.
        """
        try:
            inlet = self._find(timeout_s=1.0)
            inlet.open()
        except (StreamAbsentError, StreamAmbiguousError):
            return False
        layout = self._layout_of(inlet, self.keys)
        if type(layout) is not type(self.layout) or layout.bin_s != self.bin_s:
            raise StreamUnfitError(f"the stream came back as another kind: {inlet.description}")
        if isinstance(layout, CountsLayout) and layout.keys != self.keys:
            raise StreamUnfitError(f"the stream came back with other channels: {inlet.description}")
        self.inlet = inlet
        if isinstance(layout, CountsLayout):
            self.layout = layout
        return True

    def _layout_of(self, inlet: Inlet, known_keys: Sequence[str]) -> Layout:
        array, event_layout = self._config.array, self.steps.event_layout
        return layout_of(inlet.description, inlet.labels, known_keys, array, event_layout)

    def _find(self, timeout_s: float) -> Inlet:
        return find_inlet(
            self._config.type,
            name=self._config.name,
            source_id=self._config.source_id,
            budget_per_s=self._config.budget_spikes_per_s,
            timeout_s=timeout_s,
        )


def convert(
    parsed: Parsed, offset_s: float, t0_s: float, bin_s: float | None, steps: Steps = PLAIN
) -> SpikeBatch:
    """Stamps become microseconds since t0, rounded once; counts snap to their bin's edge."""
    t_us = _as_us(parsed.t_s, offset_s, t0_s, bin_s, steps)
    return SpikeBatch(t_us, parsed.unit, parsed.count)


def _as_us(
    stamps: Float64s, offset_s: float, t0_s: float, bin_s: float | None, steps: Steps
) -> Int64s:
    if bin_s is None:
        return steps.stamps_to_us(stamps, offset_s, t0_s)
    return stamps_to_us(np.rint((stamps + offset_s - t0_s) / bin_s) * bin_s, 0.0, 0.0)


class Ingest(threading.Thread):
    """Pulls until told to stop; a second thread of its own keeps the sender's clock measured.

    A beat that waits for an arrival may pull itself (`by_beat`): spikes reach it without waking
    another thread. Should the source be lost for good, this thread looks for it, and pulls from
    then on: no beat waits for that.

    Args:
        source: the stream.
        clock: the daemon's clock.
        t0_s: the daemon's t0.
        inbox: where arrivals go.
        report: called with (event, detail) when the source goes or comes back.
        failed: called once with the error that ended the thread.
        by_beat: the beat's thread pulls, in `await_arrival`.
    """

    def __init__(
        self,
        source: Source,
        clock: Clock,
        t0_s: float,
        inbox: deque[Arrival],
        report: Callable[[str, dict[str, object]], None],
        failed: Callable[[Exception], None],
        *,
        by_beat: bool = False,
    ) -> None:
        super().__init__(name="ingest", daemon=True)
        self._source, self._clock, self._t0_s = source, clock, t0_s
        self._inbox, self._report, self._failed = inbox, report, failed
        self._by_beat, self._is_lost = by_beat, False
        self._arrived = threading.Event()
        self._may_convert = threading.Event()
        self._may_convert.set()
        self._stopping = threading.Event()
        self._caught_up = threading.Event()
        self._offsets = threading.Thread(target=self._measure, name="clock", daemon=True)

    def start(self) -> None:
        """Start both threads; where the beat pulls, the second alone."""
        if not self._by_beat:
            super().start()
        self._offsets.start()

    def wait_until_caught_up(self) -> None:
        """Wait until what was sent before the start is handed over, a while at most."""
        t_end = self._clock.now() + CATCH_UP_WITHIN_S
        while not self._caught_up.is_set() and (left_s := t_end - self._clock.now()) > 0:
            self.await_arrival(min(left_s, PULL_WAIT_S))

    def await_arrival(self, wait_s: float) -> None:
        """Return once something was handed over, at the latest after `wait_s`.

        Raises:
            StreamUnfitError: where the beat pulls, what came cannot be read.
        """
        if self._by_beat:
            self._pull_once(max(0.0, wait_s))
        elif self._arrived.wait(wait_s):
            self._arrived.clear()

    @contextmanager
    def held_off(self) -> Iterator[None]:
        """What arrives meanwhile is converted afterwards: the interpreter is the beat's alone."""
        self._may_convert.clear()
        try:
            yield
        finally:
            self._may_convert.set()

    def stop(self) -> None:
        """End both threads and wait for them."""
        self._stopping.set()
        for thread in (self, self._offsets):
            if thread.is_alive():
                thread.join(timeout=5.0)
        self._source.inlet.close()

    def run(self) -> None:
        """Pull, convert, hand over."""
        try:
            while not self._stopping.is_set():
                if self._is_lost:
                    self._look_for_source()
                else:
                    self._pull_once(PULL_WAIT_S)
        except Exception as err:  # noqa: BLE001 - the thread's one guard: it ends the daemon
            self._failed(err)

    def _look_for_source(self) -> None:
        """Until it is back, for a second at a time."""
        if self._source.reopen():
            self._is_lost = False
            self._report("source_back", {"stream": str(self._source.inlet.description)})

    def _pull_once(self, wait_s: float) -> None:
        try:
            samples, stamps = self._source.pull(wait_s)
        except StreamLostError:
            self._report("source_lost", {"stream": str(self._source.inlet.description)})
            self._is_lost = True
            if self._by_beat:
                self._by_beat = False
                super().start()
            return
        t_s, parsed = self._clock.now(), None
        if len(stamps):
            self._may_convert.wait(HELD_OFF_AT_MOST_S)
            parsed = self._source.layout.parse(samples, stamps)
            self._inbox.append(self._arrival(parsed, t_s))
            self._arrived.set()
        if parsed is None or not len(parsed.t_s) or self._is_recent(float(parsed.t_s[-1])):
            self._caught_up.set()

    def _is_recent(self, stamp_s: float) -> bool:
        t_s = stamp_s + self._source.offset.current.offset_s
        return self._clock.now() - t_s < RECENT_S

    def _arrival(self, parsed: Parsed, t_s: float) -> Arrival:
        estimate = self._source.offset.current
        bin_s = self._source.bin_s
        alive_us = None
        if len(parsed.keep_alive_s):
            newest_s = parsed.keep_alive_s.max(keepdims=True)
            alive_us = int(_as_us(newest_s, estimate.offset_s, self._t0_s, bin_s, PLAIN)[0])
        latest_s = t_s - self._t0_s + FUTURE_TOLERANCE_S + estimate.uncertainty_s
        batch = convert(parsed, estimate.offset_s, self._t0_s, bin_s, self._source.steps)
        return Arrival(
            t_s=t_s,
            t_read_s=self._clock.now(),
            batch=batch,
            latest_us=round(latest_s * 1e6),
            newest_keep_alive_us=alive_us,
            n_invalid=parsed.n_invalid,
            n_duplicate=parsed.n_duplicate,
            n_lost=parsed.n_lost,
        )

    def _measure(self) -> None:
        while not self._stopping.wait(OFFSET_EVERY_S):
            self._source.measure_offset(timeout_s=0.5)
