"""`python -m benchmarks.page`: what the live page costs."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from benchmarks.page.measure import measure
from service.bench.loop import Settings
from service.errors import HANDLED, exit_code
from streams.lsl.inlets import quieten

Option = typer.Option


def run(
    units: Annotated[int, Option(help="Units that fire.")] = 1000,
    rate: Annotated[float, Option(help="Spikes per second and unit.")] = 20.0,
    hop_ms: Annotated[float, Option(help="Milliseconds between decodes.")] = 10.0,
    seconds: Annotated[float, Option(help="Length of each turn.")] = 30.0,
    tabs: Annotated[int, Option(help="Tabs that show the page.")] = 1,
    rounds: Annotated[int, Option(help="Turns of each.")] = 3,
    draw: Annotated[bool, Option(help="A browser draws; else programs read.")] = True,
) -> int:
    """Measure the daemon with and without the page, in turn; prints one JSON object."""
    quieten()
    settings = Settings(
        n_units=units, rate_hz=rate, hop_s=hop_ms * 1e-3, seconds=seconds, block_s=4.7e-3
    )
    try:
        told = measure(settings, n_tabs=tabs, n_rounds=rounds, is_drawn=draw)
    except HANDLED as err:
        sys.stderr.write(f"benchmarks.page: {err}\n")
        return int(exit_code(err))
    sys.stdout.write(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    app.command()(run)
    sys.exit(app(standalone_mode=False))
