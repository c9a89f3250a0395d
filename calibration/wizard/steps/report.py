"""Step 5: one HTML file: what was collected, how good the decoder is, what was decided and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from rich.text import Text

from calibration.registry import STORE
from calibration.wizard.results import ReportResult, VerifyResult, needed
from calibration.wizard.run import CalibrationRun
from calibration.wizard.steps.figures import (
    draw_intervals,
    draw_learning_curve,
    draw_traces,
    draw_units,
)
from calibration.wizard.steps.verify import NAMES, speed_line
from calibration.wizard.trials import SECTORS
from calibration.wizard.ui import Page
from calibration.wizard.units import UnitTuning, fit_tuning
from export.bundle import open_bundle
from streams.files import write_whole
from streams.sessions.reading import read_session

STEP = "report"
FILE = "calibration.html"
TEMPLATE = "report.html.j2"
# While the subject drove, "yesterday" is the decoder of the open loop.
DRIVEN_NAMES = NAMES | {"today": "learnt from driving too", "yesterday": "of the open loop alone"}
HEALTH = {"ok": "as before", "changed": "changed", "new": "new", "silent": "silent"}


def step(run: CalibrationRun) -> ReportResult:
    """Write the report, and say where it is."""
    path = write(run)
    text = f"{path} opens in any browser; it is kept with the decoder."
    run.ui.ask(Page(STEP, "The report", Text(text), str(path)))
    return ReportResult(report=str(path))


def write(run: CalibrationRun) -> Path:
    """Write what is known by now, to the folder and to the decoder; the first's path."""
    made = needed(run.results.adapt)
    page, path = render(run), run.folder / FILE
    write_whole(path, page)
    # In the registry only once it was accepted.
    for bundle in (Path(made.bundle), run.registry / STORE / made.checksum):
        if bundle.is_dir():
            (bundle / "report").mkdir(exist_ok=True)
            write_whole(bundle / "report" / FILE, page)
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
        "curve": draw_learning_curve(collected.curve) if collected.curve else "",
        "driven": _score_figure(needed(driven.verify), DRIVEN_NAMES) if driven else "",
    }
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
        figures={name: Markup(figure) for name, figure in figures.items()},
    )


def _score_figure(result: VerifyResult, names: dict[str, str]) -> str:
    return draw_intervals({text: result.decoders[name] for name, text in names.items()})


def _trace_figure(run: CalibrationRun, verified: VerifyResult) -> str:
    with np.load(run.folder / "verify.npz") as kept:
        traces = {name: kept[name] for name in ("actual", "yesterday", "today")}
        return draw_traces(kept["t_s"], traces, verified.output, verified.unit)


def _unit_counts(units: Sequence[UnitTuning]) -> str:
    return ", ".join(
        f"{sum(unit.health == health for unit in units)} {text}" for health, text in HEALTH.items()
    )
