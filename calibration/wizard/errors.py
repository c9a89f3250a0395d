"""What ends a step of the wizard; the code is what the command ends with."""

from __future__ import annotations

from calibration.errors import CalibrationError

USAGE, STREAM, BUNDLE, UNREACHABLE, BELOW_THRESHOLD = 2, 3, 4, 7, 8


class WizardError(CalibrationError):
    """A step cannot be done; everything before it is saved.

    Args:
        text: what happened and what to do.
        code: exit code (DEFINITIONS, "Exit codes").
    """

    def __init__(self, text: str, code: int = USAGE) -> None:
        super().__init__(text)
        self.code = code


def as_told_here(err: Exception) -> str:
    """The text of an error that names the daemon's section of the stream of spikes, as ours."""
    return str(err).replace("[input]", "[spikes]")
