"""Step 3: today's decoder from what was collected."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.text import Text

from calibration.errors import CalibrationError
from calibration.wizard.errors import STREAM, WizardError
from calibration.wizard.face import Page
from calibration.wizard.run import Run

STEP = "adapt"
TITLE = "Making today's decoder"
EVERYTHING_S = 1e6
POLITELY = 5
"""A daemon may run on the same machine, and comes first."""


def run(held: Run) -> dict[str, Any]:
    """Adapt the base decoder to the session.

    Raises:
        WizardError: nothing can be learnt from the session.
    """
    collected = held.result("collect")
    session = Path(collected["session"])
    out = held.folder / "decoder" / decoder_name(held)
    return adapted(held, held.base, session, out, collected["test"])


def decoder_name(held: Run) -> str:
    """The wire's `decoder_id` of what is made today."""
    subject, day, name = held.session_id.split("/")
    return f"{subject}-{day}" if name == day else f"{subject}-{name}"


def adapted(held: Run, base: Path, session: Path, out: Path, test: str) -> dict[str, Any]:
    """Adapt a decoder, showing how far it is; one that was left half done is made anew.

    Raises:
        WizardError: nothing can be learnt from the session.
    """
    from calibration.adaptation.adapt import adapt

    os.nice(POLITELY)
    _show(held, 0, 0)
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    calibration = held.config.calibration
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
            on_progress=lambda done, most: _show(held, done, most),
        )
    except CalibrationError as err:
        raise WizardError(str(err), STREAM) from err
    return result | {"bundle": str(out)}


def _show(held: Run, done: int, most: int) -> None:
    bar = ProgressBar(total=max(most, 1), completed=done, width=50, pulse=not most)
    share = f"{done} of at most {most} steps" if most else "looking at what each unit does"
    note = Text("It ends by itself when held-out trials no longer gain.", style="dim")
    page = Page(STEP, TITLE, Group(bar, Text(share), Text(), note), "learning")
    held.face.ask(page, (), wait_s=0.0)
