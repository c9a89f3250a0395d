"""`bench loop --figure`: where the time went, as a picture. The only file here with matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from service.bench.listener import FLOOR_OF, OURS, STAGES
from service.errors import ConfigError
from streams.messages import Float64s

SHOWN = (0.5, 0.99, 0.999)
WHOLE = ("waiting", *OURS)
COLORS = ("0.83", "#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#0072b2", "#d55e00")
"""Of `WHOLE`: told apart by those who see no red or green, too (Okabe and Ito)."""
FLOORS = {"zmq_hop": "a bare ZeroMQ hop", "lsl_hop": "a bare LSL hop"}


def require_matplotlib() -> None:
    """Fail before the measurement rather than after it.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as err:
        raise ConfigError(
            "a figure needs matplotlib: pip install 'spikeloop[train]', or leave --figure out"
        ) from err


def draw(
    path: Path, result: dict[str, Any], stages: dict[str, Float64s], end_to_end_ms: Float64s
) -> None:
    """Write the picture: where a decode's time goes, each stage's percentiles, and the tail.

    Args:
        path: of the file; its ending says the form.
        result: of `bench loop`.
        stages: per stage, (n,) milliseconds.
        end_to_end_ms: (m,) from the window's end to the subscriber.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8), layout="constrained", facecolor="white")
    axes = figure.subplot_mosaic(
        [["share", "share"], ["stages", "tail"]], width_ratios=(1.3, 1), height_ratios=(1, 2)
    )
    _draw_share(axes["share"], result, stages)
    _draw_stages(axes["stages"], result["floors_ms"], stages)
    _draw_tail(axes["tail"], result, end_to_end_ms)
    settings = result["settings"]
    figure.suptitle(
        f"cut = {settings['cut']}, {result['backend']}: {settings['units']:,} units, "
        f"{settings['spikes_per_s']:,.0f} spikes/s in blocks of {settings['block_ms']:g} ms, "
        f"{1e3 / result['hop_ms']:.0f} decodes/s for {settings['seconds']:.0f} s\n"
        f"{result['missed_beats']} of {result['beats']:,} beats missed "
        f"(bare timer {result['bare_timer_late']}), {result['spikes_late']} spikes late",
        fontsize=12,
    )
    figure.savefig(path, dpi=120)


def _draw_share(axes: Any, result: dict[str, Any], stages: dict[str, Float64s]) -> None:
    """Draw means, for they add up; and the floors under them on the same scale."""
    means_ms = [float(np.nanmean(stages[name])) for name in WHOLE]
    begins_ms = np.cumsum([0.0, *means_ms])
    for name, mean_ms, begin_ms, color in zip(WHOLE, means_ms, begins_ms, COLORS, strict=False):
        told = f"{name} {mean_ms:.2f} ({mean_ms / begins_ms[-1]:.0%})"
        axes.barh(0, mean_ms, left=begin_ms, color=color, edgecolor="white", label=told)
    floors = [(told, result["floors_ms"][name]["p50"]) for name, told in FLOORS.items()]
    for i, (_, floor_ms) in enumerate(floors, start=1):
        axes.barh(i, floor_ms, color="0.45", height=0.6)
        axes.annotate(f"{floor_ms:.2f}", (floor_ms, i), (4, -4), textcoords="offset points",
                      fontsize=10)  # fmt: skip
    axes.set_yticks(range(3), ["a decode (mean)", *(f"{told} (median)" for told, _ in floors)],
                    fontsize=10)  # fmt: skip
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds from the window's end to the client's hands", fontsize=10)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.legend(ncols=2, fontsize=10, loc="lower right")


def _draw_stages(axes: Any, floors: dict[str, Any], stages: dict[str, Float64s]) -> None:
    names = [name for name in STAGES if np.isfinite(stages[name]).any()]
    for i, name in enumerate(reversed(names)):
        values = stages[name][np.isfinite(stages[name])]
        p50, p99, p999 = np.maximum(np.quantile(values, SHOWN), 1e-3)
        axes.plot([p50, p999], [i, i], color="0.75", lw=6, solid_capstyle="butt", zorder=1)
        axes.plot([p50, p99], [i, i], color="tab:blue", lw=6, solid_capstyle="butt", zorder=2)
        axes.plot(p50, i, "o", color="black", ms=5, zorder=3)
        if name in FLOOR_OF:
            floor_ms = floors[FLOOR_OF[name]]["p50"]
            axes.plot([floor_ms] * 2, [i - 0.35, i + 0.35], color="tab:red", lw=2, zorder=4)
        axes.annotate(f"{p50:.3g} | {p99:.3g}", (p999, i), (7, -4), textcoords="offset points",
                      fontsize=9)  # fmt: skip
    told = [STAGES[name].replace(": ", ":\n", 1) for name in reversed(names)]
    axes.set_yticks(range(len(names)), told, fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(right=axes.get_xlim()[1] * 6)
    axes.set_xlabel(
        "milliseconds: median (dot), p99 (blue), p99.9 (grey), floor (red)", fontsize=10
    )
    axes.grid(axis="x", color="0.9")
    axes.set_title("each stage of a decode: median | p99", fontsize=11)


def _draw_tail(axes: Any, result: dict[str, Any], end_to_end_ms: Float64s) -> None:
    ordered = np.sort(end_to_end_ms)
    n_later = np.arange(len(ordered), 0, -1) / len(ordered)
    settle_ms = result["settle_ms"]
    axes.step(ordered, n_later, where="pre", color="tab:blue")
    lowest = 0.7 / len(ordered)
    axes.axvline(settle_ms, color="0.5", ls="--")
    axes.annotate(f"settle time {settle_ms:.2f} ms", (settle_ms, 1.2), (-4, 0), ha="right",
                  va="top", textcoords="offset points", fontsize=9, color="0.35")  # fmt: skip
    for q in SHOWN:
        at = float(np.quantile(ordered, q))
        axes.plot(at, 1 - q, "o", color="black", ms=4)
        axes.annotate(f"p{100 * q:g} {at:.2f}", (at, 1 - q), (6, 2), textcoords="offset points",
                      fontsize=9)  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(lowest, 1.5)
    axes.set_xlim(0.0, 1.1 * max(settle_ms, ordered[-1]))
    axes.set_xlabel("milliseconds after the window's end", fontsize=10)
    axes.set_ylabel("share of decodes received later", fontsize=10)
    axes.grid(color="0.9")
    axes.set_title("end to end, at the subscriber", fontsize=11)
