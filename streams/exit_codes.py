"""Exit codes of every command (README, "Exit codes")."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """A command's answer to whoever started it, another program of ours included."""

    DONE = 0
    GUARD = 1
    USAGE = 2
    STREAM = 3
    BUNDLE = 4
    BACKEND = 5
    ADDRESS = 6
    UNREACHABLE = 7
    BELOW_THRESHOLD = 8
