"""The steps in their order: each is saved when it is done; back and quit always work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from rich.text import Text

from calibration.wizard.errors import WizardError
from calibration.wizard.face import BackError, Choice, Page
from calibration.wizard.run import Run
from export.errors import ExportError
from streams.errors import StreamsError

Step = Callable[[Run], dict[str, Any]]
MODULES = {
    "preflight": "preflight",
    "collect": "collect",
    "adapt": "adapting",
    "verify": "verify",
    "report": "report",
    "decide": "decide",
    "deploy": "deploy",
    "recalibrate": "recalibrate",
}
STEPS = tuple(MODULES)


def go_through(held: Run) -> None:
    """Do every step that is not done yet.

    Raises:
        WizardError: a step cannot be done, and nobody is there to help; what is done is saved.
        QuitError: the operator left.
    """
    while (i_step := _first_open(held.progress.steps)) < len(STEPS):
        step = STEPS[i_step]
        try:
            held.progress.done(step, _step(step)(held))
        except BackError:
            held.progress.forget(list(STEPS[max(0, i_step - 1) :]))
        except (WizardError, StreamsError, ExportError) as err:
            if held.auto:
                raise
            page = Page(step, "This did not work", Text(str(err), style="bold red"), str(err))
            held.face.ask(page, (Choice("r", "try again"),))
    _rewrite_report(held)


def _first_open(done: Mapping[str, Any]) -> int:
    return next((i for i, step in enumerate(STEPS) if step not in done), len(STEPS))


def _step(name: str) -> Step:
    """A step, imported when it is come to: the wizard is there at once."""
    step: Step = import_module(f"calibration.wizard.{MODULES[name]}").run
    return step


def _rewrite_report(held: Run) -> None:
    """The report says what was decided and how it went."""
    from calibration.wizard.report import write

    write(held)
