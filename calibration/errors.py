"""Errors in `calibration`; every text says what happened and what to do next."""

from __future__ import annotations


class CalibrationError(Exception):
    """Base class for this package's errors."""


class RegistryError(CalibrationError):
    """The registry cannot do what was asked; what was current stays so."""
