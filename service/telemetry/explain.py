"""`spikeloop explain`: a dump of the flight recorder, as a person reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from service.errors import ConfigError
from service.telemetry.flight_recorder import causes, read_dump

BEFORE, AFTER = 5, 2
_TIMES = {"due": "due", "cut": "cut", "tokens": "ready", "done": "done", "sent": "sent",
          "out": "out", "end": "end"}  # fmt: skip


def explain(path: Path) -> None:
    """Print the beats around the one that was missed, and where the time went.

    Raises:
        ConfigError: the file is no dump.
    """
    try:
        header, beats = read_dump(path)
    except (OSError, json.JSONDecodeError, KeyError, IndexError, ValueError) as err:
        raise ConfigError(f"{path} is no dump of the flight recorder: {err}") from err
    console = Console()
    console.print(f"run {header['run_id']}: {len(beats)} beats, up to beat {beats[-1]['beat']}")
    console.print(_table(beats[-(BEFORE + 1 + AFTER) :]))
    for beat, cause in causes(beats):
        what = "late" if beat["late"] else f"after {beat['skipped']} skipped"
        console.print(f"beat {beat['beat']} ({what}): {cause}")


def _table(beats: list[dict[str, Any]]) -> Table:
    table = Table(
        title="milliseconds since the window's end; age of the spikes when they arrived",
        title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    for name in ("beat", *_TIMES.values(), "age", "tokens", "queue"):
        table.add_column(name, justify="right", no_wrap=True)
    for beat in beats:
        times = [f"{1e3 * beat[f'{name}_s']:.2f}" for name in _TIMES]
        age = "" if beat["lsl_age_s"] is None else f"{1e3 * beat['lsl_age_s']:.2f}"
        cap = "" if beat["token_cap"] is None else f"/{beat['token_cap']}"
        style = "red" if beat["late"] or beat["skipped"] else ""
        table.add_row(
            str(beat["beat"]), *times, age, f"{beat['tokens']}{cap}", str(beat["queued"]),
            style=style,
        )  # fmt: skip
    return table
