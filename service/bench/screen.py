"""Results as a table for people."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

_PERCENTILES = ("p50", "p95", "p99", "p999", "max")


def show(title: str, result: dict[str, Any], *, as_json: bool) -> None:
    """Print a result: one JSON object (null for what is no number), or a table."""
    if as_json:
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    else:
        print_table(title, result)


def print_table(title: str, result: dict[str, Any]) -> None:
    """Print a result: its latencies by percentile, then everything else by name."""
    console = Console()
    latencies = Table(title=title, title_justify="left")
    latencies.add_column("milliseconds")
    for name in _PERCENTILES:
        latencies.add_column(name, justify="right")
    plain = Table(show_header=False)
    for key, value in result.items():
        if isinstance(value, dict) and set(_PERCENTILES) <= set(value):
            latencies.add_row(
                key.removesuffix("_ms").replace("_", " "),
                *(f"{value[name]:.3f}" for name in _PERCENTILES),
            )
        else:
            plain.add_row(key.replace("_", " "), _text(value))
    console.print(latencies)
    console.print(plain)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{key} {_text(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return " / ".join(_text(one) for one in value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)
