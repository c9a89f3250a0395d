"""Log lines for people, or one JSON object a line for programs; both on stderr."""

from __future__ import annotations

import json
import logging
import sys
from typing import Literal


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
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def set_up(form: Literal["human", "json"]) -> None:
    """Send the log to stderr in the given form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Human())
    logger = logging.getLogger("spikeloop")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
