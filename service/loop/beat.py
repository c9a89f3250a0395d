"""The beat: on each deadline the newest bin becomes a decode; bounded work, no logging."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from service.loop.admission import Admission
from service.loop.ahead import Ahead, Rehearsal
from service.loop.blocks import Blocks
from service.loop.decoder import Decoder, Seat, is_finite
from service.loop.lineup import Lineup
from service.loop.outcome import BeatCounts, Outcome, Schedule
from service.loop.percentiles import Histogram
from service.loop.settle import SettleTime
from service.loop.shaping import Shaper, as_values
from service.loop.source import Arrival
from service.loop.token_cap import TokenCap
from service.loop.validity import REASONS, ValidityInputs, ValidityJudge
from streams.clock import Clock
from streams.messages import Int64s, SpikeBatch, TokenWindow
from streams.spikes.ring import SpikeRing
from streams.wire.schema import Decode, encode

CATCH_UP_S = 1.0
MOST_UNCOUNTED = 100
"""Arrivals that may wait to be counted; more than a beat brings, but at the start of a run."""


class Beat:
    """Turns arrivals into decodes; one thread owns it.

    Attributes:
        admission: of arrivals to the ring.
        blocks: when arrivals come.
        lsl_age_s: how old, on average, the spikes were that arrived since the beat before; None
            where none did.
        newest: the newest beat's run.
        rehearsal: of the beat to come.

    Args:
        clock: the daemon's clock.
        schedule: when beats fall.
        ring: where spikes wait; owned from here on.
        decoder: the decoder in service.
        judge: of validity.
        shaper: from raw to published values.
        run_id: of this run of the daemon.
        lead_s: how far ahead to decode.
        settle: how long spikes are waited for.
        source_fault: asked every beat what is wrong with the source as a whole, a reason of
            `REASONS`; "" if nothing is.
        source_bin_us: length of the source's bins where it counts; None for events.
        token_cap: of how many tokens a beat may hold; None for what the decoders themselves say.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        schedule: Schedule,
        ring: SpikeRing,
        decoder: Decoder,
        judge: ValidityJudge,
        shaper: Shaper,
        run_id: str,
        lead_s: float,
        settle: SettleTime,
        source_fault: Callable[[], str] = lambda: "",
        source_bin_us: int | None = None,
        token_cap: TokenCap | None = None,
    ) -> None:
        self.counts = BeatCounts()
        self.decode_ms = Histogram(1e-3, 1e4)
        self.settle = settle
        self.admission = Admission(ring, schedule, settle, source_bin_us)
        self.paused = False
        self.trace_beat: Callable[[int, TokenWindow], None] | None = None
        self.trace_arrival: Callable[[Arrival], None] | None = None
        self.n_spikes_of_unit = np.zeros(0, np.int64)
        self.lsl_age_s: float | None = None
        self.newest = Outcome(0, schedule.t0_s, 0.0, 0.0, 0.0, None, 0, None, 0.0)
        self.rehearsal = Rehearsal(clock, ring, schedule)
        self._understudy = Seat(decoder, judge.fresh(), shaper.fresh())
        self.last_k = 0
        self.lead_s = lead_s
        self.token_cap = token_cap
        self.lineup = Lineup(Seat(decoder, judge, shaper), ring.hop_us)
        self.blocks = Blocks()
        self.backend_failed = threading.Event()
        self.ring, self.schedule = ring, schedule
        self._clock = clock
        self._run_id, self._source_fault = run_id, source_fault
        self._t0_s = schedule.t0_s
        self._was_jumped = self._is_complete = False
        self._age_s, self._n_aged = 0.0, 0
        self._to_count: list[Arrival] = []

    @property
    def decoder(self) -> Decoder:
        """The decoder in service."""
        return self.lineup.active.decoder

    @property
    def reason(self) -> str:
        """Why the newest decode is not `ok`; "" when it is."""
        return self.lineup.active.reason

    def take_in(self, inbox: deque[Arrival]) -> None:
        """Admit what has arrived to the ring."""
        for _ in range(len(inbox)):
            t_begun, arrival = self._clock.now(), inbox.popleft()
            if arrival.begins_anew:
                self._begin_anew(arrival.t_s)
            if self.trace_arrival is not None:
                self.trace_arrival(arrival)
            self.schedule.t0_s = self._t0_s + arrival.phase_s
            self.blocks.note(arrival.t_s)
            self.lineup.follow_source()
            self.admission.admit(arrival, self.lineup.known)
            t_ready_s = arrival.t_read_s + self._clock.now() - t_begun
            self.settle.note(arrival, self.schedule.t0_s, t_ready_s)
            self._to_count.append(arrival)
            if len(self._to_count) > MOST_UNCOUNTED:
                self._count()

    def _begin_anew(self, t_s: float) -> None:
        """Another stream has come, or the same after an outage: nothing of before holds."""
        self.admission.begin_anew(t_s)
        self._forget(self.last_k)

    def has_heard_of(self, k: int) -> bool:
        """Whether something stamped later than beat k's window has come."""
        newest_us = self.admission.completeness.newest_us
        return newest_us is not None and newest_us > k * self.ring.hop_us

    def rehearse(self, k: int) -> None:
        """Decode what has come of beat k so far: its decode, if nothing more comes for it.

        Otherwise it is without consequence, but for code and weights being close to the core.
        """
        self.rehearsal.decode(self.decoder, k, self.lead_s, self.token_cap)

    def rehearse_telling(self, settle_s: float) -> None:
        """Judge, shape and write what was rehearsed last, without consequence."""
        ahead, seat = self.rehearsal.newest, self._understudy
        if ahead is None:
            return
        seat.decoder = ahead.decoder
        outcome = self._outcome_of(ahead, ahead.t_done)
        seat.reason = self._judged(seat, outcome)
        encode(self._decode(seat, self.counts.seq, outcome, settle_s))

    def is_ahead(self, k: int) -> bool:
        """Whether beat k is decoded already, as far as its spikes have come."""
        return self.rehearsal.standing(self.decoder, k, self.lead_s) is not None

    def leave_out(self, k: int) -> None:
        """Leave out every bin up to beat k's: it lies too far back."""
        self.ring.close(k * self.ring.hop_us)
        self.last_k = max(self.last_k, k)
        self._forget(self.last_k)

    def begin(self, k: int) -> None:
        """Run every bin up to beat k's, so that the first decode knows what came before it."""
        if not self.decoder.manifest.graph.memory:
            self.ring.close(k * self.ring.hop_us)
            self.last_k = max(self.last_k, k)
        for k_before in range(self.last_k + 1, k + 1):
            self._cut_and_run(k_before)
        self.last_k = max(self.last_k, k)

    def turn(self, k: int, settle_s: float) -> Decode:
        """Do beat k, after running the bins between the last one and it through the memory."""
        self.lineup.attend()
        self._bring_up()
        self._catch_up(k)
        self.newest = outcome = self._cut_and_run(k, self.schedule.window_end_s(k) + settle_s)
        self.decode_ms.add((outcome.t_done - outcome.t_cut) * 1e3)
        self.settle.note_run(outcome.run_s)
        self.admission.look(self._clock.now())
        self._mind_the_clock(k)
        self.last_k = k
        seat = self.lineup.active
        if outcome.raw is None:
            self.backend_failed.set()
        seat.reason = self._judged(seat, outcome)
        self.admission.rejected.note_told(k, ok=seat.reason == "")
        self.lineup.watch_range(outcome.raw)
        self.counts.seq += 1
        decode = self._decode(seat, self.counts.seq, outcome, settle_s)
        self.counts.late += decode.late
        return decode

    def follow(self, settle_s: float) -> Decode | None:
        """Once the decode is out: run the decoders behind it; the shadow's decode, if any.

        What arrived for the beat is counted only now, by unit and age.
        """
        self._count()
        self.lsl_age_s = self._age_s / self._n_aged if self._n_aged else None
        self._age_s, self._n_aged = 0.0, 0
        for seat in self.lineup.behind:
            outcome = None
            for k, spikes in self.lineup.missed(seat):
                outcome, _, _ = self._run(seat.decoder, k, spikes, self._clock.now())
            if outcome is not None and outcome.k == self.last_k:
                seat.reason = self._judged(seat, outcome)
                if seat is self.lineup.shadow:
                    seat.seq += 1
                    return self._decode(seat, seat.seq, outcome, settle_s)
        return None

    def last_word(self, reason: str, settle_s: float) -> Decode:
        """A decode that carries no estimate but the safe value, published when the daemon ends."""
        self.lineup.active.reason = reason
        k, t_s = self.last_k + 1, self._clock.now()
        outcome = Outcome(k, self.schedule.window_end_s(k), t_s, t_s, t_s, None, 0, None, 0.0)
        self.counts.seq += 1
        return self._decode(self.lineup.active, self.counts.seq, outcome, settle_s)

    def _count(self) -> None:
        """Count what arrived since the last time, by unit and by age."""
        n_units = len(self.lineup.known)
        if len(self.n_spikes_of_unit) < n_units:
            n_more = n_units - len(self.n_spikes_of_unit)
            self.n_spikes_of_unit = np.concatenate(
                (self.n_spikes_of_unit, np.zeros(n_more, np.int64))
            )
        for arrival in self._to_count:
            batch, since_t0_s = arrival.batch, arrival.t_s - self.schedule.t0_s
            np.add.at(self.n_spikes_of_unit, batch.unit, batch.count)
            self._age_s += len(batch) * since_t0_s - 1e-6 * float(batch.t_us.sum())
            self._n_aged += len(batch)
        self._to_count.clear()

    def _bring_up(self) -> None:
        """A backend that took over runs the bins cut since it was warmed up."""
        decoder = self.decoder
        if decoder.manifest.graph.memory:
            for k, spikes in self.lineup.missed(self.lineup.active):
                self._run(decoder, k, spikes, self._clock.now())

    def _catch_up(self, k: int) -> None:
        """Skipped bins still run through the memory, up to a second of them, if there is one."""
        missing = range(self.last_k + 1, k)
        self.counts.skipped += len(missing)
        if not self.decoder.manifest.graph.memory:
            self.ring.close((k - 1) * self.ring.hop_us)
            return
        if len(missing) * self.ring.hop_us * 1e-6 > CATCH_UP_S:
            self.ring.close((k - 1) * self.ring.hop_us)
            self._forget(k - 1)
            return
        for k_missing in missing:
            self._cut_and_run(k_missing)

    def _cut_and_run(self, k: int, t_settled: float = math.inf) -> Outcome:
        t_cut = self._clock.now()
        ahead = self.rehearsal.take(self.decoder, k, self.lead_s)
        if ahead is not None:
            spikes, slots, window, kept = ahead.spikes, ahead.slots, ahead.window, ahead.kept
            # What a run that was begun in time takes beyond the settle time counts as decoding.
            outcome = self._accept(ahead, t_settled if ahead.t_done > t_settled else t_cut)
        else:
            spikes, slots = self.ring.cut(k * self.ring.hop_us)
            if self.token_cap is not None:
                self.token_cap.offer(len(spikes), self.decoder.n_fitting)
            outcome, window, kept = self._run(self.decoder, k, spikes, t_cut)
        if self.token_cap is not None:
            self.token_cap.note(outcome.n_tokens, outcome.run_s, len(self.lineup.seats))
        n_spikes = int(np.add.reduce(spikes.count))
        self._is_complete = self.admission.is_whole(k, n_spikes, t_cut)
        self.ring.assign_fate(slots[kept], "used")
        if not self.lineup.all_known:
            strange = self.decoder.row_of[spikes.unit] < 0
            self.ring.assign_fate(slots[strange], "unknown_unit")
        self.ring.close(k * self.ring.hop_us)
        self.lineup.remember(k, spikes)
        if self.trace_beat is not None:
            self.trace_beat(k, window)
        return outcome

    def _accept(self, ahead: Ahead, t_cut: float) -> Outcome:
        """The bin as it was decoded ahead: nothing has come for it since."""
        decoder, k = ahead.decoder, ahead.k
        k_reset = decoder.k_reset
        decoder.accept(ahead.raw, k)
        self.counts.resets += decoder.k_reset != k_reset
        return self._outcome_of(ahead, t_cut)

    def _outcome_of(self, ahead: Ahead, t_cut: float) -> Outcome:
        return Outcome(
            ahead.k, ahead.window.t_window, t_cut, t_cut, self._clock.now(), ahead.raw,
            len(ahead.window), ahead.token_cap, ahead.run_s, was_ahead=True,
        )  # fmt: skip

    def _run(
        self, decoder: Decoder, k: int, spikes: SpikeBatch, t_cut: float
    ) -> tuple[Outcome, TokenWindow, Int64s]:
        t_window = self.schedule.window_end_s(k)
        k_reset = decoder.k_reset
        decoder.cap(self.token_cap.in_force if self.token_cap is not None else None)
        window, kept = decoder.cut(spikes, k, t_window)
        t_tokens = self._clock.now()
        raw = decoder.run(window, k, self.lead_s)
        self.counts.resets += decoder.k_reset != k_reset
        t_done, cap = self._clock.now(), decoder.tokenizer.token_cap
        run_s = t_done - t_cut
        outcome = Outcome(k, t_window, t_cut, t_tokens, t_done, raw, len(window), cap, run_s)
        return outcome, window, kept

    def _forget(self, k: int) -> None:
        self.lineup.recent.clear()
        for seat in self.lineup.seats:
            seat.decoder.forget(k)
            seat.decoder.last_k = max(seat.decoder.last_k, k)
        self.counts.resets += 1

    def _mind_the_clock(self, k: int) -> None:
        """After a jump of the sender's clock is over, bins of before and after do not mix."""
        jumped = self._source_fault() == "clock_jump"
        if self._was_jumped and not jumped:
            self._forget(k)
        self._was_jumped = jumped

    def _judged(self, seat: Seat, outcome: Outcome) -> str:
        newest_us, schedule = self.admission.newest_us, self.schedule
        settle_s, hop_s = self.settle.settle_s, self.ring.hop_us * 1e-6
        return seat.judge.judge(
            ValidityInputs(
                t_s=self._clock.now(),
                t_due=schedule.window_end_s(outcome.k) + settle_s,
                newest_s=None if newest_us is None else schedule.t0_s + newest_us * 1e-6,
                delay_s=max(0.0, settle_s - hop_s),
                keeps_alive=self.admission.keeps_alive,
                since_reset_s=(outcome.k - seat.decoder.k_reset) * hop_s,
                spikes_in=self.ring.fates.spikes_in + self.ring.n_pending,
                unknown=self.ring.fates.unknown_unit,
                finite=outcome.raw is None or is_finite(outcome.raw),
                backend_ok=outcome.raw is not None,
                source_fault=self._fault_of_source(),
                complete=self._is_complete,
                paused=self.paused,
            )
        )

    def _fault_of_source(self) -> str:
        rejected = self.admission.rejected
        if rejected.other_clock:
            return "other_clock"
        return self._source_fault() or ("spikes_rejected" if rejected.is_fault else "")

    def _decode(self, seat: Seat, seq: int, outcome: Outcome, settle_s: float) -> Decode:
        decoder, fates, newest_us = seat.decoder, self.ring.fates, self.ring.newest_us
        raw, t_window = outcome.raw, outcome.t_window
        ok = seat.reason == "" and raw is not None
        value = seat.shaper.shape(raw, t_window) if ok and raw else seat.shaper.safe(t_window)
        t_sent = self._clock.now()
        return Decode(
            run_id=self._run_id,
            seq=seq,
            beat=outcome.k,
            t_window=t_window,
            t_newest_spike=None if newest_us is None else self.schedule.t0_s + newest_us * 1e-6,
            t_done=outcome.t_done,
            t_sent=t_sent,
            validity=REASONS[seat.reason].name.lower(),
            reason=seat.reason,
            late=t_sent > t_window + settle_s + self.ring.hop_us * 0.5e-6,
            value=value,
            value_raw=as_values(raw, decoder.names),
            units=decoder.units,
            lead_s=self.lead_s,
            decoder_id=decoder.manifest.name,
            checksum=decoder.manifest.id,
            tokens=outcome.n_tokens,
            spikes_in=fates.spikes_in,
            spikes_late=fates.late,
            spikes_dropped=fates.overflow,
            beats_skipped=self.counts.skipped,
            t_cut=outcome.t_cut,
            backend=decoder.backend.name,
            precision=decoder.backend.precision,
            token_cap=outcome.token_cap,
        )
