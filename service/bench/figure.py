"""`bench loop --figure`: where the time went, as a picture. The only file here with matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from service.bench.listener import STAGES
from service.errors import ConfigError
from streams.messages import Float64s

SHOWN = (0.5, 0.99, 0.999)


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
    """Write the picture: each stage's percentiles, and how many decodes came how late.

    Args:
        path: of the file; its ending says the form.
        result: of `bench loop`.
        stages: per stage, (n,) milliseconds.
        end_to_end_ms: (m,) from the window's end to the subscriber.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _draw_stages(left, stages)
    _draw_tail(right, result, end_to_end_ms)
    settings = result["settings"]
    figure.suptitle(
        f"{settings['units']:,} units, {settings['spikes_per_s']:,.0f} spikes/s, "
        f"{1e3 / result['hop_ms']:.0f} decodes/s, {settings['seconds']:.0f} s: "
        f"{result['missed_beats']} of {result['beats']:,} beats missed "
        f"(bare timer {result['bare_timer_late']})",
        fontsize=11,
    )
    figure.savefig(path, dpi=130)


def _draw_stages(axes: Any, stages: dict[str, Float64s]) -> None:
    names = [name for name in STAGES if np.isfinite(stages[name]).any()]
    for i, name in enumerate(reversed(names)):
        values = stages[name][np.isfinite(stages[name])]
        p50, p99, p999 = np.maximum(np.quantile(values, SHOWN), 1e-3)
        axes.plot([p50, p999], [i, i], color="0.75", lw=5, solid_capstyle="butt", zorder=1)
        axes.plot([p50, p99], [i, i], color="tab:blue", lw=5, solid_capstyle="butt", zorder=2)
        axes.plot(p50, i, "o", color="black", ms=5, zorder=3)
        axes.annotate(f"{p50:.3g} | {p99:.3g}", (p999, i), (6, -3), textcoords="offset points",
                      fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(names)), [STAGES[name] for name in reversed(names)], fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(right=axes.get_xlim()[1] * 6)
    axes.set_xlabel("milliseconds: median (dot), to p99 (blue), to p99.9 (grey)")
    axes.grid(axis="x", color="0.9")
    axes.set_title("each stage of a decode", fontsize=10)


def _draw_tail(axes: Any, result: dict[str, Any], end_to_end_ms: Float64s) -> None:
    ordered = np.sort(end_to_end_ms)
    n_later = np.arange(len(ordered), 0, -1) / len(ordered)
    settle_ms = result["settle_ms"]
    axes.step(ordered, n_later, where="pre", color="tab:blue")
    axes.axvline(settle_ms, color="0.5", ls="--")
    lowest = 0.7 / len(ordered)
    axes.text(settle_ms, 1.3 * lowest, f" settle {settle_ms:.2f} ms", fontsize=8, color="0.4")
    axes.axvline(settle_ms + 2, color="tab:red", ls=":")
    axes.text(settle_ms + 2, 1.3, " settle + 2 ms", fontsize=8, color="tab:red")
    for q in (0.5, 0.99, 0.999):
        at = float(np.quantile(ordered, q))
        axes.plot(at, 1 - q, "o", color="black", ms=4)
        axes.annotate(f"p{100 * q:g} {at:.2f}", (at, 1 - q), (6, 2), textcoords="offset points",
                      fontsize=8)  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(lowest, 2)
    axes.set_xlim(max(0.0, settle_ms - 1), max(settle_ms + 3, ordered[-1] + 0.3))
    axes.set_xlabel("milliseconds after the window's end")
    axes.set_ylabel("share of decodes received later")
    axes.grid(color="0.9")
    axes.set_title("end to end, at the subscriber", fontsize=10)
