"""Looks for the stream in a thread of its own, while the main thread opens the decoder."""

from __future__ import annotations

import threading

from service.loop.intake.source import FindInlet, OpenInlet
from streams.clock import Clock
from streams.errors import StreamAbsentError, StreamsError

FRESH_S = 2.0
"""A stream found longer ago is looked for again: its sender may have been started anew."""


class StreamSearch(threading.Thread):
    """One search, begun at once.

    Args:
        early: looks for the stream for so many seconds, in this thread; another may end it.
        find: does so in the thread that asks.
        clock: the daemon's clock.
        wait_s: how long `early` looks.
    """

    def __init__(self, early: FindInlet, find: FindInlet, clock: Clock, wait_s: float) -> None:
        super().__init__(name="stream search", daemon=True)
        self._early, self._find = early, find
        self._clock, self._wait_s = clock, wait_s
        self._found: OpenInlet | None = None
        self._error: StreamsError | None = None
        self._t_found_s = 0.0
        self.start()

    def run(self) -> None:
        """Look once."""
        try:
            self._found = self._early(self._wait_s)
        except StreamsError as error:
            self._error = error
        self._t_found_s = self._clock.now()

    def find(self, timeout_s: float) -> OpenInlet:
        """Return the stream that the search found; the next call looks anew.

        Raises:
            StreamAbsentError: none was found, the last `timeout_s` seconds included.
            StreamAmbiguousError: several were.
        """
        t_end_s = self._clock.now() + timeout_s
        self.join()
        found, self._found = self._found, None
        if found is not None and self._clock.now() - self._t_found_s < FRESH_S:
            return found
        left_s = t_end_s - self._clock.now()
        if self._error is None or (isinstance(self._error, StreamAbsentError) and left_s > 0):
            return self._find(left_s)
        raise self._error
