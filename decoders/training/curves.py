"""Training curves as a picture; matplotlib is imported here only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

SHOWN_S = 30.0


def draw_curves(
    path: Path, loss: Sequence[float], scores: Sequence[tuple[int, Mapping[str, float]]]
) -> None:
    """Write loss per step, and R2 on the test part where it was computed.

    Args:
        path: PNG to write.
        loss: per step.
        scores: step, and each output's mean score.
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


def draw_decodes(
    path: Path, panels: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]]
) -> None:
    """Write decoded against actual over the first seconds.

    Args:
        path: PNG to write.
        panels: per output its label, time (n,) s, decoded (n, dims) and actual (n, dims).
    """
    rows = [(label, t_s, d, a, i) for label, t_s, d, a in panels for i in range(d.shape[1])]
    figure = Figure(figsize=(9, 1.8 * max(1, len(rows))), layout="constrained")
    axes = figure.subplots(max(1, len(rows)), 1, squeeze=False)[:, 0]
    for axis, (label, t_s, decoded, actual, i) in zip(axes, rows, strict=False):
        shown = t_s <= t_s[0] + SHOWN_S
        axis.plot(t_s[shown], actual[shown, i], color="0.6", label="actual")
        axis.plot(t_s[shown], decoded[shown, i], linewidth=0.9, label="decoded")
        axis.set(ylabel=f"{label} {i + 1}", xlabel="time (s)")
        axis.legend(loc="upper right", fontsize="small")
    figure.savefig(path, dpi=110)
