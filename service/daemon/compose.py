"""From config to parts: check it, and hand its values to the daemon's parts."""

from __future__ import annotations

import importlib.metadata
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from export.choice.machine import cpu_model, library_versions
from export.manifest import Manifest
from service.config import BeatConfig, DecoderConfig, InputConfig, ServeConfig, ShapingConfig
from service.daemon.stand_in import StandIn
from service.daemon.stream_search import StreamSearch
from service.errors import ConfigError
from service.loop.cut_timer import Cut
from service.loop.decode_loop import Report
from service.loop.intake.admission import Admission
from service.loop.intake.schedule import BlockAlignment, Schedule
from service.loop.intake.settle import SettleTime
from service.loop.intake.source import FindInlet, Source
from service.loop.shaping import Shaping
from service.loop.token_cap import CapChange, TokenCap
from service.telemetry.recording.run_journal import RunJournal
from service.telemetry.recording.run_recorder import RecordingLimits, RunRecorder
from streams.clock import Clock
from streams.lsl.inlets import Inlet, find_inlet
from streams.spikes.kernels.choose import NUMPY, Kernels
from streams.spikes.layouts.layout import LayoutOptions
from streams.spikes.ring import SpikeRing

RING_S = 5.0
_CAP_BEGAN = (
    "decoding nears its time: spikes above `token_cap` a beat are left out, evenly over units, "
    "until there is room"
)


def check_config(config: ServeConfig, manifest: Manifest) -> None:
    """Refuse a config that does not fit the bundle.

    Raises:
        ConfigError: it does not.
    """
    hop_ms, beat = config.beat.hop_ms, config.beat
    if hop_ms is not None and not math.isclose(hop_ms, manifest.hop_s * 1e3):
        raise ConfigError(
            f"beat.hop_ms is {hop_ms:g}, but bundle {manifest.name!r} was made for a hop of "
            f"{manifest.hop_s * 1e3:g} ms; leave the key out to take the bundle's"
        )
    if beat.settle_ms != "auto" and not 0 <= beat.settle_ms <= beat.settle_most_ms:
        raise ConfigError(
            f"beat.settle_ms is {beat.settle_ms:g}; it lies between 0 and beat.settle_most_ms, "
            f"{beat.settle_most_ms:g} ms"
        )
    if complaint := shaping_of(config.shaping).complaint(manifest.outputs):
        raise ConfigError(f"shaping of bundle {manifest.name!r}: {complaint}")
    if config.decoder.lead_s is not None:
        checked_lead(config.decoder.lead_s, manifest)


def checked_lead(lead_s: float, manifest: Manifest) -> float:
    """Return the lead time itself.

    Raises:
        ConfigError: the decoder was not trained for it.
    """
    if not manifest.lead_s.min <= lead_s <= manifest.lead_s.max:
        raise ConfigError(
            f"lead_s is {lead_s:g}; bundle {manifest.name!r} was trained for "
            f"{manifest.lead_s.min:g} to {manifest.lead_s.max:g} s"
        )
    return lead_s


def signers_of(config: DecoderConfig) -> tuple[str, ...]:
    """Return the public keys, one of which must have signed a bundle; () where none needs to.

    Raises:
        SigningError: a name is neither a key nor a file that holds one.
    """
    if not config.require_signature:
        return ()
    from export.signing.keys import read_signers  # costs 30 ms, which few need

    return read_signers(config.require_signature)


def shaping_of(config: ShapingConfig) -> Shaping:
    """Return the shaping's settings."""
    return Shaping(**config.model_dump())


def stream_finder(config: InputConfig, gave_up: Callable[[], bool] = lambda: False) -> FindInlet:
    """Return what looks for the stream that `[input]` describes, for so many seconds."""

    def find(timeout_s: float) -> Inlet:
        return find_inlet(
            config.type, name=config.name, source_id=config.source_id, hostname=config.hostname,
            budget_per_s=config.budget_spikes_per_s, timeout_s=timeout_s, recover=False,
            gave_up=gave_up,
        )  # fmt: skip

    return find


@contextmanager
def search_stream(config: InputConfig, clock: Clock) -> Iterator[FindInlet]:
    """Begin to look for the stream; what is handed out waits for it, and later looks anew."""
    ended = threading.Event()
    early, find = stream_finder(config, ended.is_set), stream_finder(config)
    search = StreamSearch(early, find, clock, config.wait_s)
    try:
        yield search.find
    finally:
        ended.set()
        search.join()


def make_stand_in(config: ServeConfig, decodes: str) -> StandIn | None:
    """Return what stands in for a stream that is absent; None if the config allows nothing."""
    if not config.input.simulate_if_absent:
        return None
    # With keys the decodes are for those who hold the client's: its hand moves the cursor then.
    return StandIn(config.input, "" if config.output.keys else decodes)


