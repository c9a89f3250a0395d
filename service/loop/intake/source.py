"""The one stream that is decoded: found, opened, read, and found again after it was lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np

from service.loop.intake.arrival_stamps import ArrivalStamps
from service.loop.intake.arrivals import Arrival
from service.loop.intake.count_phase import CountPhase
from streams.clock import Clock, ClockOffset, OffsetEstimate, stamps_to_us
from streams.errors import StreamAbsentError, StreamUnfitError
from streams.lsl.description import KEEP_ALIVE_EVERY_S, StreamDescription
from streams.lsl.stamp_check import require_lsl_clock
from streams.messages import Float64s, Int64s, SpikeBatch
from streams.spikes.kernels.choose import Kernels
from streams.spikes.layouts.layout import Layout, LayoutOptions
from streams.spikes.layouts.table import layout_of, resumed_layout

FUTURE_TOLERANCE_S = 5e-3
MOST_UNCERTAIN_S = 20e-3
"""Bound of the tolerance that an uncertain clock offset adds."""
UNCERTAIN_S = 50e-3
"""Above it bins cannot be trusted: a network that is far slower one way hides such an error."""
BEFORE_OPEN_S, LONGEST_DELAY_S = 0.1, 1.0
FIRST_OFFSET_WITHIN_S = 5.0
FIRST_SAMPLES_WITHIN_S = 0.5
"""A stream of events may be silent; its stamps are checked at the start if any come by then."""
BLOCKS_WITHIN_S = 0.35
"""Heard before t0 is chosen, so that beats fall where blocks end."""
OF_SENDER = ("hostname", "source_id", "uid")
SLICE_S = 0.25
"""Longest wait in one call of liblsl, so that a signal can end the program."""


class OpenInlet(Protocol):
    """The stream that a source reads: `streams.lsl.inlets.Inlet`, or one made by a test."""

    description: StreamDescription
    labels: tuple[str, ...]

    @property
    def same_host(self) -> bool:
        """True if the sender runs on this machine."""

    def open(self, timeout_s: float = 5.0) -> None:
        """Start the transmission."""

    def pull(self, timeout_s: float) -> tuple[np.ndarray, Float64s]:
        """Wait for a sample, then take all that is there."""

    def clock_offset(self, timeout_s: float) -> OffsetEstimate | None:
        """Measure the sender's clock."""

    def close(self) -> None:
        """Stop the transmission."""


FindInlet = Callable[[float], OpenInlet]


