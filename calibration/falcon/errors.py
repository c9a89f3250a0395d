"""Errors between a bundle and the benchmark."""

from __future__ import annotations

from calibration.errors import CalibrationError


class FalconError(CalibrationError):
    """A decoder does not fit a task, or the benchmark's evaluator stopped."""
