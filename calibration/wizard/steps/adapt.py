"""Step 3: makes today's decoder from what was collected."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.text import Text

from calibration.errors import STREAM, CalibrationError, WizardError
from calibration.wizard.results import AdaptResult, needed
from calibration.wizard.run import CalibrationRun
from calibration.wizard.ui import Page

STEP = "adapt"
TITLE = "Making today's decoder"
EVERYTHING_S = 1e6
# A daemon may run on the same machine, and comes first.
POLITELY = 5


def step(run: CalibrationRun) -> AdaptResult:
    """Adapt the base decoder to the session.

    Raises:
        WizardError: nothing can be learnt from the session.
    """
    collected = needed(run.results.collect)
    out = run.folder / "decoder" / decoder_name(run)
    return adapted(run, run.base, Path(collected.session), out, collected.test)


def decoder_name(run: CalibrationRun) -> str:
    """Name today's decoder, the wire's `decoder_id`."""
    subject, day, name = run.session_id.split("/")
    return f"{subject}-{day}" if name == day else f"{subject}-{name}"


def adapted(run: CalibrationRun, base: Path, session: Path, out: Path, test: str) -> AdaptResult:
    """Adapt a decoder, showing how far it is; one that was left half done is made anew.

    Raises:
        WizardError: nothing can be learnt from the session.
    """
    from calibration.adaptation.adapt import adapt  # brings torch

    os.nice(POLITELY)
    _show(run, 0, 0)
    # A bundle is never changed; what a killed wizard left is no bundle yet.
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    calibration = run.config.calibration
    try:
        result = adapt(
            base,
            session,
            out=out,
            seconds=EVERYTHING_S,
            same_array=calibration.same_array,
            follow_drift=calibration.follow_drift,
            test=test,
            seed=calibration.seed,
            on_progress=lambda done, most: _show(run, done, most),
        )
    except CalibrationError as err:
        raise WizardError(str(err), STREAM) from err
    return AdaptResult.model_validate(result | {"bundle": str(out)})


def _show(run: CalibrationRun, done: int, most: int) -> None:
    bar = ProgressBar(total=max(most, 1), completed=done, width=50, pulse=not most)
    share = f"{done} of at most {most} steps" if most else "looking at what each unit does"
    note = Text("It ends by itself when held-out trials no longer gain.", style="dim")
    run.show(Page(STEP, TITLE, Group(bar, Text(share), Text(), note), "learning"))
