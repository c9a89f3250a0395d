"""`spikeloop calibrate`: opens or resumes a calibration, goes through its steps, sums it up."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.text import Text

from calibration.errors import WizardError
from calibration.wizard.config import load_config
from calibration.wizard.driving import end_driving
from calibration.wizard.results import STEPS, Result, StepResults, needed
from calibration.wizard.run import FILE, CalibrationRun, Progress
from calibration.wizard.steps import adapt, collect, deploy, preflight, verify
from calibration.wizard.ui import (
    BackError,
    Choice,
    Page,
    QuitError,
    UnattendedUI,
    terminal_ui,
)
from export.errors import ExportError
from streams.clock import MonotonicClock
from streams.errors import StreamsError
from streams.exit_codes import ExitCode


def calibrate(
    config_path: Path,
    *,
    folder: Path | None,
    auto: bool,
    as_json: bool,
    resume: bool,
    command: tuple[str, ...],
) -> int:
    """Go through a calibration.

    Args:
        config_path: the wizard's.
        folder: the calibration's; today's under the config's folder if None.
        auto: ask nobody.
        as_json: one JSON object at the end.
        resume: go on where the last one was left.
        command: starts `spikeloop`, which records in its own process.

    Returns:
        0, or 8 when the decoder was rejected.

    Raises:
        WizardError: it could not be done; what is done is saved, and `--resume` goes on.
    """
    config, clock = load_config(config_path), MonotonicClock()
    # Before anything is made: a cron job must not leave folders behind.
    if not auto and not sys.stdin.isatty():
        raise WizardError("the wizard needs a terminal; without one, use --auto")
    folder = folder or _todays_folder(Path(config.calibration.folder), resume=resume)
    progress = Progress(folder, resume=resume)
    again = f"spikeloop calibrate {config_path} --folder {folder} --resume"
    t_begin_s = clock.now()
    try:
        unattended = nullcontext(UnattendedUI(clock))
        with unattended if auto else terminal_ui(clock) as ui:
            go_through(CalibrationRun(config, progress, ui, clock, auto, command))
    except QuitError:
        sys.stderr.write(f"left; go on with: {again}\n")
        return 0
    except (WizardError, StreamsError, ExportError) as err:
        if as_json:
            _write_json({"ok": False, "folder": str(folder), "error": str(err)})
        if progress.results.model_fields_set:
            sys.stderr.write(f"what is done is saved; go on with: {again}\n")
        raise
    finally:
        progress.close()
    return _sum_up(summary(folder, progress.results, clock.now() - t_begin_s), auto, as_json)


def _sum_up(result: dict[str, Any], auto: bool, as_json: bool) -> int:
    """Say how a calibration ended; the exit code."""
    if as_json:
        _write_json(result)
    elif not auto:
        service = "in service" if result["deployed"] else "not in service"
        line = (
            f"{result['decoder_id']}: {result['decided']}ed, {service}. Report: {result['report']}"
        )
        sys.stderr.write(f"{line}\n")
    return 0 if result["decided"] == "accept" else ExitCode.BELOW_THRESHOLD


def go_through(run: CalibrationRun) -> None:
    """Do every step that is not done yet; each is saved when it is done.

    Raises:
        WizardError: a step cannot be done, and nobody is there to help; what is done is saved.
        QuitError: the operator left.
    """
    try:
        while (step := _first_open(run.results)) is not None:
            _do(run, step)
    finally:
        # However it ends: nobody goes on driving by a decoder that was not accepted.
        end_driving(run)
    # Brings matplotlib: without it the wizard is there at once.
    from calibration.wizard.steps.report import write

    write(run)  # anew, with what was decided and how it went


def _do(run: CalibrationRun, step: str) -> None:
    """Do a step, or go back where it was left, or offer to try again where it failed."""
    try:
        run.progress.done(step, STEP_OF[step](run))
    # Its own result is not there yet, so going back forgets the step before.
    except BackError:
        end_driving(run)
        run.progress.forget(STEPS[STEPS.index(_before(step, run)) :])
    except (WizardError, StreamsError, ExportError) as err:
        if run.auto:
            raise
        if step in ("collect", "deploy"):
            end_driving(run)
        page = Page(step, "This did not work", Text(str(err), style="bold red"), str(err))
        run.ui.ask(page, (Choice("r", "try again"),))


def _before(step: str, run: CalibrationRun) -> str:
    """Name the step that `b` leads to: the one before that stops at a screen."""
    collected = run.results.collect
    # Trials that were scored as they came are adapted to and verified in passing.
    if collected is not None and not collected.test and step in ("adapt", "verify", "report"):
        return "collect"
    return STEPS[max(0, STEPS.index(step) - 1)]


def _first_open(results: StepResults) -> str | None:
    return next((step for step in STEPS if getattr(results, step) is None), None)


def _report(run: CalibrationRun) -> Result:
    # Brings matplotlib: without it the wizard is there at once.
    from calibration.wizard.steps.report import step

    return step(run)


STEP_OF: dict[str, Callable[[CalibrationRun], Result]] = {
    "preflight": preflight.step,
    "collect": collect.step,
    "adapt": adapt.step,
    "verify": verify.step,
    "report": _report,
    "decide": verify.decision_step,
    "deploy": deploy.step,
    "recalibrate": adapt.recalibration_step,
}


def summary(folder: Path, results: StepResults, total_s: float) -> dict[str, Any]:
    """Sum up a calibration: the JSON object."""
    collected, made = needed(results.collect), needed(results.adapt)
    decided, deployed = needed(results.decide), needed(results.deploy)
    return {
        "ok": True,
        "folder": str(folder),
        "session": collected.session,
        "bundle": made.bundle,
        "checksum": made.checksum,
        "decoder_id": made.decoder_id,
        "collect_s": collected.collect_s,
        "trials": collected.trials,
        "adapt_s": made.adapt_s,
        "total_s": total_s,
        "r2": {name: one.r2 for name, one in needed(results.verify).decoders.items()},
        "decided": decided.decided,
        "reason": decided.reason,
        "deployed": deployed.deployed,
        "deployment": deployed.as_json(),
        "recalibrated": needed(results.recalibrate).as_json(),
        "report": needed(results.report).report,
    }


def _todays_folder(under: Path, *, resume: bool) -> Path:
    """Find today's first free folder; to resume, the newest with something to go on with."""
    today = datetime.now().astimezone().date().isoformat()
    if resume:
        begun = sorted(under.glob(f"*/{FILE}"), key=lambda path: path.stat().st_mtime)
        if not begun:
            raise WizardError(f"nothing to resume under {under}; start without --resume")
        return begun[-1].parent
    # Several calibrations a day get folders of their own.
    n = 1
    while (path := under / (today if n == 1 else f"{today}-{n}")).joinpath(FILE).exists():
        n += 1
    return path


def _write_json(result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
