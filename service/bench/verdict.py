"""The verdict on a run: what it had to hold, and in words where it did not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from service.bench.machine import FLAT
from service.errors import ExitCode

BEYOND_TIMER, SPARE_BEATS = 1.2, 2


def conclude(fell_short: Sequence[str], *, aloud: bool) -> ExitCode:
    """The exit code of a run, and the last line for whoever watched it.

    Args:
        fell_short: what did not hold, a phrase each.
        aloud: whether to print the line.
    """
    if aloud:
        verdict = (
            f"the loop did not hold: {'; '.join(fell_short)}" if fell_short else "the loop held"
        )
        Console(soft_wrap=True).print(verdict, style="bold red" if fell_short else "bold green")
    return ExitCode.BELOW_THRESHOLD if fell_short else ExitCode.DONE


def beats_missed(result: dict[str, Any]) -> list[str]:
    """Falls short if more are missed than the bare timer's late ones times 1.2, and two."""
    missed, late = result["missed_beats"], result["bare_timer_late"]
    if missed <= late * BEYOND_TIMER + SPARE_BEATS:
        return []
    return [f"{missed} beats missed, where a bare timer was late for {late}"]


def spikes_dropped(result: dict[str, Any]) -> list[str]:
    """Falls short if there are any."""
    dropped = result["spikes_dropped"]
    return [f"{dropped} spikes dropped"] if dropped else []


def memory_grown(result: dict[str, Any]) -> list[str]:
    """Falls short if the daemon's memory grew by over 1 % after the first minute."""
    growth = result["processes"].get("daemon", {}).get("growth")
    if growth is None or growth <= FLAT:
        return []
    return [f"the daemon's memory grew by {growth:.1%} after the first minute"]
