"""Errors in `calibration`; every text says what happened and what to do next."""

from __future__ import annotations

from streams.exit_codes import ExitCode


class CalibrationError(Exception):
    """Base class for this package's errors."""


class RegistryError(CalibrationError):
    """The registry cannot do what was asked; what was current stays so."""


class FalconError(CalibrationError):
    """A decoder does not fit a task of FALCON, or the benchmark's evaluator stopped."""


class WizardError(CalibrationError):
    """A step of the wizard cannot be done; everything before it is saved.

    Args:
        text: what happened and what to do.
        code: exit code.
    """

    def __init__(self, text: str, code: int = ExitCode.USAGE) -> None:
        super().__init__(text)
        self.code = code
