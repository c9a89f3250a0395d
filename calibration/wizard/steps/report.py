"""Step 5: one HTML file: what was collected, how good the decoder is, what was decided and why."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from rich.text import Text

from calibration.registry import STORE
from calibration.wizard.behavior import SECTORS
from calibration.wizard.results import (
    CollectResult,
    DecoderScore,
    LearningPoint,
    ReportResult,
    VerifyResult,
    needed,
)
from calibration.wizard.run import CalibrationRun
from calibration.wizard.steps.verify import NAMES, speed_line
from calibration.wizard.ui import Page
from calibration.wizard.units import UnitTuning, fit_tuning
from export.bundle import open_bundle
from export.signing.signer import signer_of
from streams.files import write_whole
from streams.messages import Float64s
from streams.sessions.reading import read_session

STEP = "report"
FILE = "calibration.html"
TEMPLATE = "report.html.j2"
# While the subject drove, "yesterday" is the decoder of the open loop.
DRIVEN_NAMES = NAMES | {"today": "learnt from driving too", "yesterday": "of the open loop alone"}
HEALTH = {"ok": "as before", "changed": "changed", "new": "new", "silent": "silent"}
TODAY, YESTERDAY, OTHER, SOFT = "#0a7d55", "#c2631b", "#3a66b5", "#b9c2cc"
INK, WARN, BAD = "#1d2733", "#b06f00", "#b3261e"
SCORE_COLOURS = (TODAY, YESTERDAY, OTHER, SOFT)
TRACES = {  # colour, width, label
    "actual": (INK, 1.8, "actual"),
    "yesterday": (YESTERDAY, 0.8, "yesterday's"),
    "today": (TODAY, 1.3, "today's"),
}
UNIT_COLOURS = {"ok": TODAY, "new": OTHER, "changed": WARN, "silent": BAD}
WIDTH_IN = 8.6
SHOWN_S = 12.0
# R2 has no lower bound; worse than this is shown as this.
LEAST_R2 = -1.5
# More names would cover each other.
NAMED_UNITS = 8
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: smaller, and in the reader's font
    "svg.hashsalt": "spikeloop",  # the same data give the same bytes
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e8ee",
    "legend.frameon": False,
}


def step(run: CalibrationRun) -> ReportResult:
    """Write the report, and say where it is."""
    path = write(run)
    text = f"{path} opens in any browser; it is kept with the decoder."
    run.ui.ask(Page(STEP, "The report", Text(text), str(path)))
    return ReportResult(report=str(path))


def write(run: CalibrationRun) -> Path:
    """Write what is known by now, to the folder and to the decoder; the first's path."""
    made = needed(run.results.adapt)
    page, path, sign = render(run), run.folder / FILE, signer_of(run.signing_key)
    write_whole(path, page, private=True)
    # In the registry only once it was accepted.
    for bundle in (Path(made.bundle), run.registry / STORE / made.checksum):
        if bundle.is_dir():
            (bundle / "report").mkdir(exist_ok=True)
            write_whole(bundle / "report" / FILE, page)
            sign(bundle)  # a signature covers every file
    return path


def render(run: CalibrationRun) -> str:
    """Fill the template."""
    results = run.results
    collected, verified = needed(results.collect), needed(results.verify)
    units = fit_tuning(read_session(Path(collected.session)), open_bundle(run.base))
    driven = results.recalibrate if results.recalibrate and results.recalibrate.done else None
    figures = {
        "scores": _score_figure(verified, NAMES),
        "traces": _trace_figure(run, verified),
        "units": draw_units(units),
        "curve": draw_learning_curve(collected.curve, _curve_of(collected))
        if collected.curve
        else "",
        "driven": _score_figure(needed(driven.verify), DRIVEN_NAMES) if driven else "",
    }
    # Drawn by matplotlib, which escapes the names in them.
    drawn = {name: Markup(figure) for name, figure in figures.items()}  # nosec B704
    subject, day, name = run.session_id.split("/")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        # A misspelt name fails in tests, not silently in a clinic.
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        title=f"Calibration of {subject}, {day}" + ("" if name == day else f" ({name})"),
        run=run,
        results=results,
        made=needed(results.adapt),
        collected=collected,
        verified=verified,
        driven=driven,
        speed=speed_line(verified.speed),
        sectors=", ".join(f"{s} {n}" for s, n in zip(SECTORS, collected.sectors, strict=True)),
        names=NAMES,
        units=units,
        unit_counts=_unit_counts(units),
        health=HEALTH,
        figures=drawn,
    )


def _score_figure(result: VerifyResult, names: dict[str, str]) -> str:
    return draw_intervals({text: result.decoders[name] for name, text in names.items()})


def _trace_figure(run: CalibrationRun, verified: VerifyResult) -> str:
    with np.load(run.folder / "verify.npz") as kept:
        traces = {name: kept[name] for name in ("actual", "yesterday", "today")}
        return draw_traces(kept["t_s"], traces, verified.output, verified.unit)


def _curve_of(collected: CollectResult) -> str:
    return "R2 by a quick filter" if not collected.decoders else "R2 so far"


