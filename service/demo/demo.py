"""The demo: subject and daemon as two processes, a third that listens, and how it went."""

from __future__ import annotations

import json
import os
import statistics
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from export.bundle import open_bundle
from export.shipped import bundle_path
from service.bench.loop import listen_beside_timer
from service.bench.rig import Rig, beside
from service.bench.screen import beats_missed, conclude, show
from service.demo.page import start_page
from service.demo.view import LiveView

SHIPPED_DEMO, DEFAULT_BACKEND = "shipped:demo", "auto"
TARGETS_PER_30_S = 8
LEAD_S, SMOOTHING = 0.1, 0.5
"""Decoding ahead makes up for part of the loop's delay; a little smoothing takes the jitter."""


def demo(
    *,
    seconds: float,
    as_json: bool,
    shuffle_units: bool,
    subject: int,
    day: int,
    bundle: str = SHIPPED_DEMO,
    backend: str = DEFAULT_BACKEND,
    delay_s: float = 0.0,
    record: Path | None = None,
    page: bool = False,
) -> int:
    """Close the loop for `seconds` and say how it went.

    Args:
        seconds: from the first decode on.
        as_json: one JSON object instead of a screen and a table.
        shuffle_units: the control: each unit's spikes under another unit's key.
        subject: seed of the subject.
        day: of the subject.
        bundle: the decoder.
        backend: that runs it.
        delay_s: how much later than their time the subject's spikes leave.
        record: a folder for the run's recording; None for none.
        page: show it in the browser; the address is printed.

    Returns:
        8 when the loop did not hold, else 0.
    """
    sys.setswitchinterval(1e-4)
    name = f"spikeloop-demo-{os.getpid()}"
    with Rig() as rig:
        endpoints = rig.serve("daemon", name, served(bundle, backend, record, name))
        endpoint = endpoints["decode"]
        told = f"the page is at {start_page(rig, endpoints, bundle)}" if page else ""
        if told:
            sys.stderr.write(told + "\n")
        view = None if as_json else LiveView(name, seconds, told)
        summary = rig.path / "subject.json"
        rig.start(
            "subject", "simulate", "--subject", str(subject), "--day", str(day), "--name", name,
            "--decodes", endpoint, "--delay-ms", str(delay_s * 1e3), "--summary", str(summary),
            *(["--shuffle-units"] if shuffle_units else []),
        )  # fmt: skip
        hop_s = open_bundle(bundle_path(bundle)).manifest.hop_s
        with beside(view.draw) if view else nullcontext():
            also = view.take if view else lambda decode: None
            heard = listen_beside_timer(rig, endpoint, hop_s, seconds, also)
        rig.end("subject")
        rig.end("daemon")
        result = _result(json.loads(summary.read_text()), heard.summary())
    show("spikeloop demo", result, as_json=as_json)
    return conclude(shortfalls(result, seconds), aloud=not as_json)


def shortfalls(result: dict[str, Any], seconds: float) -> list[str]:
    """Fewer than 8 targets per 30 s, or a beat less punctual than the machine."""
    acquired, wanted = result["targets_acquired"], TARGETS_PER_30_S * seconds / 30.0
    few = [f"{acquired} targets acquired of {wanted:.0f}"] if acquired < wanted else []
    return few + beats_missed(result)


def served(
    bundle: str, backend: str = DEFAULT_BACKEND, record: Path | None = None, name: str = ""
) -> dict[str, Any]:
    """The demo's config for the daemon, as `Rig.serve` takes it; `name` is the subject's."""
    recorded: dict[str, Any] = {}
    if record is not None:
        recorded = {"record.enabled": True, "record.folder": str(record)}
        recorded["record.behavior"] = [f"Position:{name}-cursor", f"Markers:{name}-markers"]
    return recorded | {
        "decoder.bundle": bundle,
        "decoder.backend": backend,
        "decoder.lead_s": LEAD_S,
        "shaping.smoothing": SMOOTHING,
    }


def _result(subject: dict[str, Any], loop: dict[str, Any]) -> dict[str, Any]:
    taken_s = subject["acquisition_s"]
    return {
        "targets_acquired": subject["targets_acquired"],
        "acquisition_s_median": statistics.median(taken_s) if taken_s else None,
        "r2_velocity": subject["r2_velocity"],
        "shuffle_units": subject["shuffle_units"],
        **loop,
    }
