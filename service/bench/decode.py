"""`spikeloop bench decode`: the graph alone, over the number of tokens and the backends at hand."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from export.backends.opening import require_parity
from export.backends.table import BACKENDS, parse_choice
from export.bundle import DecoderBundle, open_bundle
from export.errors import ExportError
from export.random_bundles.derived import derive_bundle
from export.shipped import bundle_path
from service.bench.screen import show
from service.bench.sender import unit_keys
from service.bench.steps import print_rows, random_window, step_ms, without_garbage_collection
from service.errors import ConfigError, ExitCode
from service.telemetry.percentiles import percentiles

TOKENS_PER_S = (200, 1_000, 4_000, 10_000, 20_000)
UNIT_HZ = 20.0
BYTES = 4


def bench_decode(
    *, bundles: Sequence[str], poyo: bool, backends: Sequence[str], hop_s: float, as_json: bool
) -> int:
    """Time single steps and print one row per bundle, number of tokens and backend.

    Args:
        bundles: bundles whose graphs are timed, each over units drawn from its table.
        poyo: whether POYO 1.3M is timed too, with random weights.
        backends: those that cannot run are listed with the reason.
        hop_s: between beats; with the spike rate it gives the tokens of a bin.
        as_json: one JSON object instead of a table.
    """
    without_garbage_collection()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="spikeloop-") as folder, console.status("") as status:
        paths = [bundle_path(named) for named in bundles]
        if poyo:
            paths.append(_random_poyo(Path(folder) / "poyo-1.3M"))
        rows = []
        for row in (row for path in paths for row in _rows_of(path, backends, hop_s)):
            rows.append(row)
            status.update(f"{row['family']}, {row['tokens_per_s']:,} tokens/s, {row['backend']}")
    if as_json:
        show("", {"hop_ms": hop_s * 1e3, "threads": 1, "rows": rows}, as_json=True)
    else:
        _print(rows)
    return ExitCode.DONE


def _random_poyo(path: Path) -> Path:
    try:
        from export.random_bundles.sizes import random_poyo
    except ImportError as err:
        raise ConfigError(
            f"POYO is made with torch and onnx, and {err.name} is not installed: "
            "pip install 'spikeloop[train]', or say --no-poyo"
        ) from err
    return random_poyo(path).path


def _rows_of(path: Path, backends: Sequence[str], hop_s: float) -> Iterator[dict[str, Any]]:
    base = open_bundle(path)
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


def _time(bundle: DecoderBundle, choice: str, tokens_per_s: int) -> dict[str, Any]:
    """Without the gate's own timing: what is too slow for a hop is to be shown here."""
    row: dict[str, Any] = {"backend": choice, "refused": ""}
    try:
        name, precision = parse_choice(choice)
        backend = BACKENDS[name](bundle, precision)
        require_parity(bundle, backend)
    except ExportError as err:
        return row | {"refused": str(err), "runs": 0, "decode_ms": percentiles([])}
    window = random_window(bundle, max(1, round(tokens_per_s * bundle.manifest.bin_s)))
    taken_ms = step_ms(backend, window, bundle.manifest.lead_s.default)
    return row | {"runs": len(taken_ms), "decode_ms": percentiles(taken_ms)}


def _floor(bundle: DecoderBundle, tokens_per_s: int) -> dict[str, Any]:
    """Return the least that must be moved: the weights once, and each token's row.

    POYO's tokens are the spikes, and START and END of each unit.
    """
    n_weights = sum(weight.size for weight in bundle.weights().values())
    n_spikes = max(1, round(tokens_per_s * bundle.manifest.bin_s))
    n_edges = 2 * len(bundle.row_of_key) if bundle.manifest.family == "poyo" else 0
    n_tokens = n_spikes + n_edges
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
    }


def _print(rows: list[dict[str, Any]]) -> None:
    numbers = ("tokens/s", "tokens", "params", "floor", "p50", "p99", "p99.9", "max")
    title = "bench decode: one step on one thread, milliseconds"
    print_rows(title, ("family", "backend"), numbers, map(_cells, rows))
    for reason in dict.fromkeys(f"{row['backend']}: {row['refused']}" for row in rows):
        if not reason.endswith(": "):
            Console().print(reason)


def _cells(row: dict[str, Any]) -> list[str]:
    times = [_digits(row["decode_ms"][name]) for name in ("p50", "p99", "p999", "max")]
    return [
        row["family"],
        row["backend"],
        f"{row['tokens_per_s']:,}",
        f"{row['tokens']:,}",
        f"{row['parameters'] / 1e6:.2f}M",
        f"{row['floor_kib'] / 1024:.1f} MB",
        *(["refused", "", "", ""] if row["refused"] else times),
    ]


def _digits(ms: float) -> str:
    return f"{ms:.3f}" if ms < 1 else f"{ms:.2f}" if ms < 10 else f"{ms:.1f}"
