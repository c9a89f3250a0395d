"""Results for people: a table, and the verdict on what the run had to hold."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from service.bench.machine import FLAT
from service.errors import ExitCode

_PERCENTILES = ("p50", "p95", "p99", "p999", "max")
BEYOND_TIMER, SPARE_BEATS = 1.2, 2


def show(
    title: str, result: dict[str, Any], *, as_json: bool, floor_of: Mapping[str, str] | None = None
) -> None:
    """Print a result: one JSON object (null for what is no number), or a table.

    Args:
        title: of the table.
        result: latencies by percentile (`NAME_ms`), floors in `floors_ms`, and anything else.
        as_json: one JSON object.
        floor_of: the floor's name of each latency that has one.
    """
    if as_json:
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    else:
        print_table(title, result, floor_of or {})


def print_table(
    title: str, result: dict[str, Any], floor_of: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Print a result: its latencies by percentile, then everything else by name."""
    console = Console()
    latencies = Table(title=title, title_justify="left")
    latencies.add_column("milliseconds")
    for name in _PERCENTILES:
        latencies.add_column(name, justify="right")
    floors = result.get("floors_ms", {})
    if floors:
        latencies.add_column("floor p50", justify="right")
    plain = Table(show_header=False)
    for key, value in result.items():
        if key == "floors_ms":
            for name, floor in value.items():
                latencies.add_row(f"floor: {name.replace('_', ' ')}", *_percentiles(floor))
        elif isinstance(value, dict) and set(_PERCENTILES) <= set(value):
            name = key.removesuffix("_ms")
            floor = floors.get(floor_of.get(name, ""))
            beside = [f"{floor['p50']:.3f}"] if floor else []
            latencies.add_row(name.replace("_", " "), *_percentiles(value), *beside)
        else:
            plain.add_row(key.replace("_", " "), _text(value))
    if latencies.row_count:
        console.print(latencies)
    else:
        plain.title, plain.title_justify = title, "left"
    console.print(plain)


def _percentiles(value: Mapping[str, float]) -> list[str]:
    return [f"{value[name]:.3f}" for name in _PERCENTILES]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{key} {_text(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return " / ".join(_text(one) for one in value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)


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
