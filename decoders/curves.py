"""Curves of a training as a picture. The only file here that imports matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure


def draw_curves(
    path: Path, loss: Sequence[float], scores: Sequence[tuple[int, Mapping[str, float]]]
) -> None:
    """Write loss per step, and R2 on the test part where it was computed.

    Args:
        path: PNG to write.
        loss: per step.
        scores: step, and mean score of each output.
    """
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(range(1, len(loss) + 1), loss, linewidth=0.6)
    left.set(xlabel="step", ylabel="training loss", yscale="log")
    names = sorted({name for _, score in scores for name in score})
    for name in names:
        steps = [step for step, score in scores if name in score]
        right.plot(steps, [score[name] for _, score in scores if name in score], "o-", label=name)
    right.set(xlabel="step", ylabel="score on the test part")
    if names:
        right.legend()
    figure.savefig(path, dpi=110)
