"""`python -m benchmarks.days`: thirty days of a simulated subject, in simulated time."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

Option = typer.Option
BASE = Path(__file__).parents[2] / "configs" / "bundles" / "demo"


def run(
    work: Annotated[Path, Option(help="Folder for the days; goes on with what is there.")],
    subject: Annotated[int, Option(help="Which simulated subject.")] = 1,
    seed: Annotated[int, Option(help="Of noise and targets.")] = 0,
    first_day: Annotated[int, Option(help="Calibrated in open loop; arrays shift on 25, 50.")] = 22,
    days: Annotated[int, Option(help="How many in a row.")] = 30,
    minutes: Annotated[float, Option(help="Driven each day.")] = 4.0,
    base: Annotated[Path, Option(help="The decoder that all ways begin with.")] = BASE,
    figure: Annotated[Path | None, Option(help="Draw the rates here; needs matplotlib.")] = None,
    as_json: Annotated[bool, Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Compare decoders: calibrated each morning, from runs only, and never calibrated again."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from benchmarks.days.told import draw, summary, table
    from benchmarks.days.ways import Choices, Scenario

    choices = Choices(subject, seed, first_day, days, minutes, str(base))
    scenario = Scenario(work, choices)
    scenario.go_on(_say)
    if figure is not None:
        draw(scenario, figure)
    sys.stdout.write(json.dumps(summary(scenario)) + "\n" if as_json else table(scenario))
    return 0


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    app.command()(run)
    sys.exit(app(standalone_mode=False))
