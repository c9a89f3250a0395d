"""The figure of a search: accuracy against the time of a step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Point(Protocol):
    """A trial."""

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
    """Draw every trial, the front, the budget, the default and what was chosen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    sound = [one for one in tried if not one.why]
    axes.scatter(
        [p.step_ms for p in sound], [p.r2 for p in sound], s=18, color="0.6", label="tried"
    )
    axes.step(
        [p.step_ms for p in front], [p.r2 for p in front], where="post", color="tab:blue",
        label="front",
    )  # fmt: skip
    for point in (one for one in sound if one.is_default):
        axes.plot(point.step_ms, point.r2, "s", color="tab:orange", label="the config's own sizes")
    if chosen is not None:
        axes.plot(chosen.step_ms, chosen.r2, "*", ms=14, color="tab:blue", label="chosen")
    axes.axvline(budget_ms, color="tab:red", ls="--", lw=1, label=f"budget, {budget_ms:g} ms")
    axes.set(
        xlabel="median step after a wait, ms", ylabel="R2 of the held-out part", xlim=(0, None)
    )
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)
