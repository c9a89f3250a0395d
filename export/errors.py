"""Errors of `export`; every text says what happened, to what, and what to do next."""

from __future__ import annotations


class ExportError(Exception):
    """Base class of this package's errors."""


class BundleError(ExportError):
    """A bundle is refused: it is damaged, inconsistent, disagrees with its record, or too slow."""


class BackendUnavailable(ExportError):
    """A backend cannot run on this machine as it is installed."""


class NotProvidedError(BackendUnavailable):
    """A backend is not installed, not built, or not made for this decoder: it will be so again."""


class BackendError(ExportError):
    """A step failed; the memory may be half advanced, so `reset` before the next one."""


class SigningError(ExportError):
    """A key that signs bundles cannot be made or read, or a bundle cannot be signed."""


class GateError(ExportError):
    """A build decodes worse than the bound allows; it was not kept."""
