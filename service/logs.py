"""Log lines for people, or one JSON object a line for programs; both on stderr."""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
from typing import Literal, TextIO

SHA256_LETTERS = 64
LINES_WAITING = 1000
"""Kept while standard error takes nothing: a stopped terminal, or a pipe that nobody reads."""


class _Human(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        detail = getattr(record, "detail", {})
        told = "  ".join(f"{key}={_short(value)}" for key, value in detail.items())
        stamp = self.formatTime(record, "%H:%M:%S")
        return f"{stamp} {record.levelname.lower():7} {record.getMessage():12} {told}".rstrip()


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        return json.dumps(line | getattr(record, "detail", {}), default=str)


def _short(value: object) -> str:
    """Return a value as a person reads it: few digits, the beginning of a checksum."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} {_short(one)}" for key, one in value.items()) + "}"
    text = str(value)
    return text[:12] if len(text) == SHA256_LETTERS and " " not in text else text


class UnblockingHandler(logging.Handler):
    """Writes lines in a thread of its own: whoever logs never waits for the stream.

    Args:
        stream: where to; it may stand still.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.Queue[str] = queue.Queue(LINES_WAITING)
        self._n_left_out = 0
        self._writer_of = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line; leave it out while too many wait."""
        if self._writer_of != os.getpid():  # a thread does not survive a fork
            self._writer_of = os.getpid()
            threading.Thread(target=self._write, name="log", daemon=True).start()
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._n_left_out += 1

    def flush_within(self, most_s: float) -> None:
        """Wait until all lines are written, at most so long."""
        done = threading.Thread(target=self._lines.join, daemon=True)
        done.start()
        done.join(most_s)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            try:
                if self._n_left_out:
                    n, self._n_left_out = self._n_left_out, 0
                    line += f"\n({n} lines were left out: standard error took none)"
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                self._n_left_out += 1
            finally:
                self._lines.task_done()


def set_up(form: Literal["human", "json"]) -> None:
    """Send the log to stderr in the given form."""
    handler = UnblockingHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Human())
    logger = logging.getLogger("spikeloop")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def end_log(last: str = "", most_s: float = 0.5) -> None:
    """Write what waits and a last line, for at most so long: the process ends at once then."""
    logger = logging.getLogger("spikeloop")
    for handler in logger.handlers:
        if isinstance(handler, UnblockingHandler):
            handler.flush_within(most_s)

    def write() -> None:
        sys.stderr.write(last)
        sys.stderr.flush()

    if last:
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        writer.join(most_s)
