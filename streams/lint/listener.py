"""Listening to a stream for some seconds, with every sample's arrival time."""

from __future__ import annotations

from threading import Event
from typing import Any

import numpy as np

from streams.clock import ClockOffset
from streams.errors import StreamAbsentError, StreamLostError
from streams.lint.findings import Heard
from streams.lsl.inlets import Inlet, describe, lsl_now
from streams.messages import Float64s

FIRST_OFFSET_WITHIN_S = 3.0
OFFSET_EVERY_S = 1.0
PULL_WITHIN_S = 0.1
MOST_VALUES = 40_000_000
"""Kept for one stream: raw signals with many channels are heard for less long."""


class Listener:
    """Hears one stream; made to run in its own thread.

    Args:
        info: the stream, as resolved.
        seconds: how long.

    Attributes:
        description: the stream.
        n_samples: that came so far.
    """

    def __init__(self, info: Any, seconds: float) -> None:
        self.description = describe(info)
        self.n_samples = 0
        self._info, self._seconds = info, seconds
        self._stopped = Event()
        self._pulls: list[tuple[np.ndarray, Float64s, float]] = []

    def stop(self) -> None:
        """End early; what came so far is kept."""
        self._stopped.set()

    def listen(self) -> Heard:
        """Hear the stream to the end."""
        try:
            inlet = Inlet(self._info, budget_per_s=50_000.0)
            offset = ClockOffset(same_host=inlet.same_host)
            self._measure(inlet, offset, FIRST_OFFSET_WITHIN_S)
            inlet.open()
        except StreamAbsentError as err:
            nothing = np.zeros((0, self.description.n_channels))
            return Heard(
                self.description, (), nothing, np.zeros(0), np.zeros(0), 0.0, trouble=str(err)
            )
        t_begin_s = lsl_now()
        try:
            has_ended = self._pull_all(inlet, offset, t_begin_s)
        finally:
            inlet.close()
        return self._heard(inlet, offset, lsl_now() - t_begin_s, has_ended=has_ended)

    def _pull_all(self, inlet: Inlet, offset: ClockOffset, t_begin_s: float) -> bool:
        """Pull until it is time; whether the stream ended before."""
        t_measure_s = t_begin_s + OFFSET_EVERY_S
        most = MOST_VALUES // max(self.description.n_channels, 1)
        while not self._stopped.is_set() and self.n_samples < most:
            left_s = t_begin_s + self._seconds - lsl_now()
            if left_s <= 0:
                return False
            try:
                values, stamps_s = inlet.pull(min(PULL_WITHIN_S, left_s))
            except StreamLostError:
                return True
            now_s = lsl_now()
            if len(stamps_s):
                self._pulls.append((values, stamps_s, now_s))
                self.n_samples += len(stamps_s)
            if now_s >= t_measure_s:
                self._measure(inlet, offset, PULL_WITHIN_S)
                t_measure_s = now_s + OFFSET_EVERY_S
        return False

    def _measure(self, inlet: Inlet, offset: ClockOffset, within_s: float) -> None:
        if (measured := inlet.clock_offset(within_s)) is not None:
            offset.add(measured)

    def _heard(
        self, inlet: Inlet, offset: ClockOffset, seconds: float, *, has_ended: bool
    ) -> Heard:
        values = [values for values, _, _ in self._pulls]
        stamps = [stamps for _, stamps, _ in self._pulls]
        arrived = [np.full(len(stamps), at_s) for _, stamps, at_s in self._pulls]
        nothing = np.zeros((0, self.description.n_channels), np.int32)
        return Heard(
            description=self.description,
            labels=inlet.labels,
            values=np.concatenate(values) if values else nothing,
            stamps_s=np.concatenate(stamps) if stamps else np.zeros(0),
            arrived_s=np.concatenate(arrived) if arrived else np.zeros(0),
            seconds=seconds,
            offset=offset.current if offset.history else None,
            same_host=inlet.same_host,
            has_ended=has_ended,
        )
