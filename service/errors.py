"""Errors in `service`, and the exit code that each ends a command with."""

from __future__ import annotations

from pathlib import Path

from decoders.errors import DecodersError
from export.errors import BackendUnavailable, BundleError, ExportError, GateError
from streams.errors import (
    AddressError,
    StreamAbsentError,
    StreamAmbiguousError,
    StreamsError,
    StreamUnfitError,
    UnreachableError,
)
from streams.exit_codes import ExitCode as ExitCode


class ServiceError(Exception):
    """Base class for failures in the service."""


class ConfigError(ServiceError):
    """A config file cannot be used; the text names file, key and the nearest valid key."""


def cannot_write(path: Path, err: OSError) -> ConfigError:
    """Return the error of a file that was asked for and cannot be written."""
    return ConfigError(f"cannot write {path}: {err.strerror}; does its folder exist?")


class GuardError(ServiceError):
    """A running part failed; the daemon ended itself after publishing the safe value."""


_CODES: tuple[tuple[type[Exception], ExitCode], ...] = (
    (ConfigError, ExitCode.USAGE),
    (GuardError, ExitCode.GUARD),
    (StreamAbsentError, ExitCode.STREAM),
    (StreamAmbiguousError, ExitCode.STREAM),
    (StreamUnfitError, ExitCode.STREAM),
    (BundleError, ExitCode.BUNDLE),
    (BackendUnavailable, ExitCode.BACKEND),
    (GateError, ExitCode.BELOW_THRESHOLD),
    (AddressError, ExitCode.ADDRESS),
    (UnreachableError, ExitCode.UNREACHABLE),
    (StreamsError, ExitCode.USAGE),
    (ExportError, ExitCode.USAGE),
    (DecodersError, ExitCode.USAGE),
    (ServiceError, ExitCode.USAGE),
)


def exit_code(err: Exception) -> ExitCode:
    """The code that a command ends with after `err`."""
    return next((code for kind, code in _CODES if isinstance(err, kind)), ExitCode.GUARD)


HANDLED = (ServiceError, StreamsError, ExportError, DecodersError)
