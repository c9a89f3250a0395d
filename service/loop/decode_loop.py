"""The decode loop, in the order in which a spike meets it.

Pull (`Arrivals`), admit, predecode while the bin's last spikes are waited for (`CutTimer`), cut,
confirm the predecoded outcome or decode, judge, shape, publish. One thread owns the loop; it does
bounded work a beat and never logs. Other threads give it `commands`.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from service.loop.block_predictor import BlockPredictor
from service.loop.commands import CommandQueue, carry_out
from service.loop.cut_timer import Cut, CutTimer
from service.loop.decode_writer import BeatCounts, DecodeWriter
from service.loop.decoder import Decoder, Outcome, no_outcome
from service.loop.intake.admission import Admission
from service.loop.intake.arrivals import Arrival, Arrivals, Observer
from service.loop.journal import NO_JOURNAL, Journal
from service.loop.slots import DecoderSlot, DecoderSlots
from service.loop.token_cap import TokenCap
from streams.clock import Clock
from streams.messages import Int64s, SpikeBatch
from streams.spikes.ring import SpikeRing
from streams.wire.schema import Decode, encode

CATCH_UP_S = 1.0
LISTEN_S = 0.6
"""Heard before the first beat, so that a source with a delay loses no spike at the start."""
Report = Callable[[str, dict[str, Any]], None]


class DecodeLoop:
    """Turns arrivals into decodes, beat after beat.

    Attributes:
        admission: admits arrivals to the ring.
        blocks: predicts the next arrival.
        commands: from other threads.
        journal: see below.
        newest: the newest beat's outcome.
        predecoded: the outcome of the bin to come, as far as it has come; None if there is none.
        predecode_s: how long the newest predecode took.
        backend_failed: set when the active decoder's backend failed.
        t_due: when the newest beat was due to be cut.

    Args:
        clock: the daemon's clock.
        ring: where spikes wait; owned from here on.
        admission: admits arrivals to it.
        slot: the decoder in service.
        inbox: where arrivals wait for admission.
        arrivals: who puts them there.
        run_id: this run's.
        lead_s: how far ahead to decode.
        report: called with (event, detail).
        source_fault: returns the whole source's fault, one from `REASONS`; "" if there is none.
        token_cap: limits the tokens per beat under load; None for the decoders' own limits only.
        observer: telemetry; None for none.
        journal: is told of everything that decodes depend on.
        cut, predecode: see `CutTimer`.
        write: writes a decode as it leaves, to warm it up.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        ring: SpikeRing,
        admission: Admission,
        slot: DecoderSlot,
        inbox: deque[Arrival],
        arrivals: Arrivals,
        run_id: str,
        lead_s: float,
        report: Report,
        source_fault: Callable[[], str] = lambda: "",
        token_cap: TokenCap | None = None,
        observer: Observer | None = None,
        journal: Journal = NO_JOURNAL,
        cut: Cut = "settled",
        predecode: bool = False,
        write: Callable[[Decode], bytes] = encode,
    ) -> None:
        self.schedule, self.settle = admission.schedule, admission.settle
        self.ring, self.admission, self.counts = ring, admission, BeatCounts()
        self.blocks, self.commands = BlockPredictor(), CommandQueue()
        self.slots = DecoderSlots(slot, ring.hop_us, self._slot_changed)
        self.token_cap, self.lead_s = token_cap, lead_s
        self.timer = CutTimer(clock, self, arrivals.await_arrival, cut=cut, predecode=predecode)
        self.last_k = 0
        self.t_due = self.predecode_s = 0.0
        self.newest = no_outcome(slot.decoder, 0, lead_s, self.schedule.t0_s, 0.0)
        self.predecoded: Outcome | None = None
        self.paused = self._was_jumped = self._is_complete = False
        self.backend_failed = threading.Event()
        self._clock, self._inbox, self._arrivals = clock, inbox, arrivals
        self._report, self._source_fault = report, source_fault
        self._writer = DecodeWriter(run_id, clock, ring, self.admission, self.counts, source_fault)
        self._observer, self._write, self.journal = observer, write, journal

    @property
    def decoder(self) -> Decoder:
        """The decoder in service."""
        return self.slots.active.decoder

    @property
    def reason(self) -> str:
        """Why the newest decode is not `ok`; "" when it is."""
        return self.slots.active.reason

    def begin(self, t_open_s: float, stopping: Callable[[], bool] = lambda: False) -> None:
        """Measure the source's delay, then run earlier bins through the memory.

        Args:
            t_open_s: when the stream was opened.
            stopping: returns True once the end was asked for.
        """
        self.settle.begin(t_open_s)
        self.admit()
        t_heard_s = t_open_s + LISTEN_S if self.settle.settling else t_open_s
        while (left_s := t_heard_s - self._clock.now()) > 0 and not stopping():
            self._arrivals.await_arrival(left_s)
            self.admit()
            self.carry_out_commands()
        most = math.ceil(CATCH_UP_S * 1e6 / self.ring.hop_us)
        n_before = math.inf  # a decoder that is too slow would never be done beginning
        while 0 < (n := self._newest_due() - self.last_k) < n_before and not stopping():
            if n > most:
                self.last_k += n - most
                self._close(self.last_k)
                self._forget(self.last_k)
            self.run_unpublished(self.last_k + min(n, most))
            n_before = n

    def run_unpublished(self, k: int) -> None:
        """Run every bin up to beat k's, so that the first decode has their memory."""
        if self.decoder.has_memory:
            for k_before in range(self.last_k + 1, k + 1):
                self._note_run(self._cut_and_decode(k_before))
        self._close(k)
        self.last_k = max(self.last_k, k)

    def run_beat(self, publish: Callable[[Decode], float]) -> tuple[Decode, float]:
        """Wait for the next beat, decode it and publish it.

        Returns:
            The decode, and when it was out.
        """
        k, waited_s = max(self.last_k + 1, self._newest_due()), -1.0
        while waited_s < self.settle.settle_s:  # it may grow while spikes arrive
            waited_s = self.settle.settle_s
            self.t_due = self.timer.until_cut(k, waited_s, settling=self.settle.settling)
        self.timer.count_cut()
        # Converting an arrival takes the interpreter lock just when the decode is due.
        with self._arrivals.held_off():
            decode = self._decode_beat(k)
            t_out = publish(decode)
        self._note_run(self.newest)
        return decode, t_out

    def admit(self) -> None:
        """Admit what was pulled to the ring."""
        for _ in range(len(self._inbox)):
            t_begun, arrival = self._clock.now(), self._inbox.popleft()
            # The memory must not mix another stream, or a time after a gap, with what was before.
            if arrival.begins_anew:
                self.admission.begin_anew(arrival.t_s)
                self._forget(self.last_k)
            if self._observer is not None:
                self._observer.arrival(arrival)
            self.schedule.move(arrival.phase_s)
            self.blocks.note(arrival.t_s)
            self.slots.follow_source()
            self.journal.arrival(arrival, self.slots.known)
            self.admission.admit(arrival, self.slots.known)
            took_s = self._clock.now() - t_begun
            self.settle.note(arrival, self.schedule.t0_s, arrival.t_read_s + took_s)

    def predecode(self, k: int) -> None:
        """Decode what has come of beat k: its decode if nothing more comes, bit for bit.

        Otherwise it only keeps code and weights in the processor's caches.
        """
        t_s, self.predecoded = self._clock.now(), None
        spikes, slots = self._cut(k)
        outcome = self._decode_bin(self.decoder, k, spikes, slots, t_s, predecode=True)
        self.predecode_s = outcome.run_s
        if outcome.raw is not None:
            self.predecoded = outcome

    def is_predecoded(self, k: int) -> bool:
        """Return True if the predecoded outcome would be beat k's decode now."""
        return self._standing(k) is not None

    def warm_up_publish(self) -> None:
        """Judge, shape and write the predecoded outcome, for the processor's caches only."""
        outcome, active = self.predecoded, self.slots.active
        if outcome is None:
            return
        self.ring.assign_fate(np.zeros(0, np.int64), "used")
        self.ring.close(self.schedule.end_us(self.last_k))  # closed already: nothing changes
        trial = DecoderSlot(outcome.decoder, active.judge.fresh(), active.shaper.fresh())
        trial.reason = self._judge(trial, outcome)
        self._write(self._writer.write(trial, self.counts.seq, outcome))

    def step(self, k: int) -> Decode:
        """Decode beat k, after running the bins between the last beat and it."""
        decode = self._decode_beat(k)
        self._note_run(self.newest)
        return decode

    def _decode_beat(self, k: int) -> Decode:
        self.carry_out_commands()
        self._bring_up()
        self._catch_up(k)
        t_settled = self.schedule.window_end_s(k) + self.settle.settle_s
        self.newest = outcome = self._cut_and_decode(k, t_settled)
        self.settle.note_run(outcome.run_s)
        self.admission.update_shares(self._clock.now())
        self._forget_after_clock_jump(k)
        self.last_k = k
        # The failover thread waits for this: opening and warming up take too long for the loop.
        if outcome.raw is None:
            self.backend_failed.set()
        slot = self.slots.active
        slot.reason = self._judge(slot, outcome)
        self.admission.rejected.note_published(k, ok=slot.reason == "")
        self.slots.watch_range(outcome.raw)
        self.counts.seq += 1
        decode = self._writer.write(slot, self.counts.seq, outcome)
        self.counts.late += decode.late
        return decode

    def run_shadow(self) -> Decode | None:
        """Run the decoders behind, once the decode is out; return the shadow's decode, if any."""
        for slot in self.slots.behind:
            outcome = None
            for k, spikes in self.slots.missed(slot):
                outcome = self._run_recent(slot.decoder, k, spikes)
            if outcome is not None and outcome.k == self.last_k:
                slot.reason = self._judge(slot, outcome)
                if slot is self.slots.shadow:
                    slot.seq += 1
                    return self._writer.write(slot, slot.seq, outcome)
        return None

    def review_settling(self, decode: Decode) -> None:
        """Once a decode is out: change what the source's wait depends on, and report on it."""
        predecodes, t_s = self.timer.predecodes_until_cut, self._clock.now()
        for happened in self.admission.review(decode.beat, t_s, predecodes=predecodes):
            if happened.event != "disorder" or self.timer.follows_watermark:
                self._report(happened.event, happened.detail)

    def final_safe_decode(self, reason: str) -> Decode:
        """Return a decode that holds only the safe value, published when the daemon ends."""
        slot, k, t_s = self.slots.active, self.last_k + 1, self._clock.now()
        slot.reason = reason
        self.counts.seq += 1
        outcome = no_outcome(slot.decoder, k, self.lead_s, self.schedule.window_end_s(k), t_s)
        return self._writer.write(slot, self.counts.seq, outcome)

    def carry_out_commands(self) -> None:
        """Carry out what other threads asked for, as far as it can be now."""
        self.commands.carry_out(partial(carry_out, self))

    def _slot_changed(self, change: str, slot: DecoderSlot, **more: Any) -> None:
        manifest = slot.decoder.manifest
        self._report(change, {"decoder_id": manifest.name, "checksum": manifest.id} | more)

    def _newest_due(self) -> int:
        return self.schedule.newest_due(self._clock.now(), self.settle.settle_s)

    def _judge(self, slot: DecoderSlot, outcome: Outcome) -> str:
        complete, paused = self._is_complete, self.paused
        return self._writer.judge(slot, outcome, is_complete=complete, is_paused=paused)

    def _bring_up(self) -> None:
        """Let a backend that took over run the bins that were cut since it was warmed up."""
        if self.decoder.has_memory:
            for k, spikes in self.slots.missed(self.slots.active):
                self._run_recent(self.decoder, k, spikes)

    def _catch_up(self, k: int) -> None:
        """Run skipped bins through the memory if there is one, up to a second of them."""
        missing = range(self.last_k + 1, k)
        self.counts.skipped += len(missing)
        is_too_long = len(missing) * self.ring.hop_us * 1e-6 > CATCH_UP_S
        if is_too_long or not self.decoder.has_memory:
            self._close(k - 1)
            if self.decoder.has_memory:
                self._forget(k - 1)
            return
        for k_missing in missing:
            self._note_run(self._cut_and_decode(k_missing))

    def _note_run(self, outcome: Outcome) -> None:
        """Note how long a run took; of a beat once its decode is out."""
        if self.token_cap is not None:
            self.token_cap.note(len(outcome.window), outcome.run_s, len(self.slots.all))

    def _cut_and_decode(self, k: int, t_settled: float = math.inf) -> Outcome:
        """Cut beat k's bin, confirm its predecoded outcome or decode it, and assign fates."""
        t_cut, is_published = self._clock.now(), t_settled < math.inf
        self.journal.cut(k, self.schedule.end_us(k), self.timer.cut_by if is_published else "")
        outcome = self._confirm(k, t_cut, t_settled)
        if outcome is None:
            outcome = self._decode_bin(self.decoder, k, *self._cut(k), t_cut)
        spikes, slots = outcome.spikes, outcome.slots
        self._is_complete = self.admission.is_whole(k, spikes.count, t_cut)
        all_kept = len(outcome.kept) == len(slots)
        self.ring.assign_fate(slots if all_kept else slots[outcome.kept], "used")
        # The ring admits units that a decoder behind knows; a spike's fate is the active one's.
        if not self.slots.all_known:
            strange = self.decoder.row_of[spikes.unit] < 0
            self.ring.assign_fate(slots[strange], "unknown_unit")
        self.ring.close(self.schedule.end_us(k))
        # Decoders behind, and those to come, run the same spikes, though late ones may follow.
        self.slots.remember(k, spikes)
        return outcome

    def _close(self, k: int) -> None:
        """Close beat k's bin and all before it, cut or not."""
        end_us = self.schedule.end_us(k)
        self.journal.closed(end_us)
        self.ring.close(end_us)

    def _cut(self, k: int) -> tuple[SpikeBatch, Int64s]:
        spikes, slots = self.ring.cut(self.schedule.end_us(k))
        if self.token_cap is not None:
            self.token_cap.offer(len(spikes), self.decoder.n_fitting)
        return spikes, slots

    def _standing(self, k: int) -> Outcome | None:
        """The predecoded outcome, if decoding beat k now would give it again."""
        outcome = self.predecoded
        if outcome is None or not outcome.holds_for(self.decoder, k, self.lead_s):
            return None
        return outcome if self.ring.is_as_cut(self.schedule.end_us(k)) else None

    def _confirm(self, k: int, t_cut: float, t_settled: float) -> Outcome | None:
        """Take the predecoded outcome as beat k's; None if it does not stand."""
        # Whatever runs next moves the memory that the predecoded outcome began with.
        outcome, self.predecoded = self._standing(k), None
        if outcome is None or outcome.raw is None:
            return None
        outcome.decoder.accept(outcome.raw, k, outcome.window, outcome.lead_s)
        self.counts.resets += outcome.decoder.k_reset != outcome.memory[1]
        if outcome.t_done > t_settled:  # the time that it took beyond the wait is decoding time
            t_cut = t_settled
        return outcome.confirmed(t_cut, self._clock.now())

    def _run_recent(self, decoder: Decoder, k: int, spikes: SpikeBatch) -> Outcome:
        """Run a bin whose spikes have their fates already."""
        return self._decode_bin(decoder, k, spikes, np.zeros(0, np.int64), self._clock.now())

    def _decode_bin(
        self,
        decoder: Decoder,
        k: int,
        spikes: SpikeBatch,
        slots: Int64s,
        t_cut: float,
        *,
        predecode: bool = False,
    ) -> Outcome:
        t_window, memory = self.schedule.window_end_s(k), (decoder.last_k, decoder.k_reset)
        decoder.cap(self.token_cap.in_force if self.token_cap is not None else None)
        window, kept = decoder.cut(spikes, self.schedule.end_us(k), t_window)
        t_tokens = self._clock.now()
        if predecode:
            raw = decoder.predecode(window, self.lead_s)
        else:
            raw = decoder.run(window, k, self.lead_s)
            self.counts.resets += decoder.k_reset != memory[1]
        t_done = self._clock.now()
        return Outcome(
            decoder, k, self.lead_s, spikes, slots, window, kept, raw, memory,
            decoder.tokenizer.token_cap, t_cut, t_tokens, t_done, t_done - t_cut,
        )  # fmt: skip

    def _forget(self, k: int) -> None:
        self.slots.forget(k)
        self.counts.resets += 1

    def _forget_after_clock_jump(self, k: int) -> None:
        """Keep bins before and after a jump of the sender's clock apart."""
        jumped = self._source_fault() == "clock_jump"
        if self._was_jumped and not jumped:
            self._forget(k)
        self._was_jumped = jumped
