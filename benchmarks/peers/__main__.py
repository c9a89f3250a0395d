"""`python -m benchmarks.peers`: spikeloop beside POYO, ezmsg and a plain script."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from benchmarks.command import AsJson, HopMs, Option, RateHz, Rounds, Units, main
from benchmarks.peers.compare import bench_peers
from service.bench.loop import Settings


def run(
    units: Units = 1000,
    rate: RateHz = 20.0,
    hop_ms: HopMs = 20.0,
    seconds: Annotated[float, Option(help="Length of each turn.")] = 15.0,
    block_ms: Annotated[float, Option(help="The sender's blocks; no divisor of the hop.")] = 4.7,
    rounds: Rounds = 3,
    python: Annotated[Path | None, Option(help="An interpreter with the peers' packages.")] = None,
    json: AsJson = False,
) -> int:
    """Measure spikeloop beside other people's loops on one stream, in turn."""
    settings = Settings(
        n_units=units,
        rate_hz=rate,
        hop_s=hop_ms * 1e-3,
        seconds=seconds,
        block_s=block_ms * 1e-3,
    )
    return bench_peers(settings, python=python, n_rounds=rounds, as_json=json)


if __name__ == "__main__":
    main(run)
