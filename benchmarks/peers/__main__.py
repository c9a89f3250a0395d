"""`python -m benchmarks.peers`: spikeloop beside POYO, ezmsg and a plain script."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.peers.compare import bench_peers
from service.bench.loop import Settings
from service.errors import HANDLED, exit_code
from streams.lsl.inlets import quieten

Option = typer.Option


def run(
    units: Annotated[int, Option(help="Units that fire.")] = 1000,
    rate: Annotated[float, Option(help="Spikes per second and unit.")] = 20.0,
    hop_ms: Annotated[float, Option(help="Milliseconds between decodes.")] = 20.0,
    seconds: Annotated[float, Option(help="Length of each turn.")] = 15.0,
    block_ms: Annotated[float, Option(help="The sender's blocks; no divisor of the hop.")] = 4.7,
    rounds: Annotated[int, Option(help="Turns of each.")] = 3,
    python: Annotated[Path | None, Option(help="An interpreter with the peers' packages.")] = None,
    json: Annotated[bool, Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Measure spikeloop beside other people's loops on one stream, in turn."""
    settings = Settings(
        n_units=units,
        rate_hz=rate,
        hop_s=hop_ms * 1e-3,
        seconds=seconds,
        block_s=block_ms * 1e-3,
    )
    quieten()
    try:
        return bench_peers(settings, python=python, n_rounds=rounds, as_json=json)
    except HANDLED as err:
        sys.stderr.write(f"benchmarks.peers: {err}\n")
        return int(exit_code(err))


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    app.command()(run)
    sys.exit(app(standalone_mode=False))
