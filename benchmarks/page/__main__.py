"""`python -m benchmarks.page`: what the live page costs."""

from __future__ import annotations

import json
import sys
from typing import Annotated

from benchmarks.command import HopMs, Option, RateHz, Rounds, Units, main
from benchmarks.page.left_open import left_open
from benchmarks.page.measure import measure
from service.bench.loop import Settings


def run(
    units: Units = 1000,
    rate: RateHz = 20.0,
    hop_ms: HopMs = 10.0,
    seconds: Annotated[float, Option(help="Length of each turn.")] = 30.0,
    tabs: Annotated[int, Option(help="Tabs that show the page.")] = 1,
    rounds: Rounds = 3,
    draw: Annotated[bool, Option(help="A browser draws; else programs read.")] = True,
    apart: Annotated[
        bool, Option(help="The browser has half of the cores for itself, as on another machine.")
    ] = True,
    priority: Annotated[
        int,
        Option(help="SCHED_FIFO priority of sender and client, who are not measured; 0 for none."),
    ] = 40,
    minutes: Annotated[
        int, Option(help="Leave the page of a demo open so long, and tell its memory only.")
    ] = 0,
) -> int:
    """Measure the daemon with and without the page, in turn; prints one JSON object."""
    if minutes:
        sys.stdout.write(json.dumps(left_open(minutes), indent=1) + "\n")
        return 0
    settings = Settings(
        n_units=units, rate_hz=rate, hop_s=hop_ms * 1e-3, seconds=seconds, block_s=4.7e-3
    )
    told = measure(
        settings,
        n_tabs=tabs,
        n_rounds=rounds,
        is_drawn=draw,
        is_apart=apart,
        priority=priority,
    )
    sys.stdout.write(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    main(run)
