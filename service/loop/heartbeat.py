"""The heartbeat: how the run stands, once a second."""

from __future__ import annotations

from service.loop.beat import Beat
from service.loop.source import Source
from service.loop.validity import REASONS
from streams.wire.schema import Heartbeat


def heartbeat_of(
    beat: Beat,
    source: Source,
    *,
    run_id: str,
    t_sent: float,
) -> Heartbeat:
    """The message, of what the beat and the source say now."""
    manifest, estimate, settle = beat.decoder.manifest, source.offset.current, beat.settle
    return Heartbeat(
        run_id=run_id,
        t_sent=t_sent,
        beat=beat.last_k,
        seq=beat.counts.seq,
        validity=REASONS[beat.reason].name.lower(),
        reason=beat.reason,
        settle_ms=settle.settle_s * 1e3,
        settling=settle.settling,
        settled_from_beat=settle.from_beat,
        delay_ms=None if settle.needed_s is None else settle.needed_s * 1e3,
        hop_ms=beat.schedule.hop_us * 1e-3,
        decoder_id=manifest.name,
        checksum=manifest.id,
        backend=beat.decoder.backend.name,
        precision=beat.decoder.backend.precision,
        source=source.inlet.description.name,
        fates=beat.ring.fates.as_dict(),
        spikes_in=beat.ring.fates.spikes_in,
        spikes_pending=beat.ring.n_pending,
        spikes_lost=beat.admission.n_lost,
        spikes_ignored=beat.admission.n_ignored,
        shares=dict(beat.admission.rejected.shares),
        beats_late=beat.counts.late,
        beats_skipped=beat.counts.skipped,
        clock_offset_s=estimate.offset_s,
        clock_uncertainty_s=estimate.uncertainty_s,
        decode_ms=beat.decode_ms.summary(),
        flags=[],
    )
