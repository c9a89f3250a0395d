"""Admission of arrivals to the ring, and their evidence: is a bin whole, is the source sound?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from service.loop.intake.arrivals import Arrival
from service.loop.intake.completeness import Completeness
from service.loop.intake.rejected import Happened, RejectedSpikes
from service.loop.intake.schedule import BlockAlignment, Schedule
from service.loop.intake.settle import SettleTime
from service.loop.intake.watermark import Watermark
from streams.messages import Int32s, Int64s
from streams.spikes.ring import SpikeRing

_NONE = np.zeros(0, np.int64)


class Admission:
    """Admits arrivals; one thread owns it.

    Attributes:
        schedule: see below.
        settle: see below.
        rejected: spikes that were not taken.
        completeness: watches the source's silences.
        watermark: up to where everything has come.
        newest_us: the newest accepted stamp, keep-alives included; None before the first.
        keeps_alive: the source sends keep-alives, or counts at a regular rate.
        n_lost: sequence numbers that never came.
        n_ignored: spikes from units that the config leaves out.

    Args:
        ring: where spikes wait.
        schedule: when beats fall.
        settle: how long spikes are waited for.
        source_bin_us: bin length if the source counts; None for events.
        alignment: slides the schedule; None if it stands.
    """

    def __init__(
        self,
        ring: SpikeRing,
        schedule: Schedule,
        settle: SettleTime,
        source_bin_us: int | None,
        alignment: BlockAlignment | None = None,
    ) -> None:
        self.rejected = RejectedSpikes(schedule)
        self.completeness = Completeness(schedule, source_bin_us)
        self.watermark = Watermark()
        self.newest_us: int | None = None
        self.keeps_alive = False
        self.n_lost = self.n_ignored = 0
        self.schedule, self.settle, self._ring = schedule, settle, ring
        self._alignment = alignment

    def admit(self, arrival: Arrival, known: np.ndarray) -> None:
        """Admit an arrival; (n_source_units,) `known` is True for units that a decoder knows."""
        ring, batch, n_overflow = self._ring, arrival.batch, self._ring.fates.overflow
        n_late, late_until_us = ring.fates.late, ring.late_until_us
        ring.admit(batch, known, arrival.latest_us, arrival.repeats)
        ring.fates.invalid += len(arrival.invalid_us)
        ring.fates.duplicate += arrival.n_duplicate
        self.n_lost += arrival.n_lost
        self.n_ignored += arrival.n_ignored
        present_us, future_us = batch.t_us, _NONE
        if len(batch) and np.maximum.reduce(batch.t_us) > arrival.latest_us:
            is_future = batch.t_us > arrival.latest_us
            present_us, future_us = batch.t_us[~is_future], batch.t_us[is_future]
        n_late = ring.fates.late - n_late
        late_us = present_us[present_us <= late_until_us] if n_late else _NONE
        self.rejected.note(arrival, late_us, future_us, ring.fates.overflow - n_overflow)
        if ring.newest_us is not None:
            self.newest_us = max(self.newest_us or 0, ring.newest_us)
        self.watermark.note(arrival, present_us, self.schedule.t0_s, self.settle.settle_s)
        if self._alignment is not None and (until_us := self.watermark.until_us) is not None:
            self._alignment.note(self.schedule.zero_s + until_us * 1e-6)
        self.completeness.note(
            arrival,
            self._newest_of(arrival, present_us),
            self.settle.settle_s,
            rejects=n_late > 0 or len(future_us) > 0,
        )

    def has_heard_of(self, k: int) -> bool:
        """Return True once something stamped after beat k's window has arrived."""
        newest_us = self.completeness.newest_us
        return newest_us is not None and newest_us > self.schedule.end_us(k)

    def is_known_whole(self, k: int) -> bool:
        """Return True once the watermark has passed beat k's window."""
        return self.watermark.has_passed(self.schedule.end_us(k))

    def update_shares(self, t_s: float) -> None:
        """Update the last second's shares, once a beat."""
        n_in = self._ring.fates.spikes_in + self._ring.n_pending
        self.rejected.update_shares(t_s, self._ring.fates, n_in, self.settle.settle_s)

    def begin_anew(self, t_s: float) -> None:
        """Another stream has come, or the same after an outage: what was usual holds no more."""
        self.keeps_alive = False
        self.completeness.begin_anew()
        self.watermark.begin_anew()
        if self._alignment is not None:
            self._alignment.begin_anew()
        self.settle.begin(t_s)

    def review(self, k: int, t_s: float, *, predecodes: bool) -> Iterator[Happened]:
        """Fix, lengthen or shorten the settle time once beat k is over, and slide the schedule.

        Args:
            k: the newest beat.
            t_s: now.
            predecodes: bins are predecoded until the settle time is over.

        Yields:
            What happened since the last time.
        """
        settle, rejected = self.settle, self.rejected
        told = settle.fix(k, t_s, predecodes=predecodes)
        if told is None:
            told = settle.grow(k, t_s, rejected.shares["late"], rejected.n_late)
        if told is not None:
            yield Happened("settled", told)
        settle.shrink()
        yield from rejected.drain()
        yield from self.watermark.drain()
        if self._alignment is not None and self.watermark.is_learnt:
            self._alignment.slide(t_s, settle.settle_s, k + 1)

    def waits_for_more(self, k: int, longest_s: float, t_s: float) -> bool:
        """Return True where a wait of so long after beat k's window may tell that it is whole."""
        end_us = self.schedule.end_us(k)
        if not self.completeness.resolves_within(end_us, longest_s):
            return False
        return not self.completeness.lacks(end_us, t_s)

    def is_whole(self, k: int, count: Int32s, t_cut: float) -> bool:
        """Return True where all spikes of beat k's bin can have come by its cut, and were taken.

        Args:
            k: the beat.
            count: (n,) spikes that each entry in its bin stands for.
            t_cut: when it is cut.
        """
        end_us = self.schedule.end_us(k)
        start_us = end_us - self._ring.bin_us
        # Not `is_known_whole`: a spike at the bin's very end may be its last.
        until_us = self.watermark.until_us
        in_order = until_us is not None and until_us >= end_us
        lacks = self.completeness.lacks(end_us, t_cut, in_order=in_order)
        self.completeness.note_cut(end_us)
        return not (
            lacks
            or self.completeness.lacks_bins(start_us, end_us)
            or (
                self.rejected.any_lacks
                and self.rejected.bin_lacks(start_us, end_us, int(np.add.reduce(count)))
            )
        )

    def _newest_of(self, arrival: Arrival, present_us: Int64s) -> int | None:
        """An arrival's newest stamp that does not lie in the future."""
        heard = [int(np.maximum.reduce(present_us))] if len(present_us) else []
        alive_us = arrival.newest_keep_alive_us
        if alive_us is not None:
            self.keeps_alive = True
            if alive_us <= arrival.latest_us:
                heard.append(alive_us)
                self.newest_us = max(self.newest_us or 0, alive_us)
        return max(heard, default=None)
