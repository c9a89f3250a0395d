"""A run's measurements beside its decodes: spike counts, spike ages, and beat times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.loop.decode_loop import DecodeLoop
from service.loop.intake.arrivals import Arrival
from service.loop.intake.schedule import Schedule
from service.telemetry.flight_recorder import FlightRecorder
from service.telemetry.percentiles import Histogram
from streams.wire.schema import Decode, Timing

MOST_UNCOUNTED = 100
"""Arrivals that may wait to be counted; more than a beat brings, but at the start of a run."""


class RunTelemetry:
    """Observes the loop; its thread calls it, and other threads read.

    Attributes:
        n_spikes_of_unit: (n_source_units,) spikes since the start.
        decode_ms: from cut to finished graph.
        flight: the last beats, for when one is missed.

    Args:
        schedule: when beats fall.
        source_keys: the source's growing key list.
    """

    def __init__(self, schedule: Schedule, source_keys: Sequence[str]) -> None:
        self.n_spikes_of_unit = np.zeros(0, np.int64)
        self.decode_ms = Histogram(1e-3, 1e4)
        self.flight = FlightRecorder(schedule.hop_s)
        self._schedule, self._source_keys = schedule, source_keys
        self._uncounted: list[Arrival] = []
        self._age_s, self._n_aged = 0.0, 0
        self._lsl_age_s: float | None = None

    def arrival(self, arrival: Arrival) -> None:
        """Note an arrival; it is counted once the decode is out."""
        self._uncounted.append(arrival)  # counting them here would delay the decode
        if len(self._uncounted) > MOST_UNCOUNTED:
            self._count()

    def published(self, decode: Decode) -> None:
        """Count the beat's arrivals and its decode, once it is out."""
        self.decode_ms.add((decode.t_done - decode.t_cut) * 1e3)
        self._count()
        self._lsl_age_s = self._age_s / self._n_aged if self._n_aged else None
        self._age_s, self._n_aged = 0.0, 0

    def beat_over(
        self, decode: Decode, loop: DecodeLoop, *, t_out: float, t_end: float, queued: int
    ) -> Timing:
        """Note the newest beat once it is over.

        Args:
            decode: as it was sent.
            loop: that made it.
            t_out: when ZeroMQ had the message.
            t_end: when the beat was over.
            queued: arrivals that wait.

        Returns:
            The message that says where its time went.
        """
        outcome = loop.newest
        # Nothing has been admitted since the cut, so that the newest arrival is one before it.
        timing = Timing(
            run_id=decode.run_id,
            seq=decode.seq,
            beat=decode.beat,
            t_window=decode.t_window,
            lsl_age_s=self._lsl_age_s,
            t_arrival=loop.blocks.t_newest,
            t_due=loop.t_due,
            cut_by=loop.timer.cut_by,
            t_cut=decode.t_cut,
            t_tokens=outcome.t_tokens,
            t_done=decode.t_done,
            run_s=outcome.run_s,
            was_ahead=outcome.was_predecoded,
            t_sent=decode.t_sent,
            t_out=t_out,
            t_end=t_end,
        )
        self.flight.note(decode, timing, queued)
        return timing

    def _count(self) -> None:
        """Count what arrived since the last time, by unit and by age."""
        n_more = len(self._source_keys) - len(self.n_spikes_of_unit)
        if n_more > 0:
            more = np.zeros(n_more, np.int64)
            self.n_spikes_of_unit = np.concatenate((self.n_spikes_of_unit, more))
        for arrival in self._uncounted:
            batch, since_t0_s = arrival.batch, arrival.t_s - self._schedule.t0_s
            np.add.at(self.n_spikes_of_unit, batch.unit, batch.count)
            self._age_s += len(batch) * since_t0_s - 1e-6 * float(batch.t_us.sum())
            self._n_aged += len(batch)
        self._uncounted.clear()
