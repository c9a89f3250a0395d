"""Recordings of other people's rigs, and what the wizard's preflight says of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calibration.wizard.config import CalibrateConfig
from calibration.wizard.recording import RecorderStatus
from calibration.wizard.results import Finding
from calibration.wizard.run import CalibrationRun, Progress
from calibration.wizard.steps.preflight import judge
from calibration.wizard.ui import UnattendedUI
from export.bundle import open_bundle
from streams.clock import ManualClock
from streams.sessions.xdf import chunks
from streams.sessions.xdf.chunks import frame
from streams.sessions.xdf.reading import read_recording
from tests.streams.test_recording_xdf import HEADER

DEMO = Path(__file__).parents[2] / "configs" / "bundles" / "demo"
T0_S = 5000.0
SECONDS = 20.0
TRIAL_S = 1.0
Rows = Sequence[Sequence[object]]


def header(name: str, kind: str, fmt: str, labels: Sequence[str]) -> bytes:
    channels = "".join(
        f"<channel><label>{label}</label><unit>cm</unit></channel>" for label in labels
    )
    filled = HEADER.format(name=name, kind=kind, n=len(labels), fmt=fmt, channels=channels)
    return filled.encode()


def trial_markers() -> Rows:
    """A start at every second, and a stop 0.8 s later, in turn."""
    n = round(SECONDS / TRIAL_S)
    pairs = ((f"trial_start i={i} x=1 y=0", f"trial_stop i={i}") for i in range(n))
    return [[text] for pair in pairs for text in pair]


def write_rig(
    path: Path,
    *,
    labels: Sequence[str] = ("cursor_x", "cursor_y"),
    positions: np.ndarray | None = None,
    markers: Rows | None = None,
    marker_format: str = "string",
    spikes_away: tuple[float, float] = (0.0, 0.0),
    position_shift_s: float = 0.0,
    spike_labels: Sequence[str] = ("channel", "unit"),
) -> Path:
    """Spikes of the demo's first units, a cursor in a circle at 100 Hz, and markers."""
    rng = np.random.default_rng(0)
    spike_s = np.sort(rng.uniform(0.0, SECONDS, round(500 * SECONDS)))
    away = (spike_s > spikes_away[0]) & (spike_s < spikes_away[1])
    spike_s = spike_s[~away]
    columns = [rng.integers(1, 30, len(spike_s)), np.ones(len(spike_s)), -3 * np.ones(len(spike_s))]
    spikes = np.stack(columns[: len(spike_labels)], axis=1)
    at_s = np.arange(0.0, SECONDS, 0.01)
    if positions is None:
        positions = 5.0 * np.stack([np.cos(at_s), np.sin(at_s)], axis=1)
    rows = trial_markers() if markers is None else markers
    marker_s = 0.05 + np.arange(len(rows)) // 2 * TRIAL_S + np.arange(len(rows)) % 2 * 0.8
    texts = np.array([[_sent(value) for value in row] for row in rows], object)
    marked = texts if marker_format == "string" else texts.astype(chunks.NUMBERS[marker_format])
    sent = (
        ("n", "Spikes", "int32", spike_labels, spikes, spike_s),
        ("m", "Markers", marker_format, ("marker",) * len(rows[0]), marked, marker_s),
        ("c", "Position", "float32", labels, positions, at_s + position_shift_s),
    )
    parts = [chunks.file_header("here", "2026-03-04T05:06:07+00:00")]
    for i, (name, kind, fmt, named, _, _) in enumerate(sent, start=1):
        parts.append(frame(chunks.STREAM_HEADER, header(name, kind, fmt, named), i))
    for i, (_, _, fmt, _, values, t_s) in enumerate(sent, start=1):
        parts.append(frame(chunks.SAMPLES, chunks.samples(values, T0_S + t_s, fmt), i))
    path.write_bytes(b"".join(parts))
    return path


def _sent(value: object) -> object:
    return value.encode() if isinstance(value, str) else value


def run_of(folder: Path, **sections: dict[str, Any]) -> CalibrationRun:
    """An unattended calibration from the demo's decoder."""
    chosen = {"calibration": {"base": str(DEMO)}, "deploy": {"control": ""}} | sections
    config = CalibrateConfig.model_validate(chosen)
    clock = ManualClock()
    told: list[str] = []
    progress, ui = Progress(folder, resume=False), UnattendedUI(clock, told.append)
    return CalibrationRun(config, progress, ui, clock, True)


def judged(folder: Path, path: Path, **sections: dict[str, Any]) -> dict[str, Finding]:
    """What the preflight finds in a recording, by what it is."""
    check = {"collect": {"check_s": SECONDS}}
    run = run_of(folder, **(check | sections))
    findings = judge(run, open_bundle(DEMO), read_recording(path), RecorderStatus(streams={}))
    run.progress.close()
    return {one.what: one for one in findings}
