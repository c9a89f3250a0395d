"""The heartbeat: how the run stands, once a second."""

from __future__ import annotations

from service.loop.beat import Beat
from service.loop.ingest import Source
from service.loop.validity import REASONS
from streams.wire import Heartbeat


def heartbeat_of(
    beat: Beat,
    source: Source,
    *,
    run_id: str,
    t_sent: float,
    settle_s: float,
    settling: bool,
    settled_from_beat: int,
) -> Heartbeat:
    """The message, of what the beat and the source say now."""
    manifest, estimate = beat.decoder.manifest, source.offset.current
    return Heartbeat(
        run_id=run_id,
        t_sent=t_sent,
        beat=beat.last_k,
        seq=beat.counts.seq,
        validity=REASONS[beat.reason].name.lower(),
        reason=beat.reason,
        settle_ms=settle_s * 1e3,
        settling=settling,
        settled_from_beat=settled_from_beat,
        hop_ms=beat.schedule.hop_us * 1e-3,
        decoder_id=manifest.name,
        checksum=manifest.id,
        backend=beat.decoder.backend.name,
        precision=beat.decoder.backend.precision,
        source=source.inlet.description.name,
        fates=beat.ring.fates.as_dict(),
        spikes_in=beat.ring.fates.spikes_in,
        spikes_pending=beat.ring.n_pending,
        spikes_lost=beat.counts.lost_in_transport,
        beats_late=beat.counts.late,
        beats_skipped=beat.counts.skipped,
        clock_offset_s=estimate.offset_s,
        clock_uncertainty_s=estimate.uncertainty_s,
        decode_ms=beat.decode_ms.summary(),
        flags=[],
    )
