"""`spikeloop demo --recalibrate`: a day on which yesterday's decoder fails, and its calibration.

Real processes and sockets: the simulated subject, the daemon, the wizard unattended, by which the
subject drives while trials are collected. Then the same daemon with a reference: the same base
decoder, adapted to minutes of that day.
"""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from export.bundle import open_bundle
from export.shipped import bundle_path
from service.bench.listener import Listener
from service.bench.loop import start_timer
from service.bench.rig import Rig, beside, write_config
from service.bench.screen import conclude, show
from service.client import swap
from service.demo.demo import DEFAULT_BACKEND, served
from service.demo.driven import DrivenTargets, acquired
from service.demo.page import start_page
from service.errors import ServiceError
from streams.clock import MonotonicClock
from streams.lsl.inlets import find_inlet
from streams.wire.client import DaemonClient

SETTLING_S = 5.0
"""A user needs a moment with another decoder before the rate is that of the decoder."""
REFERENCE_MINUTES = 6.0
COLLECT_MOST_S = 180.0
"""The subject drives meanwhile; whoever watches has seen it by then."""
WITHIN = 0.1
WITHIN_S = 60.0
"""From the wizard's start until the rate is within that of the reference."""


def recalibrate(
    *,
    seconds: float,
    as_json: bool,
    subject: int,
    day: int,
    bundle: str,
    backend: str = DEFAULT_BACKEND,
    record: Path | None = None,
    page: bool = False,
) -> int:
    """Fail with yesterday's decoder, calibrate, and compare with a reference.

    Args:
        seconds: that each acquisition rate is measured for.
        as_json: one JSON object instead of a table.
        subject: seed of the subject.
        day: on which the decoder fails.
        bundle: yesterday's decoder.
        backend: that runs it.
        record: a folder for the run's recording; None for none.
        page: show it in the browser; the address is printed.

    Returns:
        8 when the rate did not come within 10 % of the reference's, or a beat or message was lost.
    """
    sys.setswitchinterval(1e-4)
    note = Console(stderr=True, quiet=as_json)
    name = f"spikeloop-recalibrate-{os.getpid()}"
    with Rig() as rig:
        endpoints = rig.serve("daemon", name, served(bundle, backend, record, name))
        if page:
            sys.stderr.write(f"the page is at {start_page(rig, endpoints, bundle)}\n")
        # A record is made again by the decoders that it names.
        folder = rig.path if record is None else record.resolve() / name
        today = _Day(rig, name, endpoints["control"], str(subject), str(day), bundle, folder)
        result = _run(today, endpoints["decode"], note, seconds)
    show("spikeloop demo --recalibrate", result, as_json=as_json)
    return conclude(shortfalls(result), aloud=not as_json)


def shortfalls(result: dict[str, Any]) -> list[str]:
    """Over 10 % below the reference, no better than before, or something lost on the way."""
    before, after, reference = (
        result[f"acquisition_per_min_{when}"] for when in ("before", "after", "reference")
    )
    found = []
    if after < (1.0 - WITHIN) * reference:
        found.append(f"{after:.1f} targets a minute, {1 - WITHIN:.0%} of {reference:.1f} wanted")
    from_s = result["at_reference_from_s"]
    if from_s is None or from_s > WITHIN_S:
        when = "never" if from_s is None else f"{from_s:.0f} s after the wizard's start"
        found.append(f"at {1 - WITHIN:.0%} of the reference {when}, {WITHIN_S:.0f} s wanted")
    if after <= before:
        found.append(f"{after:.1f} targets a minute, no more than the {before:.1f} of before")
    if result["skipped_beats"]:
        late = result["bare_timer_late"]
        found.append(f"{result['skipped_beats']} beats skipped, a bare timer was late for {late}")
    if result["lost_messages"]:
        found.append(f"{result['lost_messages']} messages lost")
    return found


@dataclass(frozen=True, slots=True)
class _Day:
    """What everything of the day is done with.

    Attributes:
        rig: the processes.
        name: the spikes' stream; those of cursor and markers begin like it.
        control: the daemon's.
        subject, day: of the subject.
        bundle: yesterday's decoder.
        folder: where decoders of the day are laid.
    """

    rig: Rig
    name: str
    control: str
    subject: str
    day: str
    bundle: str
    folder: Path


