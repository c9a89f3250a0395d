"""SIGTERM and SIGINT as a question, for commands that end in order."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType


def until_signalled() -> Callable[[], bool]:
    """Return a function that is True once SIGTERM or SIGINT came."""
    came: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        came.append(number)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return lambda: bool(came)
