"""Each failure ends a command with the exit code that README gives it."""

from __future__ import annotations

import pytest

from decoders.errors import DecodersError
from export.errors import BackendUnavailable, BundleError, ExportError
from service.errors import HANDLED, ConfigError, ExitCode, GuardError, ServiceError, exit_code
from streams.errors import (
    AddressError,
    StreamAbsentError,
    StreamAmbiguousError,
    StreamsError,
    StreamUnfitError,
    UnreachableError,
)

CODES = [
    (GuardError, 1),
    (ConfigError, 2),
    (StreamAbsentError, 3),
    (StreamAmbiguousError, 3),
    (StreamUnfitError, 3),
    (BundleError, 4),
    (BackendUnavailable, 5),
    (AddressError, 6),
    (UnreachableError, 7),
]


@pytest.mark.parametrize(("kind", "code"), CODES)
def test_each_failure_has_its_code(kind: type[Exception], code: int) -> None:
    assert exit_code(kind("why")) == code
    assert issubclass(kind, HANDLED)


def test_codes_are_those_of_the_definitions() -> None:
    assert [int(code) for code in ExitCode] == list(range(9))
    assert (ExitCode.DONE, ExitCode.BELOW_THRESHOLD) == (0, 8)


@pytest.mark.parametrize("kind", [ServiceError, StreamsError, ExportError, DecodersError])
def test_what_the_user_asked_wrongly_is_usage(kind: type[Exception]) -> None:
    assert exit_code(kind("why")) == ExitCode.USAGE


def test_what_nobody_foresaw_is_a_guard() -> None:
    assert exit_code(ValueError("why")) == ExitCode.GUARD
