"""The figure of a search: accuracy against the time of a step."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Point(Protocol):
    """A size by one runner."""

    runner: str
    r2: float
    step_ms: float
    why: str
    is_default: bool


def draw_front(
    path: Path,
    tried: Sequence[Point],
    front: Sequence[Point],
    chosen: Point | None,
    budget_ms: float,
) -> None:
    """Draw what was tried, a mark for each runner, the front, the budget, default and chosen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    sound = [one for one in tried if not one.why]
    runners = sorted({one.runner for one in sound})
    for runner, marker in zip(runners, itertools.cycle("o^vDPX"), strict=False):
        held = [one for one in sound if one.runner == runner]
        x, y = [p.step_ms for p in held], [p.r2 for p in held]
        axes.scatter(x, y, s=22, marker=marker, alpha=0.6, lw=0, label=_named(runner))
    axes.step(
        [p.step_ms for p in front], [p.r2 for p in front], where="post", color="0.3", lw=1,
        label="front",
    )  # fmt: skip
    for point in (one for one in sound if one.is_default):
        axes.plot(point.step_ms, point.r2, "s", ms=9, mfc="none", mec="k", label="the config's own")
    if chosen is not None:
        axes.plot(chosen.step_ms, chosen.r2, "*", ms=16, mfc="none", mec="k", label="chosen")
    axes.axvline(budget_ms, color="tab:red", ls="--", lw=1, label=f"budget, {budget_ms:g} ms")
    axes.set(
        xlabel="median step after a wait, ms", ylabel="R2 of the held-out part", xlim=(0, None)
    )
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


def _named(runner: str) -> str:
    """Say backend and precision."""
    name, _, precision = runner.partition(":")
    return f"{name}, {precision or 'fp32'}"
