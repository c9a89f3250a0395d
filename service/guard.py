"""Catch everything, at the root of a thread or of a forked process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Generic, TypeVar

Caught = TypeVar("Caught", bound=BaseException)


class Guard(AbstractContextManager[None, bool], Generic[Caught]):
    """Hand an error that leaves the block to a function; then go on behind the block.

    Args:
        caught: `Exception`, or `BaseException` where the end of the interpreter counts, too.
        failed: called with the error.
    """

    def __init__(self, caught: type[Caught], failed: Callable[[Caught], object]) -> None:
        self._caught, self._failed = caught, failed

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Return True for an error that was handed over: it ends here."""
        if not isinstance(error, self._caught):
            return False
        self._failed(error)
        return True