def _unit_counts(units: Sequence[UnitTuning]) -> str:
    return ", ".join(
        f"{sum(unit.health == health for unit in units)} {text}" for health, text in HEALTH.items()
    )


@mpl.rc_context(STYLE)
def draw_intervals(scores: Mapping[str, DecoderScore]) -> str:
    """Draw each decoder's mean R2 with its interval.

    Args:
        scores: by the decoder's name, ordered as `SCORE_COLOURS`.
    """
    figure, axes = _figure(0.32 * len(scores) + 0.6)
    rows = zip(scores.values(), SCORE_COLOURS, strict=True)
    for i, (score, colour) in enumerate(rows):
        low, high = np.maximum(score.mean_ci, LEAST_R2)
        axes.plot([low, high], [i, i], color=colour, linewidth=2.5)
        axes.plot(max(score.mean, LEAST_R2), i, "o", color=colour, markersize=7)
        axes.text(1.03, i, f"{score.mean:.2f}", va="center")
    least = min(0.0, *(min(score.mean_ci) for score in scores.values()))
    axes.set_xlim(max(least, LEAST_R2) - 0.05, 1.0)
    axes.set_yticks(range(len(scores)), list(scores))
    axes.set_ylim(len(scores) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("R2, mean over dimensions")
    return _image(figure, "R2 of each decoder on held-out trials")


@mpl.rc_context(STYLE)
def draw_traces(t_s: Float64s, traces: Mapping[str, Float64s], output: str, unit: str) -> str:
    """Draw the held-out part's first seconds, a row for each dimension.

    Args:
        t_s: (n,) seconds in the session.
        traces: "actual", "yesterday" and "today", each (n, dims).
        output: its name.
        unit: physical unit.
    """
    shown = t_s <= t_s[0] + SHOWN_S
    # A line across a part that was not scored would show movement that nobody decoded.
    breaks = np.flatnonzero(np.diff(t_s[shown]) > 1.5 * np.median(np.diff(t_s))) + 1
    n_dims = traces["actual"].shape[1]
    figure, rows = _figure(1.9 * n_dims + 0.3, n_rows=n_dims)
    for i, axes in enumerate(np.atleast_1d(rows)):
        for name, (colour, width, label) in TRACES.items():
            values = np.insert(traces[name][shown, i], breaks, np.nan)
            times = np.insert(t_s[shown], breaks, np.nan)
            axes.plot(times, values, color=colour, linewidth=width, label=label)
        axes.set_ylabel(f"{output} {'xyz'[i] if i < 3 else i} ({unit})")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    axes.set_xlabel("time in the session (s)")
    return _image(figure, "decoded against actual")


@mpl.rc_context(STYLE)
def draw_learning_curve(curve: Sequence[LearningPoint], label: str) -> str:
    """Draw R2 over the seconds collected; `label`: of what."""
    figure, axes = _figure(2.2)
    x, y = [point.seconds for point in curve], [point.r2 for point in curve]
    axes.plot(x, y, "o-", color=TODAY, markersize=4)
    axes.set_ylim(min(0.0, *y) - 0.03, 1.0)
    axes.set_xlabel("seconds collected")
    axes.set_ylabel(label)
    return _image(figure, "learning curve")


@mpl.rc_context(STYLE)
def draw_units(units: Sequence[UnitTuning]) -> str:
    """Draw preferred directions as arrows, and rates today and before as bars."""
    firing = [unit for unit in units if unit.health != "silent"]
    strongest = sorted(firing, key=lambda unit: -unit.depth_hz)[:NAMED_UNITS]
    figure, (rose, bars) = _figure(2.9, n_columns=2, width_ratios=(1.0, 2.0))
    for unit in firing:
        colour = UNIT_COLOURS[unit.health]
        rose.plot([0.0, unit.x_hz], [0.0, unit.y_hz], color=colour, linewidth=0.8)
        rose.plot(unit.x_hz, unit.y_hz, "o", color=colour, markersize=3)
    for unit in strongest:
        rose.annotate(unit.key, (unit.x_hz, unit.y_hz), fontsize=7, xytext=(3, 2),
                      textcoords="offset points")  # fmt: skip
    most = 1.15 * max([1e-9, *(unit.depth_hz for unit in firing)])
    rose.set(xlim=(-most, most), ylim=(-most, most), aspect="equal", xlabel="spikes/s")
    i_unit = np.arange(len(units))
    before = [unit.before_hz or 0.0 for unit in units]
    colours = [UNIT_COLOURS[unit.health] for unit in units]
    bars.bar(i_unit, before, width=0.85, color=SOFT)
    bars.bar(i_unit, [unit.rate_hz for unit in units], width=0.45, color=colours)
    bars.set(xlabel=f"{len(units)} units", ylabel="spikes/s", xticks=[])
    bars.grid(visible=False, axis="x")
    return _image(figure, "preferred directions and rates of the units")


def _figure(height_in: float, n_rows: int = 1, n_columns: int = 1, **options: Any) -> Any:
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    return figure, figure.subplots(n_rows, n_columns, sharex=n_rows > 1, **options)


def _image(figure: Figure, text: str) -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{escape(text)}" src="data:image/svg+xml;base64,{data}">'
