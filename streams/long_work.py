"""A line a minute from work that takes long, for logs of batch jobs and for people who wait."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Self

from streams.clock import MonotonicClock

EVERY_S = 60.0


class LongWork:
    """Says on standard error, once a minute, how far a piece of work is.

    Where a progress bar can be seen, the bar says so instead: `has_bar`.

    Args:
        what: the work, as in "training".
        has_bar: a bar is shown; nothing is written.
    """

    def __init__(self, what: str, *, has_bar: bool = False) -> None:
        self._what, self._reached = what, ""
        self._over = threading.Event()
        self._clock = MonotonicClock()
        self._thread = None if has_bar else threading.Thread(target=self._speak, daemon=True)

    def tell(self, reached: str) -> None:
        """Note how far it is; costs nothing, so tell every step."""
        self._reached = reached

    def __enter__(self) -> Self:
        """Begin to count the minutes."""
        self._t_begin_s = self._clock.now()
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the lines."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _speak(self) -> None:
        while not self._over.wait(EVERY_S):
            minutes = (self._clock.now() - self._t_begin_s) / 60
            told = f": {self._reached}" if self._reached else ""
            sys.stderr.write(f"{self._what} for {minutes:.0f} min{told}\n")
            sys.stderr.flush()
