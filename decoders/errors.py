"""Errors in `decoders`; every text says what happened, to what, and what to do next."""

from __future__ import annotations


class DecodersError(Exception):
    """Base class for this package's errors."""


class ConfigError(DecodersError):
    """A training config cannot be used; the text names file, key and the nearest valid key."""


class TrainingError(DecodersError):
    """Sessions, checkpoint or run directory cannot serve the training that was asked for."""
