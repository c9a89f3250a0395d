"""`python -m benchmarks.rot`: a bit flips in a table of a running daemon, every minute."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from benchmarks.rot.hour import NOT_HELD, rot
from service.errors import HANDLED, exit_code
from streams.lsl.inlets import quieten

Option = typer.Option


def run(
    minutes: Annotated[float, Option(help="Length.")] = 60.0,
    every_s: Annotated[float, Option(help="Seconds from one flipped bit to the next.")] = 60.0,
    backend: Annotated[str, Option(help="Runs the decoder.")] = "numba-cpu",
    seed: Annotated[int, Option(help="Of the bits.")] = 0,
    json_: Annotated[bool, Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Flip a bit of a decoder in service again and again, from outside, and tell what came of it.

    Ends with code 8 if a bit was not noticed in the time that the daemon states, or a decode that
    may have come from a damaged table was `ok` for longer.
    """
    quieten()
    try:
        return 0 if rot(minutes * 60.0, every_s, backend, seed, as_json=json_) else NOT_HELD
    except HANDLED as err:
        sys.stderr.write(f"benchmarks.rot: {err}\n")
        return int(exit_code(err))


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    app.command()(run)
    sys.exit(app(standalone_mode=False))
