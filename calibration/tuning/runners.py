"""What runs a trained size: every backend and precision that this machine has, judged and timed.

A size costs a training, a precision only seconds: so each size is run by all of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from calibration.choices import choice_of, split_of
from calibration.errors import CalibrationError
from calibration.precision_gate import PrecisionGate
from export.backends.table import Backend, parse_choice
from export.bundle import DecoderBundle, open_bundle
from export.choice.auto import considered
from export.choice.gate import open_one
from export.choice.machine import gpu_name
from export.choice.paced import time_in_turn
from export.engines.build import build
from export.errors import ExportError
from streams.sessions.reading import read_session

REDUCED = {
    "onnxruntime-cpu": ("fp16",),
    "onnxruntime-cuda": ("fp16", "bf16"),
    "tensorrt": ("fp16", "bf16"),
}
"""Precisions below fp32 that `spikeloop build` makes, by backend."""
BUILT = ("onnxruntime-cuda", "tensorrt")
"""Backends that need a build in fp32, too."""
N_ROUNDS = 3


@dataclass(slots=True)
class Ran:
    """A runner of one size, `NAME` or `NAME:PRECISION`.

    Attributes:
        runner: its name.
        cost: mean R2 that its precision loses on the held-out part; 0 in fp32.
        step_ms: median step after a wait.
        why: what refused it, "" for nothing.
    """

    runner: str
    cost: float = 0.0
    step_ms: float = float("nan")
    why: str = ""


def runners_here() -> tuple[str, ...]:
    """Name what `backend = "auto"` would consider on this machine, and its lower precisions."""
    names = considered(gpu_name())
    return tuple(
        one for name in names for one in (name, *(f"{name}:{p}" for p in REDUCED.get(name, ())))
    )


def judge(bundle: DecoderBundle, runners: Sequence[str], recordings: Sequence[Path]) -> list[Ran]:
    """Build what must be built, hold each runner to its gates, and time all of them in turn.

    A precision below fp32 has to lose at most what `spikeloop build` allows.

    Args:
        bundle: of a trained size; builds are kept in its folder.
        runners: `NAME` or `NAME:PRECISION`.
        recordings: one of them is of the bundle's session.

    Returns:
        One for each runner, with `why` where it was refused.
    """
    gate: PrecisionGate | None = None
    ran: list[Ran] = []
    opened: dict[str, Backend] = {}
    for one in map(Ran, runners):
        ran.append(one)
        try:
            name, precision = parse_choice(one.runner)
            if precision != "fp32":
                gate = gate or _gate(bundle, recordings)
            if precision != "fp32" or name in BUILT:
                held = gate.judge if gate and precision != "fp32" else None
                made = build(bundle, name, precision, judge=held, with_bundle=True)
                one.cost = _mean_loss(made.record["verdict"])
            opened[one.runner] = open_one(bundle, one.runner).backend
        except (ExportError, CalibrationError) as err:
            one.why = str(err)
    taken_s = time_in_turn(bundle, opened)
    for one in ran:
        one.step_ms = taken_s.get(one.runner, float("nan")) * 1e3
    return ran


def time_again(sizes: Sequence[tuple[Path, Sequence[str]]]) -> list[dict[str, float]]:
    """Time runners that were judged, size after size and round after round, so that all wait alike.

    Args:
        sizes: a bundle's folder each, and its runners.

    Returns:
        Per size the median over rounds of each runner's step, ms; without those that open no more.
    """
    opened = [(bundle := open_bundle(path), _openable(bundle, names)) for path, names in sizes]
    rounds = [[time_in_turn(*size) for size in opened] for _ in range(N_ROUNDS)]
    return [
        {name: median(one[i][name] for one in rounds) * 1e3 for name in held}
        for i, (_, held) in enumerate(opened)
    ]


def _openable(bundle: DecoderBundle, runners: Sequence[str]) -> dict[str, Backend]:
    opened: dict[str, Backend] = {}
    for name in runners:
        with contextlib.suppress(ExportError):
            opened[name] = open_one(bundle, name).backend
    return opened


def _gate(bundle: DecoderBundle, recordings: Sequence[Path]) -> PrecisionGate:
    for path in reversed(recordings):
        if read_session(path, choice_of(bundle)).id == bundle.manifest.session:
            return PrecisionGate(bundle, path, split_of(bundle, path))
    raise CalibrationError(f"no recording of {bundle.manifest.session} to judge a precision on")


def _mean_loss(verdict: dict[str, Any]) -> float:
    """Mean over outputs and dimensions; a precision never counts as better than fp32."""
    pairs: list[tuple[float, float]] = [
        (before, after)
        for name, held in verdict.get("r2_fp32", {}).items()
        for before, after in zip(held, verdict["r2"][name], strict=True)
    ]
    return max(0.0, sum(before - after for before, after in pairs) / max(1, len(pairs)))
