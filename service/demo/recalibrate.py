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
from pathlib import Path
from typing import Any

from rich.console import Console

from export.bundle import open_bundle
from export.shipped import bundle_path
from service.bench.listener import Listener
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
        result = _run(rig, note, seconds, (subject, day), bundle, name, endpoints)
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


def _run(
    rig: Rig,
    note: Console,
    seconds: float,
    who: tuple[int, int],
    bundle: str,
    name: str,
    endpoints: dict[str, Any],
) -> dict[str, Any]:
    heard = Listener()
    subject, day = (str(one) for one in who)
    hop_s = open_bundle(bundle_path(bundle)).manifest.hop_s
    rig.start("timer", "bench", "timer", "--hop-ms", str(hop_s * 1e3), "--seconds", "1000000")
    rig.start(
        "subject", "simulate", "--subject", subject, "--day", day, "--name", name,
        "--decodes", endpoints["decode"],
    )  # fmt: skip
    with beside(lambda ending: heard.listen(endpoints["decode"], math.inf, ending=ending)):
        note.print("yesterday's decoder ...")
        before = _rate_per_min(rig, name, seconds)
        note.print(f"{before:.1f} targets a minute; calibrating ...")
        t_begun_s, driven = MonotonicClock().now(), DrivenTargets(name, endpoints["control"])
        with beside(driven.listen):
            told = _calibrate(rig, name, subject, endpoints["control"], bundle)
        after = _rate_per_min(rig, name, seconds)
        note.print(f"{after:.1f} targets a minute; making the reference ...")
        _serve_reference(rig, subject, day, endpoints["control"], bundle)
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


def _calibrate(rig: Rig, name: str, subject: str, control: str, bundle: str) -> dict[str, Any]:
    """The wizard, unattended; what it says at the end."""
    config = rig.path / "calibrate.toml"
    keys = {
        "calibration.subject": f"sim-{subject}",
        "calibration.folder": f"{rig.path}/calibrations",
        "calibration.registry": f"{rig.path}/bundles",
        "calibration.base": bundle,
        "spikes.name": name,
        "markers.name": f"{name}-markers",
        "behavior.name": f"{name}-cursor",
        "deploy.control": control,
        "drive.enabled": True,
        "collect.most_s": COLLECT_MOST_S,
    }
    write_config(config, keys)
    rig.start("wizard", "calibrate", str(config), "--auto", "--json")
    told: dict[str, Any] = json.loads(rig.finish("wizard"))
    return told


def _serve_reference(rig: Rig, subject: str, day: str, control: str, bundle: str) -> None:
    """Adapt the base to minutes of the day, and put that in service."""
    session, reference = rig.path / "reference.nwb", rig.path / "reference"
    rig.start(
        "session", "simulate", "--subject", subject, "--day", day, "--seed", "1", "--task",
        "random", "--minutes", str(REFERENCE_MINUTES), "--write", str(session),
    )  # fmt: skip
    rig.finish("session")
    base = bundle_path(bundle)
    rig.start(
        "reference", "adapt", str(base), str(session), "--seconds", "1e6", "--test", "last:0.1",
        "--same-array", "-o", str(reference),
    )  # fmt: skip
    rig.finish("reference")
    refused = swap(
        DaemonClient(control), reference, send=False, shadow_s=1.0, hold=False, tell=lambda _: None
    )
    if refused:
        raise ServiceError(f"the daemon refused the reference: {refused}")
