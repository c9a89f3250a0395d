"""SIGTERM and SIGINT as a question, for commands that end in order."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

from streams.clock import wait_readable


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask a daemon to end: a closed terminal's, too, but under `nohup`."""
    ending = (signal.SIGTERM, signal.SIGINT)
    is_kept = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return ending if is_kept else (*ending, signal.SIGHUP)


def until_signalled() -> Callable[[], bool]:
    """Return a function that is True once SIGTERM or SIGINT came."""
    came: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        came.append(number)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return lambda: bool(came)


def or_stdin_ended(is_stopped: Callable[[], bool]) -> Callable[[], bool]:
    """Return a function that is True also once the standard input has ended, as with its writer."""

    def is_over() -> bool:
        return (wait_readable(0, 0.0) and not os.read(0, 1024)) or is_stopped()

    return is_over
