"""The heartbeat: the run's state, once a second."""

from __future__ import annotations

import os

from service.loop.decode_loop import DecodeLoop
from service.loop.intake.source import Source
from service.loop.validity import REASONS
from service.telemetry.percentiles import Histogram
from streams.wire.schema import Heartbeat

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_mb() -> float | None:
    """Return the memory that this process holds, MB; None where the system does not tell."""
    try:
        # 10 us; the kernel makes it up from counters.
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE * 1e-6
    except OSError:
        return None


def heartbeat_of(
    loop: DecodeLoop,
    source: Source,
    decode_ms: Histogram,
    *,
    run_id: str,
    t_sent: float,
    flags: list[str],
    recorded: bool,
    r2_lost: float | None,
) -> Heartbeat:
    """Return the message, from the loop's and the source's present state."""
    manifest, estimate, settle = loop.decoder.manifest, source.offset.current, loop.settle
    return Heartbeat(
        run_id=run_id,
        t_sent=t_sent,
        beat=loop.last_k,
        seq=loop.counts.seq,
        validity=REASONS[loop.reason].name.lower(),
        reason=loop.reason,
        settle_ms=settle.settle_s * 1e3,
        settling=settle.settling,
        settled_from_beat=settle.from_beat,
        delay_ms=None if settle.needed_s is None else settle.needed_s * 1e3,
        disorder_ms=loop.admission.watermark.disorder_s * 1e3,
        cut_shares=loop.timer.cut_shares,
        hop_ms=loop.schedule.hop_us * 1e-3,
        decoder_id=manifest.name,
        checksum=manifest.id,
        backend=loop.decoder.backend.name,
        precision=loop.decoder.backend.precision,
        source=source.inlet.description.name,
        fates=loop.ring.fates.as_dict(),
        spikes_in=loop.ring.fates.spikes_in,
        spikes_pending=loop.ring.n_pending,
        spikes_lost=loop.admission.n_lost,
        spikes_ignored=loop.admission.n_ignored,
        shares=dict(loop.admission.rejected.shares),
        beats_late=loop.counts.late,
        beats_skipped=loop.counts.skipped,
        clock_offset_s=estimate.offset_s,
        clock_uncertainty_s=estimate.uncertainty_s,
        decode_ms=decode_ms.summary(),
        flags=flags,
        memory_mb=resident_mb(),
        recorded=recorded,
        r2_lost=r2_lost,
    )