def _run(today: _Day, decodes: str, note: Console, seconds: float) -> dict[str, Any]:
    rig, name, heard = today.rig, today.name, Listener()
    start_timer(rig, open_bundle(bundle_path(today.bundle)).manifest.hop_s)
    rig.start(
        "subject", "simulate", "--subject", today.subject, "--day", today.day, "--name", name,
        "--decodes", decodes,
    )  # fmt: skip
    with beside(lambda ending: heard.listen(decodes, math.inf, ending=ending)):
        note.print("yesterday's decoder ...")
        before = _rate_per_min(rig, name, seconds)
        note.print(f"{before:.1f} targets a minute; calibrating ...")
        t_begun_s, driven = MonotonicClock().now(), DrivenTargets(name, today.control)
        with beside(driven.listen):
            told = _calibrate(today)
        after = _rate_per_min(rig, name, seconds)
        note.print(f"{after:.1f} targets a minute; making the reference ...")
        _serve_reference(today)
        reference = _rate_per_min(rig, name, seconds)
        note.print(f"reference: {reference:.1f} targets a minute")
    rig.end("subject")
    rig.end("daemon")
    timer = json.loads(rig.end("timer"))
    from_s = driven.reaches((1.0 - WITHIN) * reference, t_begun_s)
    n_beats, n_sent = (1 + heard.last[field] - heard.first[field] for field in ("beat", "seq"))
    return {
        "acquisition_per_min_before": before,
        "acquisition_per_min_after": after,
        "acquisition_per_min_reference": reference,
        "driving_from_s": driven.since(t_begun_s),
        "at_reference_from_s": from_s,
        "assisted_then": None if from_s is None else driven.assistance(from_s, t_begun_s),
        "swaps_of_tables": driven.n_swaps,
        "missed_beats": int(heard.decodes["late"].sum()) + n_beats - n_sent,
        "skipped_beats": n_beats - n_sent,
        "bare_timer_late": timer["missed"],
        "lost_messages": n_sent - len(heard.decodes),
        "collect_s": told["collect_s"],
        "adapt_s": told["adapt_s"],
        "total_s": told["total_s"],
        "r2_before": told["r2"]["yesterday"],
        "r2_after": told["r2"]["today"],
    }


def _rate_per_min(rig: Rig, name: str, seconds: float) -> float:
    """Targets acquired a minute by the subject's own stream, after a moment to settle."""
    clock = MonotonicClock()
    inlet = find_inlet("Position", name=f"{name}-cursor", timeout_s=30.0)
    inlet.open()
    counts: list[tuple[float, float]] = []
    t_begin_s = clock.now() + SETTLING_S
    while not counts or counts[-1][0] < t_begin_s + seconds:
        rig.check("subject")
        rig.check("daemon")
        samples, stamps = inlet.pull(0.2)
        counts += [
            (float(t_s), acquired(row))
            for row, t_s in zip(samples, stamps, strict=True)
            if t_s >= t_begin_s
        ]
    inlet.close()
    (t_first_s, n_first), (t_last_s, n_last) = counts[0], counts[-1]
    return 60.0 * (n_last - n_first) / (t_last_s - t_first_s)


def _calibrate(today: _Day) -> dict[str, Any]:
    """The wizard, unattended; what it says at the end."""
    config = today.rig.path / "calibrate.toml"
    keys = {
        "calibration.subject": f"sim-{today.subject}",
        "calibration.folder": f"{today.folder}/calibrations",
        "calibration.registry": f"{today.folder}/bundles",
        "calibration.base": today.bundle,
        "spikes.name": today.name,
        "markers.name": f"{today.name}-markers",
        "behavior.name": f"{today.name}-cursor",
        "deploy.control": today.control,
        "drive.enabled": True,
        "collect.most_s": COLLECT_MOST_S,
    }
    write_config(config, keys)
    today.rig.start("wizard", "calibrate", str(config), "--auto", "--json")
    told: dict[str, Any] = json.loads(today.rig.finish("wizard"))
    return told


def _serve_reference(today: _Day) -> None:
    """Adapt the base to minutes of the day, and put that in service."""
    session, reference = today.rig.path / "reference.nwb", today.folder / "reference"
    today.rig.start(
        "session", "simulate", "--subject", today.subject, "--day", today.day, "--seed", "1",
        "--task", "random", "--minutes", str(REFERENCE_MINUTES), "--write", str(session),
    )  # fmt: skip
    today.rig.finish("session")
    base = bundle_path(today.bundle)
    today.rig.start(
        "reference", "adapt", str(base), str(session), "--seconds", "1e6", "--test", "last:0.1",
        "--same-array", "-o", str(reference),
    )  # fmt: skip
    today.rig.finish("reference")
    refused = swap(
        DaemonClient(today.control), reference, send=False, shadow_s=1.0, hold=False,
        tell=lambda _: None,
    )  # fmt: skip
    if refused:
        raise ServiceError(f"the daemon refused the reference: {refused}")
