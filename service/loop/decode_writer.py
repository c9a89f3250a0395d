"""From an outcome to the decode that leaves: judge it, shape its value, write the message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from service.loop.decoder import Outcome, is_finite
from service.loop.intake.admission import Admission
from service.loop.shaping import as_values
from service.loop.slots import DecoderSlot
from service.loop.validity import OVERDUE_HOPS, VALIDITIES, ValidityInputs
from streams.clock import Clock
from streams.spikes.ring import SpikeRing
from streams.wire.schema import Decode


@dataclass(slots=True)
class BeatCounts:
    """Beats counted by their fate."""

    seq: int = 0
    late: int = 0
    skipped: int = 0
    resets: int = 0


class DecodeWriter:
    """Judges and shapes outcomes; owned by the loop.

    Args:
        run_id: this run's.
        clock: the daemon's clock.
        ring: whose spikes were decoded.
        admission: admits arrivals to the ring.
        counts: what became of the beats.
        source_fault: returns the whole source's fault, one from `REASONS`; "" if there is none.
    """

    def __init__(
        self,
        run_id: str,
        clock: Clock,
        ring: SpikeRing,
        admission: Admission,
        counts: BeatCounts,
        source_fault: Callable[[], str],
    ) -> None:
        self._run_id, self._clock, self._ring = run_id, clock, ring
        self._admission, self._counts, self._source_fault = admission, counts, source_fault

    def judge(
        self, slot: DecoderSlot, outcome: Outcome, *, is_complete: bool, is_paused: bool
    ) -> str:
        """Return why a decode is not `ok`; "" if it is.

        Args:
            slot: whose decode.
            outcome: the bin's.
            is_complete: all spikes of the bin can have come, and were taken.
            is_paused: the operator paused.
        """
        admission, ring, raw = self._admission, self._ring, outcome.raw
        schedule, settle_s = admission.schedule, admission.settle.settle_s
        rejected, newest_us, hop_s = admission.rejected, admission.newest_us, schedule.hop_s
        if rejected.other_clock:
            source_fault = "other_clock"
        else:
            source_fault = self._source_fault() or ("spikes_rejected" if rejected.is_fault else "")
        return slot.judge.judge(
            ValidityInputs(
                t_s=self._clock.now(),
                t_due=schedule.window_end_s(outcome.k) + settle_s,
                newest_s=None if newest_us is None else schedule.t0_s + newest_us * 1e-6,
                delay_s=max(0.0, settle_s - hop_s),
                keeps_alive=admission.keeps_alive,
                since_reset_s=(outcome.k - slot.decoder.k_reset) * hop_s,
                spikes_in=ring.fates.spikes_in + ring.n_pending,
                unknown=ring.fates.unknown_unit,
                finite=raw is None or is_finite(raw),
                backend_ok=raw is not None,
                source_fault=source_fault,
                complete=is_complete,
                paused=is_paused,
                damaged=bool(slot.damage),
            )
        )

    def write(self, slot: DecoderSlot, seq: int, outcome: Outcome) -> Decode:
        """Return the decode: with the shaped value if it is `ok`, otherwise the safe one."""
        decoder, fates, newest_us = slot.decoder, self._ring.fates, self._ring.newest_us
        schedule, settle_s = self._admission.schedule, self._admission.settle.settle_s
        raw, t_window = outcome.raw, outcome.window.t_window
        ok = slot.reason == "" and raw is not None
        # A task program that ignores validity must still get a value that is safe to use.
        value = slot.shaper.shape(raw, t_window) if ok and raw else None
        if value is None:
            slot.reason = "non_finite" if ok else slot.reason
            value = slot.shaper.safe(t_window)
        t_sent = self._clock.now()
        return Decode(
            run_id=self._run_id,
            seq=seq,
            beat=outcome.k,
            t_window=t_window,
            t_newest_spike=None if newest_us is None else schedule.t0_s + newest_us * 1e-6,
            t_done=outcome.t_done,
            t_sent=t_sent,
            validity=VALIDITIES[slot.reason],
            reason=slot.reason,
            late=t_sent > t_window + settle_s + self._ring.hop_us * 0.5e-6,
            value=value,
            value_raw=as_values(raw, decoder.names),
            units=decoder.units,
            lead_s=outcome.lead_s,
            decoder_id=decoder.manifest.name,
            checksum=decoder.manifest.id,
            tokens=len(outcome.window),
            spikes_in=fates.spikes_in,
            spikes_late=fates.late,
            spikes_dropped=fates.overflow,
            beats_skipped=self._counts.skipped,
            t_cut=outcome.t_cut,
            backend=decoder.backend.name,
            precision=decoder.backend.precision,
            token_cap=outcome.token_cap,
        )


def as_of_now(
    decode: Decode, slot: DecoderSlot, settle_s: float, hop_s: float, t_s: float
) -> Decode:
    """Return a decode as it may leave now: one that was held up is `overdue`.

    Args:
        decode: as it was judged.
        slot: whose it is.
        settle_s: how long its spikes were waited for.
        hop_s: between beats.
        t_s: now.
    """
    if decode.reason or t_s <= decode.t_window + settle_s + OVERDUE_HOPS * hop_s:
        return decode
    slot.reason = "overdue"
    validity = VALIDITIES["overdue"]
    return msgspec.structs.replace(
        decode, validity=validity, reason="overdue", late=True,
        value=slot.shaper.safe(decode.t_window), t_sent=t_s,
    )  # fmt: skip
