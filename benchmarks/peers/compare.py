"""`python -m benchmarks.peers`: ours beside others' in one run, as ratios with their spread."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.peers.end_to_end import end_to_end
from benchmarks.peers.environment import interpreter, versions
from benchmarks.peers.per_decode import per_decode, say
from service.bench import machine
from service.bench.loop import Settings
from service.bench.rig import Rig
from service.bench.screen import show
from service.errors import ExitCode

WIDTH = 140


def bench_peers(settings: Settings, *, python: Path | None, n_rounds: int, as_json: bool) -> int:
    """Measure and print.

    Args:
        settings: the spikes, the hop, and how long each has its turn.
        python: an interpreter with the peers' packages; None for one of our own making.
        n_rounds: turns of each.
        as_json: one JSON object instead of tables.
    """
    peers_python, before = interpreter(python, say), machine.processor_ticks()
    with Rig() as rig:
        say("per decode: POYO in eager torch, POYO through ONNX Runtime, ours")
        alone = per_decode(
            rig,
            peers_python,
            n_units=settings.n_units,
            rate_hz=settings.rate_hz,
            hop_s=settings.hop_s,
            n_rounds=max(n_rounds, 5),
        )
        whole = end_to_end(rig, peers_python, settings, n_rounds=n_rounds, say=say)
    result = {
        "per_decode": alone,
        "end_to_end": whole,
        "settings": settings.as_dict() | {"hop_ms": settings.hop_s * 1e3},
        "peers": versions(peers_python),
        "machine": machine.describe(before),
    }
    if as_json:
        show("", result, as_json=True)
    else:
        _print(result)
    return ExitCode.DONE


def _print(result: dict[str, Any]) -> None:
    for part, title in (
        ("per_decode", "one decode, milliseconds: median of the rounds (least-most)"),
        ("end_to_end", "end of a bin to its decode at a client, likewise"),
    ):
        table = Table(title=title, title_justify="left")
        for column in ("", "median", "of ours", "p99", "of ours", "decoded"):
            table.add_column(column, justify="right" if column else "left", no_wrap=True)
        for name, row in result[part]["systems"].items():
            table.add_row(
                name,
                _spread(row["median_ms"], 2),
                _spread(row["median_ratio"], 2),
                _spread(row["p99_ms"], 2),
                _spread(row["p99_ratio"], 2),
                _spread(row["decoded"], 2) if "decoded" in row else "",
            )
        Console(width=WIDTH).print(table)


def _spread(values: list[float], n_digits: int) -> str:
    middle, least, most = statistics.median(values), min(values), max(values)
    digits = n_digits if middle < 100 else 0
    return f"{middle:.{digits}f} ({least:.{digits}f}-{most:.{digits}f})"
