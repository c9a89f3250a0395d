"""`spikeloop bench loop`: sender, daemon, subscriber and a bare timer in processes of their own."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.bundle import open_bundle
from export.random_bundles.derived import derive_bundle
from export.shipped import bundle_path
from service.bench import machine
from service.bench.bare_hop import floors_ms
from service.bench.figure import draw, require_matplotlib
from service.bench.listener import FLOOR_OF, TOPICS, Listener, runs, stages_ms, summary
from service.bench.rig import Rig
from service.bench.screen import beats_missed, conclude, memory_grown, show, spikes_dropped
from service.bench.sender import unit_keys
from service.short_slices import wake_soon
from service.telemetry.percentiles import percentiles
from streams.wire.packed import Format

DECODE_BYTES = 600
"""Size of a decode of two numbers in JSON."""
RECORDED_GB = 1.0
"""Recordings of a soak of hours lie among the temporary files: no more than that."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings for `bench loop`.

    Attributes:
        n_units: units sent.
        rate_hz: spikes per second of each.
        hop_s: between beats.
        seconds: how long to measure.
        block_s: how the sender blocks its spikes.
        base: bundle whose graph is used; None for the shipped one.
        priority: SCHED_FIFO priority asked for the beat; 0 for none.
        cut: `[beat] cut` of the daemon.
        backend: that decodes.
        delay_s: how much later than their end the sender's blocks leave.
        form: `[output] format` of the daemon.
        record: the run is recorded, to a folder that goes with the measurement.
    """

    n_units: int
    rate_hz: float
    hop_s: float
    seconds: float
    block_s: float
    base: str | None = None
    priority: int = 50
    cut: str = "auto"
    backend: str = "auto"
    delay_s: float = 0.0
    form: Format = "json"
    record: bool = True

    def as_dict(self) -> dict[str, Any]:
        """For the result."""
        return {
            "units": self.n_units,
            "spikes_per_s": self.n_units * self.rate_hz,
            "seconds": self.seconds,
            "block_ms": self.block_s * 1e3,
            "delay_ms": self.delay_s * 1e3,
            "bundle": self.base or "shipped:demo",
            "priority": self.priority,
            "cut": self.cut,
            "backend": self.backend,
            "format": self.form,
            "record": self.record,
        }


def bench_loop(settings: Settings, *, figure: Path | None, as_json: bool) -> int:
    """Measure the loop over a generated bundle, and print what came out.

    Args:
        settings: what to measure.
        figure: a picture to write; None for none.
        as_json: one JSON object instead of a table.

    Returns:
        8 when spikes were dropped, beats missed beyond the bare timer's, or memory grew; else 0.
    """
    if figure is not None:
        require_matplotlib()
    gc.collect()
    gc.freeze()
    before = machine.processor_ticks()
    stream, hop_s, seconds = f"spikeloop-bench-{os.getpid()}", settings.hop_s, settings.seconds
    with Rig() as rig:
        endpoint = start_daemon(rig, "daemon", stream, settings)
        start_sender(rig, stream, settings, seconds=seconds + 120)
        usage = machine.Usage(rig.pids() | {"subscriber": os.getpid()})
        topics = (*TOPICS, "timing")
        listener = listen_beside_timer(rig, endpoint, hop_s, seconds, usage.sample_after, topics)
        processes = usage.summary()
        rig.stop("daemon")
        floors = floors_ms(rig, hop_s=hop_s, n_bytes=DECODE_BYTES, priority=settings.priority)
    stages = stages_ms(listener)
    result = listener.summary() | summary(stages) | runs(listener)
    result["floors_ms"] = {name: percentiles(of.tolist()) for name, of in floors.items()}
    result |= {"settings": settings.as_dict(), "processes": processes}
    result["machine"] = machine.describe(before)
    if figure is not None:
        draw(figure, result, stages, listener.end_to_end_ms())
    show("bench loop", result, as_json=as_json, floor_of=FLOOR_OF)
    fell_short = [*spikes_dropped(result), *beats_missed(result), *memory_grown(result)]
    return conclude(fell_short, aloud=not as_json)


def start_daemon(rig: Rig, name: str, stream: str, settings: Settings) -> str:
    """Start a daemon for a stream that the sender sends; where its decodes leave.

    Args:
        rig: where it runs.
        name: of the process.
        stream: name of the LSL stream.
        settings: what is measured.
    """
    bundle = rig.path / "bundle"
    if not bundle.exists():
        derive_bundle(
            open_bundle(bundle_path(settings.base or "shipped:demo")),
            bundle,
            unit_keys=unit_keys(settings.n_units),
            hop_s=settings.hop_s,
            bin_s=settings.hop_s,
            name="generated",
            seed=0,
        )
    config = {
        "input.budget_spikes_per_s": max(50_000, round(2 * settings.n_units * settings.rate_hz)),
        "decoder.bundle": str(bundle),
        "decoder.backend": settings.backend,
        "beat.cut": settings.cut,
        "output.format": settings.form,
        "realtime.priority": settings.priority,
        "record.enabled": settings.record,
        "record.folder": str(rig.path / "recordings"),
        "record.limit_gb": RECORDED_GB,
    }
    endpoint: str = rig.serve(name, stream, config)["decode"]
    return endpoint


def start_sender(
    rig: Rig, stream: str, settings: Settings, seconds: float, priority: int = 0
) -> None:
    """Start the process that sends the spikes for `seconds`, at a real-time priority or none."""
    rig.start(
        "sender", "bench", "sender", "--name", stream, "--units", str(settings.n_units), "--rate",
        str(settings.rate_hz), "--block-ms", str(settings.block_s * 1e3),
        "--delay-ms", str(settings.delay_s * 1e3), "--seconds", str(seconds),
        "--priority", str(priority),
    )  # fmt: skip


def start_timer(rig: Rig, hop_s: float) -> None:
    """Start the bare timer; what it says at its end is for `rig.end("timer")`."""
    rig.start("timer", "bench", "timer", "--hop-ms", str(hop_s * 1e3), "--seconds", "1000000")


def listen_beside_timer(
    rig: Rig,
    endpoint: str,
    hop_s: float,
    seconds: float,
    also: Callable[[dict[str, Any] | None], None] = lambda decode: None,
    topics: Sequence[str] = TOPICS,
) -> Listener:
    """Listen for `seconds` while a bare timer of the same hop runs beside.

    Args:
        rig: with the processes `daemon` and, from the first decode on, `timer`.
        endpoint: the daemon's decodes.
        hop_s: between beats.
        seconds: how long.
        also: called with each decode, and with None when none came for a while.
        topics: what to listen to.

    Returns:
        What was received; `bare_timer` filled in.
    """
    listener = Listener()

    def each(decode: dict[str, Any] | None) -> None:
        rig.check_all()
        if len(listener.decodes) == 1 and decode is not None:
            wake_soon()
            start_timer(rig, hop_s)
        also(decode)

    listener.listen(endpoint, seconds, each, topics)
    listener.bare_timer = json.loads(rig.end("timer"))
    return listener