class Source:
    """The one stream, its layout and its clock; opening it checks all that can be checked.

    Attributes:
        inlet: the stream.
        layout: how its samples are read.
        offset: its clock.
        keys: each source unit's key, as met so far; it only grows, also when the stream returns.
        t_open_s: when it was opened.
        changed: what of the sender was another one when it was last found again: any of
            `hostname`, `source_id` and `uid`, which each start of a sender has anew.

    Args:
        find: looks for the stream for so many seconds.
        options: for reading its samples.
        clock: the daemon's clock.
        stamps: `arrival` takes arrival times for the sender's stamps.
        wait_s: how long the stream, and its first count bin, is waited for.

    Raises:
        StreamAbsentError, StreamAmbiguousError: see `find_inlet`.
        StreamUnfitError: its layout is none that we read, its clock cannot be measured, or its
            stamps are of another clock.
    """

    def __init__(
        self,
        find: FindInlet,
        options: LayoutOptions,
        clock: Clock,
        *,
        stamps: Literal["lsl", "arrival"] = "lsl",
        wait_s: float = 5.0,
    ) -> None:
        self._find, self._options, self._clock = find, options, clock
        self._wait_s = wait_s
        self._held: list[tuple[np.ndarray, Float64s, float]] = []
        self.inlet = self._find(wait_s)
        self.layout: Layout = layout_of(self.inlet.description, self.inlet.labels, options)
        self.keys: list[str] = self.layout.keys
        self.t_open_s = clock.now()
        self.offset = self._open(self.inlet)
        self._is_anew, self.changed = False, list[str]()
        self._stamper = ArrivalStamps() if stamps == "arrival" else None
        self.phase = None if self.bin_s is None else CountPhase(self.bin_s)
        self._hear_first()

    @property
    def kernels(self) -> Kernels:
        """The functions that do the arithmetic."""
        return self._options.kernels

    @property
    def bin_s(self) -> float | None:
        """Count bin length; None if spikes come as they happen."""
        return self.layout.bin_s

    @property
    def keep_alive_every_s(self) -> float:
        """Longest interval between a living source's messages."""
        return max(KEEP_ALIVE_EVERY_S, self.bin_s or 0.0)

    def measure_offset(self, timeout_s: float) -> bool:
        """Measure the sender's clock; False when it has not answered since the last time."""
        offset, estimate = self.offset, self.inlet.clock_offset(timeout_s)
        if estimate is None:
            return False
        # Where nobody answers LSL hands out its newest measurement again and again.
        is_new = not offset.history or estimate.t_s > offset.history[-1].t_s
        offset.add(estimate)
        return is_new

    @property
    def clock_is_uncertain(self) -> bool:
        """True if the sender's clock is known too badly to sort spikes into bins."""
        return self._stamper is None and self.offset.current.uncertainty_s > UNCERTAIN_S

    def origin_s(self) -> float:
        """A t0 that no stamp of this source lies before; for counts, one of its bin edges.

        Raises:
            StreamAbsentError: a counting source sent none in time.
        """
        if self.bin_s is None:
            return min(self.t_open_s - BEFORE_OPEN_S, self._first_stamp_s - 1e-3)
        if not self._held:
            raise StreamAbsentError(
                f"LSL stream {self.inlet.description} sent no bin within {self._wait_s:g} s"
            )
        return float(self._held[0][1][0]) + self._offset_s - self.bin_s

    @property
    def _first_stamp_s(self) -> float:
        """Our time of the first samples heard; it lies before opening if the source has a delay."""
        stamps = self._held[0][1] if self._held else np.zeros(0)
        sound = stamps[np.isfinite(stamps) & (stamps > 0)] + self._offset_s
        sound = sound[sound > self.t_open_s - LONGEST_DELAY_S]
        return float(sound.min(initial=np.inf))

    def listen(self) -> list[float]:
        """Hear a few blocks, and keep them for `pull`; return the stamps that they reach to."""
        t_end_s = self.t_open_s + BLOCKS_WITHIN_S
        while (left_s := t_end_s - self._clock.now()) > 0:
            samples, stamps, t_s = self._pull_new(min(left_s, SLICE_S))
            if len(stamps):
                self._held.append((samples, stamps, t_s))
        heard = [stamps[np.isfinite(stamps)] for _, stamps, _ in self._held]
        return [float(stamps.max()) + self._offset_s for stamps in heard if len(stamps)]

    def pull(self, timeout_s: float) -> tuple[np.ndarray, Float64s, float]:
        """Wait for samples: their values, stamps, and when they arrived; see `Inlet.pull`.

        Raises:
            StreamLostError: the stream ended; look for it with `reopen`.
        """
        return self._held.pop(0) if self._held else self._pull_new(timeout_s)

    def _pull_new(self, timeout_s: float) -> tuple[np.ndarray, Float64s, float]:
        samples, stamps = self.inlet.pull(timeout_s)
        t_s = self._clock.now()
        if self._stamper is not None:
            stamps = self._stamper.stamps(len(stamps), t_s)
        return samples, stamps, t_s

    def arrival(self, samples: np.ndarray, stamps: Float64s, t_s: float, t0_s: float) -> Arrival:
        """Read a pull that arrived at `t_s`; stamps become microseconds since `t0_s`."""
        parsed, offset_s = self.layout.parse(samples, stamps), self._offset_s
        uncertain_s = min(self.offset.current.uncertainty_s, MOST_UNCERTAIN_S)
        latest_s = t_s - t0_s + FUTURE_TOLERANCE_S + uncertain_s
        bins_us = alive_us = None
        if self.phase is None:
            t_us = self.kernels.stamps_to_us(parsed.t_s, offset_s, t0_s)
            if len(parsed.keep_alive_s):
                newest_s = parsed.keep_alive_s.max(keepdims=True)
                alive_us = int(stamps_to_us(newest_s, offset_s, t0_s)[0])
        else:
            heard_s = parsed.keep_alive_s
            ends_us = self.phase.ends_us(heard_s + offset_s - t0_s)
            bins_us = ends_us if parsed.is_whole is None else ends_us[parsed.is_whole]
            order = np.argsort(heard_s)
            t_us = ends_us[order[np.searchsorted(heard_s[order], parsed.t_s)]]
            latest_s += self.phase.leeway_us * 1e-6 - self.phase.moved_s
            alive_us = int(ends_us.max()) if len(ends_us) else None
        begins_anew, self._is_anew = self._is_anew, False
        return Arrival(
            t_s=t_s,
            t_read_s=self._clock.now(),
            batch=SpikeBatch(t_us, parsed.unit, parsed.count),
            latest_us=round(latest_s * 1e6),
            newest_keep_alive_us=alive_us,
            invalid_us=_us_or_zero(parsed.invalid_s, offset_s, t0_s),
            n_duplicate=parsed.n_duplicate,
            n_lost=parsed.n_lost,
            n_ignored=parsed.n_ignored,
            repeats="older" if self._stamper and parsed.repeats == "all" else parsed.repeats,
            age_s=_age_of_newest(stamps, offset_s, t_s),
            bins_us=bins_us,
            phase_s=0.0 if self.phase is None else self.phase.moved_s,
            begins_anew=begins_anew,
        )

    def reopen(self) -> bool:
        """Look for the stream again and read anew what it is; True when it is back and fits.

        Whatever its source_id is now, `[input]` describes it. Rows follow labels.

        Raises:
            StreamUnfitError: one came that no longer fits; the text says why. It is left alone.
            StreamAmbiguousError: several came.
        """
        try:
            inlet = self._find(1.0)
        except StreamAbsentError:
            return False
        try:
            layout = resumed_layout(self.layout, inlet.description, inlet.labels, self._options)
            offset = self._open(inlet)
        except (StreamAbsentError, StreamUnfitError) as err:
            inlet.close()
            if isinstance(err, StreamAbsentError):
                return False
            raise
        old, new = self.inlet.description, inlet.description
        self.changed = [key for key in OF_SENDER if getattr(old, key) != getattr(new, key)]
        self.inlet.close()
        self.inlet, self.layout, self.offset, self._held = inlet, layout, offset, []
        self._is_anew = True
        if self.phase is not None:
            self.phase.begin_anew()
        if self._stamper is not None:
            self._stamper = ArrivalStamps()
        return True

    def close(self) -> None:
        """Stop the transmission."""
        self.inlet.close()

    def _open(self, inlet: OpenInlet) -> ClockOffset:
        """Measure the clock, then start the transmission: no backlog gathers meanwhile."""
        # An offset first: samples that wait for it would look as if they were late.
        offset = ClockOffset(same_host=inlet.same_host)
        estimate = inlet.clock_offset(FIRST_OFFSET_WITHIN_S)
        if estimate is None:
            raise StreamUnfitError(
                f"the clock of LSL stream {inlet.description} could not be measured within "
                f"{FIRST_OFFSET_WITHIN_S:g} s; is UDP blocked between the two machines?"
            )
        offset.add(estimate)
        self.t_open_s = self._clock.now()
        inlet.open()
        return offset

    @property
    def _offset_s(self) -> float:
        """Offset from the sender's stamps to the daemon's clock."""
        return 0.0 if self._stamper is not None else self.offset.current.offset_s

    def _hear_first(self) -> None:
        """Pull the first samples and check their stamps; counts must come, events may."""
        within_s = self._wait_s if self.bin_s is not None else FIRST_SAMPLES_WITHIN_S
        t_end_s = self._clock.now() + within_s
        while not self._held and (left_s := t_end_s - self._clock.now()) > 0:
            pulled = self.pull(min(left_s, SLICE_S))
            if len(pulled[1]):
                self._held.append(pulled)
                age_s = pulled[2] - pulled[1] - self._offset_s
                require_lsl_clock(str(self.inlet.description), age_s)


def _age_of_newest(stamps: Float64s, offset_s: float, t_s: float) -> float:
    finite = stamps[np.isfinite(stamps)]
    return t_s - float(finite.max()) - offset_s if len(finite) else float("nan")


def _us_or_zero(stamps: Float64s, offset_s: float, t0_s: float) -> Int64s:
    if not len(stamps):
        return np.zeros(0, np.int64)
    sound = np.where(np.isfinite(stamps), stamps, t0_s - offset_s)
    return stamps_to_us(sound, offset_s, t0_s)
