"""Options that benches share, and a bench as a program."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from service.errors import HANDLED, exit_code
from streams.lsl.inlets import quieten

Option = typer.Option
Units = Annotated[int, Option(help="Units that fire.")]
RateHz = Annotated[float, Option(help="Spikes per second and unit.")]
HopMs = Annotated[float, Option(help="Milliseconds between decodes.")]
Rounds = Annotated[int, Option(help="Turns of each.")]
AsJson = Annotated[bool, Option("--json", help="Print one JSON object.")]


def main(bench: Callable[..., int]) -> None:
    """Run a bench with what the command line says, and end with its code."""
    quieten()
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    app.command()(bench)
    try:
        code = app(standalone_mode=False)
    except HANDLED as err:
        sys.stderr.write(f"bench: {err}\n")
        code = exit_code(err)
    sys.exit(code)
