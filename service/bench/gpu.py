"""`spikeloop bench gpu`: decoders of published sizes, host to host, and how many a GPU serves."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from export.backends.opening import require_parity
from export.backends.table import BACKENDS, Backend, parse_choice
from export.bundle import DecoderBundle, open_bundle
from export.errors import ExportError
from service.bench.screen import show
from service.bench.steps import (
    LONG_S,
    print_rows,
    random_window,
    step_ms,
    times_ms,
    without_garbage_collection,
)
from service.errors import ExitCode
from service.telemetry.percentiles import percentiles
from streams.messages import TokenWindow

N_ROUNDS = 200
MOST_DECODERS = 256
BIN_S = 0.02
RANDOM = {"session": "none: random weights, R2 means nothing", "drop": 0.0}


def bench_gpu(
    *,
    sizes: Sequence[str],
    backends: Sequence[str],
    n_units: int,
    hop_s: float,
    folder: Path | None,
    with_many: bool,
    as_json: bool,
) -> int:
    """Time decoders with random weights at 20 spikes/s a unit.

    Args:
        sizes: those of `export.random_bundles.sizes`; none for all.
        backends: as in the config; those that cannot run are listed with the reason.
        n_units: of each decoder.
        hop_s: between beats, for how many decoders are served.
        folder: where the bundles are kept for the next time; None for nowhere.
        with_many: also find how many decoders are served at that hop.
        as_json: one JSON object instead of a table.
    """
    from export.random_bundles.sizes import SIZES, write_random

    without_garbage_collection()
    rows = []
    with tempfile.TemporaryDirectory(prefix="spikeloop-") as temporary:
        for size in sizes or SIZES:
            path = (folder or Path(temporary)) / f"{size}-{n_units}"
            bundle = (
                open_bundle(path)
                if path.exists()
                else write_random(path, size, n_units=n_units, hop_s=min(hop_s, BIN_S), bin_s=BIN_S)
            )
            rows += [_row(bundle, choice, hop_s, with_many) for choice in backends]
    if as_json:
        show("", {"hop_ms": hop_s * 1e3, "units": n_units, "rows": rows}, as_json=True)
    else:
        _print(rows, hop_s)
    return ExitCode.DONE


def _row(bundle: DecoderBundle, choice: str, hop_s: float, with_many: bool) -> dict[str, Any]:
    name = bundle.manifest.name.rpartition("-")[0]
    row: dict[str, Any] = {"decoder": name, "backend": choice, "refused": ""}
    try:
        backend = _opened(bundle, choice)
        row["parity_error"] = require_parity(bundle, backend)
        row |= _floor(bundle, parse_choice(choice)[1])
    except ExportError as err:
        return row | {"refused": str(err), "step_ms": percentiles([]), "served": None}
    window = random_window(bundle, bundle.manifest.token_buckets[-1])
    row["step_ms"] = percentiles(step_ms(backend, window, bundle.manifest.lead_s.default))
    row["served"] = _served(bundle, backend, window, choice, hop_s) if with_many else None
    return row


def _opened(bundle: DecoderBundle, choice: str) -> Backend:
    """Opened as it is, or after a build: without the gate of time, which is what is measured."""
    from export.engines.build import build

    name, precision = parse_choice(choice)
    try:
        return BACKENDS[name](bundle, precision)
    except ExportError as err:
        if "has not been built" not in str(err):
            raise
    build(bundle, name, precision, judge=lambda backend: RANDOM)
    return BACKENDS[name](bundle, precision)


def _floor(bundle: DecoderBundle, precision: str) -> dict[str, Any]:
    from export.engines.floor import floor_of
    from export.engines.shapes import for_bucket, lowered
    from export.engines.tables import n_rows_of

    n_tokens = bundle.manifest.token_buckets[-1]
    model = for_bucket(bundle, lowered(bundle, precision), n_tokens, n_rows_of(bundle))
    floor = floor_of(model, n_tokens)
    n_weights = sum(weight.size for weight in bundle.weights().values())
    return {
        "parameters": n_weights,
        "tokens": n_tokens,
        "floor_mib": floor.n_bytes / 2**20,
        "floor_mflop": floor.n_operations * 1e-6,
    }


def _served(
    bundle: DecoderBundle, first: Backend, window: TokenWindow, choice: str, hop_s: float
) -> int:
    """The most decoders, by doubling, whose steps in turn end within a hop, 99 of 100 times."""
    decoders, most = [first], 0

    def step_all() -> None:
        for decoder in decoders:
            decoder.step(window, bundle.manifest.lead_s.default)

    while np.percentile(list(times_ms(step_all, N_ROUNDS, LONG_S)), 99) <= 1e3 * hop_s:
        most = len(decoders)
        if most == MOST_DECODERS:
            break
        try:
            decoders += [_opened(bundle, choice) for _ in range(most)]
        except ExportError:
            break
    return most


def _print(rows: Sequence[dict[str, Any]], hop_s: float) -> None:
    title = "bench gpu: one step, host to host, milliseconds"
    numbers = ("tokens", "p50", "p99", "MiB", "MFLOP", "served")
    timed = [_cells(row) for row in rows if not row["refused"]]
    print_rows(title, ("decoder", "backend"), numbers, timed)
    console = Console()
    console.print("MiB, MFLOP: the floor, what a step must move and multiply at least.")
    console.print(f"served: decoders whose steps in turn end within a hop ({1 / hop_s:g} Hz).")
    refused = [f"refused: {row['backend']}: {row['refused']}" for row in rows if row["refused"]]
    for text in dict.fromkeys(refused):
        console.print(text, markup=False)


def _cells(row: dict[str, Any]) -> list[str]:
    times = [f"{row['step_ms'][name]:.3f}" for name in ("p50", "p99")]
    floor = [f"{row['floor_mib']:.1f}", f"{row['floor_mflop']:.0f}"]
    served = "" if row["served"] is None else str(row["served"])
    return [row["decoder"], row["backend"], str(row["tokens"]), *times, *floor, served]
