"""The one stream that is decoded: found, opened, read, and found again after it was lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from service.config import InputConfig
from service.loop.arrival_stamps import ArrivalStamps
from service.loop.count_phase import CountPhase
from streams.clock import Clock, ClockOffset, OffsetEstimate, stamps_to_us
from streams.errors import StreamAbsentError, StreamUnfitError
from streams.lsl.description import KEEP_ALIVE_EVERY_S, StreamDescription
from streams.lsl.inlets import find_inlet
from streams.lsl.stamp_check import require_lsl_clock
from streams.messages import Float64s, Int64s, Repeats, SpikeBatch
from streams.spikes.kernels.choose import NUMPY, Kernels
from streams.spikes.layouts.layout import Layout, LayoutOptions
from streams.spikes.layouts.table import layout_of, resumed_layout

FUTURE_TOLERANCE_S = 5e-3
MOST_UNCERTAIN_S = 20e-3
"""What an uncertain clock offset adds to the tolerance at most."""
UNCERTAIN_S = 50e-3
"""Above it bins cannot be trusted: a network that is far slower one way hides such an error."""
BEFORE_OPEN_S, LONGEST_DELAY_S = 0.1, 1.0
FIRST_OFFSET_WITHIN_S = 5.0
FIRST_SAMPLES_WITHIN_S = 0.5
"""A stream of events may be silent; its stamps are checked at the start if any come by then."""
SLICE_S = 0.25
"""Longest wait in one call of liblsl, so that a signal can end the program."""


class OpenInlet(Protocol):
    """What a source reads: `streams.lsl.inlets.Inlet`, or a stream that a test makes."""

    description: StreamDescription
    labels: tuple[str, ...]

    @property
    def same_host(self) -> bool:
        """Whether the sender runs on this machine."""

    def open(self, timeout_s: float = 5.0) -> None:
        """Start the transmission."""

    def pull(self, timeout_s: float) -> tuple[np.ndarray, Float64s]:
        """Wait for a sample, then take all that is there."""

    def clock_offset(self, timeout_s: float) -> OffsetEstimate | None:
        """Measure the sender's clock."""

    def close(self) -> None:
        """Stop the transmission."""


FindInlet = Callable[[float], OpenInlet]


@dataclass(frozen=True, slots=True)
class Arrival:
    """What one pull brought, on the daemon's clock.

    Attributes:
        t_s: when it arrived.
        t_read_s: when it was read, and could be admitted.
        batch: the spikes; stamps in microseconds since t0.
        latest_us: stamps beyond this lie in the future.
        newest_keep_alive_us: None where the pull held none.
        invalid_us: (n,) stamps of spikes that are none; 0 where the stamp is none either.
        n_duplicate: spikes whose sequence number came before.
        n_lost: sequence numbers that never came.
        n_ignored: spikes of units that the config leaves out.
        repeats: which of an equal unit and stamp are duplicates.
        age_s: arrival - newest stamp; NaN where nothing had a stamp.
        bins_us: (m,) ends of the bins of counts that the pull brought whole; None for events.
        phase_s: what the bins of counts have moved by since t0 was chosen, seconds.
        begins_anew: the first of a stream that was lost and is back.
    """

    t_s: float
    t_read_s: float
    batch: SpikeBatch
    latest_us: int
    newest_keep_alive_us: int | None
    invalid_us: Int64s
    n_duplicate: int = 0
    n_lost: int = 0
    n_ignored: int = 0
    repeats: Repeats = "all"
    age_s: float = float("nan")
    bins_us: Int64s | None = None
    phase_s: float = 0.0
    begins_anew: bool = False


def finder(config: InputConfig) -> FindInlet:
    """Return the search for the stream that `[input]` describes."""

    def find(timeout_s: float) -> OpenInlet:
        return find_inlet(
            config.type,
            name=config.name,
            source_id=config.source_id,
            hostname=config.hostname,
            budget_per_s=config.budget_spikes_per_s,
            timeout_s=timeout_s,
            recover=False,
        )

    return find


