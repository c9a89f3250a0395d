"""`spikeloop bench decode`: the graph alone, over the number of tokens and the backends at hand."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from export.backends import open_backend
from export.bundle import DecoderBundle, open_bundle
from export.errors import ExportError
from export.generated import derive_bundle
from service.bench.screen import show
from service.bench.sender import unit_keys
from service.errors import ExitCode
from service.loop.percentiles import percentiles
from service.serve import bundle_path
from streams.clock import MonotonicClock
from streams.messages import TokenWindow

TOKENS_PER_S = (200, 1_000, 4_000, 10_000, 20_000)
UNIT_HZ = 20.0
N_WARM, N_RUNS = 100, 2_000
LONG_S = 20.0
BYTES = 4


def bench_decode(
    *, bundles: Sequence[str], backends: Sequence[str], hop_s: float, as_json: bool
) -> int:
    """Time single steps and print one row per bundle, backend and number of tokens.

    Args:
        bundles: bundles whose graphs are timed, each over units drawn from its table.
        backends: those that cannot run are listed with the reason.
        hop_s: between beats; with the spike rate it gives the tokens of a bin.
        as_json: one JSON object instead of a table.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    rows = [row for named in bundles for row in _rows_of(named, backends, hop_s)]
    if as_json:
        show("", {"hop_ms": hop_s * 1e3, "threads": 1, "rows": rows}, as_json=True)
    else:
        _print(rows)
    return ExitCode.DONE


def _rows_of(named: str, backends: Sequence[str], hop_s: float) -> Iterator[dict[str, Any]]:
    base = open_bundle(bundle_path(named))
    for tokens_per_s in TOKENS_PER_S:
        with tempfile.TemporaryDirectory(prefix="spikeloop-") as folder:
            bundle = _sized(base, Path(folder) / "bundle", tokens_per_s, hop_s)
            for backend in backends:
                yield _floor(bundle, tokens_per_s) | _time(bundle, backend, tokens_per_s)


def _sized(base: DecoderBundle, path: Path, tokens_per_s: int, hop_s: float) -> DecoderBundle:
    keys = unit_keys(max(1, round(tokens_per_s / UNIT_HZ)))
    whole_window = base.manifest.family == "poyo"
    bin_s = base.manifest.bin_s if whole_window else hop_s
    return derive_bundle(
        base, path, unit_keys=keys, hop_s=max(hop_s, 1.0) if whole_window else hop_s, bin_s=bin_s
    )


def _time(bundle: DecoderBundle, name: str, tokens_per_s: int) -> dict[str, Any]:
    row: dict[str, Any] = {"backend": name, "refused": ""}
    try:
        backend = open_backend(bundle, name).backend
    except ExportError as err:
        return row | {"refused": str(err), "decode_ms": percentiles([])}
    clock, window = MonotonicClock(), _window(bundle, tokens_per_s)
    lead_s, t_end_s = bundle.manifest.lead_s.default, clock.now() + LONG_S
    taken_ms: list[float] = []
    while len(taken_ms) < N_WARM + N_RUNS and (len(taken_ms) < N_WARM or clock.now() < t_end_s):
        t_start_s = clock.now()
        backend.step(window, lead_s)
        taken_ms.append(1e3 * (clock.now() - t_start_s))
    return row | {"runs": len(taken_ms) - N_WARM, "decode_ms": percentiles(taken_ms[N_WARM:])}


def _window(bundle: DecoderBundle, tokens_per_s: int) -> TokenWindow:
    n = max(1, round(tokens_per_s * bundle.manifest.bin_s))
    rng = np.random.default_rng(0)
    return TokenWindow(
        unit=rng.integers(0, len(bundle.row_of_key), n, dtype=np.int32),
        t_rel=np.sort(rng.uniform(0, bundle.manifest.bin_s, n)).astype(np.float32),
        count=np.ones(n, np.float32),
        t_window=0.0,
    )


def _floor(bundle: DecoderBundle, tokens_per_s: int) -> dict[str, Any]:
    """What must at least be moved and multiplied: the weights once, and each token's row."""
    n_weights = sum(weight.size for weight in bundle.weights().values())
    n_tokens = round(tokens_per_s * bundle.manifest.bin_s)
    widths = [
        int(np.prod(bundle.tables[tensor.name].shape[1:]))
        for tensor in bundle.manifest.graph.tables
        if len(bundle.tables[tensor.name]) == len(bundle.row_of_key)
    ]
    return {
        "bundle": bundle.manifest.session or bundle.manifest.name,
        "family": bundle.manifest.family,
        "units": len(bundle.row_of_key),
        "tokens_per_s": tokens_per_s,
        "tokens": n_tokens,
        "parameters": n_weights,
        "floor_kib": (n_weights + n_tokens * sum(widths)) * BYTES / 1024,
        "floor_mflop": 2e-6 * (n_weights + n_tokens * sum(widths)),
    }


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(title="bench decode: one step, milliseconds", title_justify="left")
    for name in ("family", "backend", "units", "tokens", "p50", "p99", "p99.9", "max", "floor KiB"):
        table.add_column(name, justify="right")
    for row in rows:
        times = [f"{row['decode_ms'][name]:.3f}" for name in ("p50", "p99", "p999", "max")]
        if row["refused"]:
            times = ["refused", "", "", ""]
        table.add_row(
            row["family"], row["backend"], str(row["units"]), str(row["tokens"]), *times,
            f"{row['floor_kib']:.0f}",
        )  # fmt: skip
    Console().print(table)
    for row in rows:
        if row["refused"]:
            Console().print(f"{row['backend']}, {row['tokens']} tokens: {row['refused']}")
