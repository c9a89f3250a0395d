"""`python -m benchmarks.driving`: targets a minute against seconds since the wizard was started."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

Option = typer.Option
BASE = Path(__file__).parents[2] / "configs" / "bundles" / "demo"
WAYS = ("driving", "before", "gradient")
"""With `[drive]`; without it; and as the wizard was before decoders were made while collecting."""
SCORED_S, RATED_S, BIN_S = 180.0, 240.0, 15.0
"""The area counts up to the first; the rate after it is taken up to the second."""


def run(
    out: Annotated[Path, Option(help="File of results, a line each; goes on with what is there.")],
    subject: Annotated[int, Option(help="Which simulated subject.")] = 1,
    days: Annotated[str, Option(help="Days of the subject; the array shifts on 25.")] = "25,22,28",
    seeds: Annotated[int, Option(help="How many seeds of noise and targets.")] = 8,
    base: Annotated[Path, Option(help="Yesterday's decoder.")] = BASE,
    told_only: Annotated[bool, Option("--told-only", help="Only tell what is there.")] = False,
) -> int:
    """Compare the wizard by which the subject drives at once with those of before."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    done = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    held = {(one["day"], one["seed"], one["way"]) for one in done}
    wanted = [(int(day), seed) for seed in range(seeds) for day in days.split(",")]
    for day, seed in [] if told_only else wanted:
        for way in WAYS:
            if (day, seed, way) in held:
                continue
            one = _lived(base, subject, day, seed, way)
            done.append(one)
            with out.open("a") as file:
                file.write(json.dumps(one) + "\n")
    sys.stdout.write(told(done))
    return 0


def _lived(base: Path, subject: int, day: int, seed: int, way: str) -> dict[str, Any]:
    from benchmarks.driving.morning import Takes, live
    from calibration.wizard.config import DriveSection
    from export.bundle import open_bundle

    drive = DriveSection(enabled=True) if way == "driving" else None
    morning = live(
        open_bundle(base), subject, day, 3000 + seed, drive=drive, seconds=RATED_S, takes=Takes(),
        way="gradient" if way == "gradient" else "closed-form",
    )  # fmt: skip
    return {"day": day, "seed": seed, "way": way, **morning.as_json()}


def told(done: list[dict[str, Any]]) -> str:
    """Return each way's rate over time, the targets of the first minutes, and the rate after."""
    lines = []
    edges_s = np.arange(0.0, RATED_S + 1.0, BIN_S)
    pairs = {(one["day"], one["seed"]) for one in done}
    ways = [way for way in WAYS if any(one["way"] == way for one in done)]
    pairs = {pair for pair in pairs if all(_of(done, pair, way) for way in ways)}
    for day in [*sorted({day for day, _ in pairs}), None]:
        chosen = [pair for pair in sorted(pairs) if day is None or pair[0] == day]
        lines.append(f"day {day}" if day is not None else "all days")
        areas = {}
        for way in ways:
            acquired = [np.array(_of(done, pair, way)["acquired_s"]) for pair in chosen]
            rates = [np.histogram(one, edges_s)[0] * 60.0 / BIN_S for one in acquired]
            area = np.array([np.count_nonzero(one < SCORED_S) for one in acquired])
            after = np.array([np.count_nonzero(one >= SCORED_S) for one in acquired])
            after = after * 60.0 / (RATED_S - SCORED_S)
            first = [_of(done, pair, way)["first_s"] for pair in chosen]
            areas[way] = area
            lines.append(
                f"  {way:8} n {len(chosen)}, targets in {SCORED_S:.0f} s {area.mean():.1f} "
                f"+-{_error(area):.1f}, then {after.mean():.1f} +-{_error(after):.1f} a minute, "
                f"today's drives from {np.median(first):.0f} s"
            )
            lines.append("    " + " ".join(f"{rate:4.0f}" for rate in np.mean(rates, axis=0)))
        for way in ways[1:]:
            share = areas[ways[0]].sum() / max(1, areas[way].sum())
            lines.append(f"  {share:.2f} times as many targets as {way}")
    return "\n".join(lines) + "\n"


def _of(done: list[dict[str, Any]], pair: tuple[int, int], way: str) -> dict[str, Any]:
    return next((one for one in done if (one["day"], one["seed"], one["way"]) == (*pair, way)), {})


def _error(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    app.command()(run)
    sys.exit(app(standalone_mode=False))