class Source:
    """The one stream, its layout and its clock; opening it checks all that can be checked.

    Attributes:
        inlet: the stream.
        layout: how its samples are read.
        offset: its clock.
        keys: key of each source unit met so far; it only grows, also when the stream returns.
        t_open_s: when it was opened.

    Args:
        config: which stream, and how it is read.
        known_keys: the decoder's unit keys.
        clock: the daemon's clock.
        kernels: functions that do the arithmetic.
        find: how it is looked for; None for LSL's search.

    Raises:
        StreamAbsentError, StreamAmbiguousError: see `find_inlet`.
        StreamUnfitError: its layout is none that we read, its clock cannot be measured, or its
            stamps are of another clock.
    """

    def __init__(
        self,
        config: InputConfig,
        known_keys: tuple[str, ...],
        clock: Clock,
        kernels: Kernels = NUMPY,
        find: FindInlet | None = None,
    ) -> None:
        self._config, self._clock, self._kernels = config, clock, kernels
        self._find = finder(config) if find is None else find
        self._held: list[tuple[np.ndarray, Float64s, float]] = []
        self._known_keys = known_keys
        self.inlet = self._find(config.wait_s)
        self.layout: Layout = layout_of(
            self.inlet.description, self.inlet.labels, self._layout_options
        )
        self.keys: list[str] = self.layout.keys
        self.t_open_s = clock.now()
        self.offset = self._open(self.inlet)
        self._is_anew = False
        self._stamper = ArrivalStamps() if config.stamps == "arrival" else None
        self.phase = None if self.bin_s is None else CountPhase(self.bin_s)
        self._hear_first()

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
        offset, estimate = self.offset, self.inlet.clock_offset(timeout_s)
        if estimate is not None:
            offset.add(estimate)
        return estimate is not None

    @property
    def clock_is_uncertain(self) -> bool:
        """Whether the sender's clock is known too badly to tell which bin a spike belongs to."""
        return self._stamper is None and self.offset.current.uncertainty_s > UNCERTAIN_S

    def origin_s(self) -> float:
        """A t0 that no stamp of this source lies before; for counts, one of its bin edges.

        Raises:
            StreamAbsentError: a source of counts sent none in time.
        """
        if self.bin_s is None:
            return min(self.t_open_s - BEFORE_OPEN_S, self._first_stamp_s - 1e-3)
        if not self._held:
            raise StreamAbsentError(
                f"LSL stream {self.inlet.description} sent no bin within {self._config.wait_s:g} s"
            )
        return float(self._held[0][1][0]) + self._offset_s - self.bin_s

    @property
    def _first_stamp_s(self) -> float:
        """Our time of the first samples heard: of a source with a delay, it lies before opening."""
        stamps = self._held[0][1] if self._held else np.zeros(0)
        sound = stamps[np.isfinite(stamps) & (stamps > 0)] + self._offset_s
        sound = sound[sound > self.t_open_s - LONGEST_DELAY_S]
        return float(sound.min(initial=np.inf))

    def pull(self, timeout_s: float) -> tuple[np.ndarray, Float64s, float]:
        """Wait for samples: their values, stamps, and when they arrived; see `Inlet.pull`.

        Raises:
            StreamLostError: the stream ended; look for it with `reopen`.
        """
        if self._held:
            return self._held.pop(0)
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
            t_us = self._kernels.stamps_to_us(parsed.t_s, offset_s, t0_s)
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
            layout = resumed_layout(
                self.layout, inlet.description, inlet.labels, self._layout_options
            )
            offset = self._open(inlet)
        except (StreamAbsentError, StreamUnfitError) as err:
            inlet.close()
            if isinstance(err, StreamAbsentError):
                return False
            raise
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
        """What makes stamps ours."""
        return 0.0 if self._stamper is not None else self.offset.current.offset_s

    def _hear_first(self) -> None:
        """Pull the first samples and check their stamps; counts must come, events may."""
        within_s = self._config.wait_s if self.bin_s is not None else FIRST_SAMPLES_WITHIN_S
        t_end_s = self._clock.now() + within_s
        while not self._held and (left_s := t_end_s - self._clock.now()) > 0:
            pulled = self.pull(min(left_s, SLICE_S))
            if len(pulled[1]):
                self._held.append(pulled)
                age_s = pulled[2] - pulled[1] - self._offset_s
                require_lsl_clock(str(self.inlet.description), age_s)

    @property
    def _layout_options(self) -> LayoutOptions:
        config = self._config
        return LayoutOptions(
            known_keys=self._known_keys,
            array=config.array,
            columns=config.columns,
            ignore_units=config.ignore_units,
            kernels=self._kernels,
        )


def _age_of_newest(stamps: Float64s, offset_s: float, t_s: float) -> float:
    finite = stamps[np.isfinite(stamps)]
    return t_s - float(finite.max()) - offset_s if len(finite) else float("nan")


def _us_or_zero(stamps: Float64s, offset_s: float, t0_s: float) -> Int64s:
    if not len(stamps):
        return np.zeros(0, np.int64)
    sound = np.where(np.isfinite(stamps), stamps, t0_s - offset_s)
    return stamps_to_us(sound, offset_s, t0_s)