def make_source(
    config: InputConfig,
    known_keys: tuple[str, ...],
    clock: Clock,
    kernels: Kernels = NUMPY,
    find: FindInlet | None = None,
) -> Source:
    """Open the stream that `[input]` describes; the decoder has a row for each of `known_keys`.

    Raises:
        StreamsError: see `Source`.
    """
    options = LayoutOptions(
        known_keys=known_keys, array=config.array, columns=config.columns,
        ignore_units=config.ignore_units, kernels=kernels,
    )  # fmt: skip
    return Source(
        find or stream_finder(config), options, clock, stamps=config.stamps, wait_s=config.wait_s
    )


def choose_t0(source: Source, hop_s: float) -> float:
    """Return the daemon's t0.

    Raises:
        ConfigError: the source's count bins do not fit into the hop.
    """
    bin_s = source.bin_s
    if bin_s is not None and (hop_s / bin_s < 0.999 or abs(hop_s / bin_s % 1.0 - 0.5) < 0.499):
        raise ConfigError(
            f"the source counts in bins of {bin_s * 1e3:g} ms, and the bundle's hop of "
            f"{hop_s * 1e3:g} ms is no whole multiple of that"
        )
    return source.origin_s()


def make_ring(
    config: InputConfig, manifest: Manifest, schedule: Schedule, kernels: Kernels
) -> SpikeRing:
    """Make the ring, with room for what the decoder looks back at."""
    n_kept = round(config.budget_spikes_per_s * max(RING_S, manifest.context_s + 1.0))
    hop_us = schedule.hop_us
    return SpikeRing(n_kept, round(manifest.bin_s * 1e6), hop_us, hop_us, kernels)


def make_admission(
    config: BeatConfig, manifest: Manifest, source: Source, schedule: Schedule, ring: SpikeRing
) -> Admission:
    """Make what admits arrivals to the ring."""
    return Admission(
        ring,
        schedule,
        SettleTime(config.settle_ms, manifest.hop_s, config.settle_most_ms * 1e-3),
        None if source.bin_s is None else round(source.bin_s * 1e6),
        make_alignment(source, schedule, config.cut),
    )


def make_alignment(source: Source, schedule: Schedule, cut: Cut) -> BlockAlignment | None:
    """Align the schedule with the source's blocks; None if it stands, as for counts."""
    if cut != "auto" or source.bin_s is not None:
        return None
    return BlockAlignment(schedule, source.listen())


def make_recorder(
    config: ServeConfig,
    schedule: Schedule,
    manifest: Manifest,
    journal: RunJournal,
    ring_capacity: int,
    source: Source,
    report: Report,
    *,
    run_id: str,
    follows: str,
    clock: Clock,
) -> RunRecorder | None:
    """Return what records the run; None if the config says no.

    Args:
        config: the daemon's.
        schedule: the beats'.
        manifest: of the bundle in service at the start.
        journal: what is noted there is recorded.
        ring_capacity: spikes that the ring keeps.
        source: the stream.
        report: called with (event, detail).
        run_id: this run's.
        follows: the run that hung before this one; "" for none.
        clock: the daemon's.
    """
    if not config.record.enabled:
        return None
    facts = {
        "run_id": run_id,
        "follows": follows,
        "spikeloop": importlib.metadata.version("spikeloop"),
        "machine": cpu_model(),
        "libraries": library_versions(),
        "t0_s": schedule.t0_s,
        "utc_of_t0": datetime.now(UTC).timestamp() - (clock.now() - schedule.t0_s),
        "hop_us": schedule.hop_us,
        "bin_us": round(manifest.bin_s * 1e6),
        "ring_capacity": ring_capacity,
        "source": str(source.inlet.description),
        "config": config.model_dump(mode="json"),
    }
    limits = RecordingLimits(
        round(config.record.limit_gb * 1e9), round(config.record.part_mb * 1e6)
    )
    folder = Path(config.record.folder)
    cores = config.realtime.cores
    behavior = config.record.behavior
    return RunRecorder(journal, folder, limits, facts, source.keys, clock, report, cores, behavior)


def make_token_cap(hop_s: float, report: Report) -> TokenCap:
    """Return a token cap that reports each change."""

    def changed(change: CapChange) -> None:
        detail: dict[str, Any] = {
            "token_cap": change.cap,
            "before": change.before,
            "why": change.why,
            "decode_ms": change.taken_s * 1e3,
            "limit_ms": change.limit_s * 1e3,
        }
        if change.before is None:
            detail["warning"] = _CAP_BEGAN
        report("token_cap", detail)

    return TokenCap(hop_s, changed)
