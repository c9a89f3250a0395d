"""What the operator sees of a verification, and what the compared decoders are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

MOST_GAIN = 1.3
"""More is not advised, nor its inverse, however few the held-out trials were."""

NAMES = {
    "today": "today's decoder",
    "yesterday": "yesterday's decoder",
    "wiener": "Wiener filter, same data",
    "shuffled": "control: units shuffled",
}


def table_of(result: Mapping[str, Any]) -> Group:
    """Decoders in rows."""
    table = Table(box=None, padding=(0, 2))
    table.add_column("R2 on held-out trials")
    for column in ("mean", "95 %", "each dimension"):
        table.add_column(column, justify="right")
    for name, text in NAMES.items():
        one = result["decoders"][name]
        low, high = one["mean_ci"]
        each = " / ".join(f"{value:.2f}" for value in one["r2"])
        style = "bold" if name == "today" else ""
        table.add_row(text, f"{one['mean']:.2f}", f"{low:.2f} to {high:.2f}", each, style=style)
    held_out = f"{result['seconds']:.0f} s, {result['n_blocks']} {result['blocks']}"
    note = Text(f"{result['output']} ({result['unit']}) over {held_out}, never learnt from", "dim")
    speed = speed_of(result)
    return Group(table, Text(), note, *([Text(speed, "dim")] if speed else []))


def speed_of(result: Mapping[str, Any]) -> str:
    """How fast today's decodes are, and the gain that makes up for it; "" for no velocity."""
    speed = result.get("speed")
    if not speed or not speed["share"] > 0.0:
        return ""
    share, (low, high) = speed["share"], speed["ci"]
    told = (
        f"Today's decodes are {share:.2f} times as fast as the movement ({low:.2f} to {high:.2f})"
    )
    if low <= 1.0 <= high:
        return told
    gain = min(max(1.0 / share, 1.0 / MOST_GAIN), MOST_GAIN)
    return f"{told}; `spikeloop shape gain={gain:.2f}` makes up for it"


def line_of(result: Mapping[str, Any]) -> str:
    """The same in one line."""
    return "R2 " + ", ".join(
        f"{name} {one['mean']:.2f}" for name, one in result["decoders"].items()
    )
