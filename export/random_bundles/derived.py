"""A bundle with another decoder's graph over rows drawn at random, for `bench loop` and tests.

It costs what the base costs and decodes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.backends.onnxruntime_cpu import record_parity
from export.bundle import DecoderBundle, is_per_unit, write_bundle
from export.parity import random_tokens

BUDGET_HZ = 40.0
SMALLEST_BUCKET = 64
PARITY_S = 1.0


def derive_bundle(
    base: DecoderBundle,
    out_path: Path,
    *,
    unit_keys: Sequence[str],
    hop_s: float,
    bin_s: float,
    name: str = "generated",
    seed: int = 0,
) -> DecoderBundle:
    """Write a bundle with the base's graph, byte for byte, for other units and another hop.

    Args:
        base: gives the graph and the rows to draw from.
        out_path: a directory that does not exist yet.
        unit_keys: the units, ordered as the new rows.
        hop_s: seconds between beats.
        bin_s: bin length, seconds.
        name: the wire's `decoder_id`.
        seed: for the rows and the parity record's tokens.

    Raises:
        BundleError: `out_path` exists, or a value cannot be.
    """
    rng = np.random.default_rng(seed)
    graph, signature = base.graph_path.read_bytes(), base.manifest.graph
    tables = _drawn_tables(base, rng, len(unit_keys))
    n_beats = max(20, math.ceil(PARITY_S / hop_s))
    fields = _fields(base, unit_keys, hop_s, bin_s)
    n_most = fields["token_buckets"][-1]
    tokens = random_tokens(
        rng,
        n_rows=len(unit_keys),
        n_beats=n_beats,
        bin_s=bin_s,
        n_most=n_most,
        leads_s=base.manifest.lead_s.ends,
    )
    outputs = [output.name for output in base.manifest.outputs]
    return write_bundle(
        out_path,
        fields | {"name": name},
        graph=graph,
        tables=tables,
        weights=base.weights(),
        parity=record_parity(graph, signature, tables, tokens, outputs),
    )


def _drawn_tables(
    base: DecoderBundle, rng: np.random.Generator, n_units: int
) -> Mapping[str, np.ndarray]:
    drawn = rng.choice(sorted(set(base.row_of_key.values())), n_units)
    return {
        tensor.name: base.tables[tensor.name][drawn]
        if is_per_unit(tensor)
        else base.tables[tensor.name]
        for tensor in base.manifest.graph.tables
    }


def _fields(
    base: DecoderBundle, unit_keys: Sequence[str], hop_s: float, bin_s: float
) -> dict[str, Any]:
    said = base.manifest.model_dump(mode="json")
    kept = ("family", "context_s", "stale_after_s", "lead_s", "outputs", "graph", "parity")
    note = "rows drawn at random from another decoder's table: this decodes nothing"
    return {field: said[field] for field in kept} | {
        "parent_id": said["id"],
        "session": "nobody/2000-01-01/generated",
        "units": [{"key": key, "row": row} for row, key in enumerate(unit_keys)],
        "hop_s": hop_s,
        "bin_s": bin_s,
        "token_buckets": _buckets(len(unit_keys), bin_s),
        "training": {"note": note, "config": said["training"].get("config")},
    }


def _buckets(n_units: int, bin_s: float) -> list[int]:
    """Powers of two up to a bin's spikes at 40 Hz per unit."""
    n_most = max(SMALLEST_BUCKET, math.ceil(n_units * BUDGET_HZ * bin_s))
    return [2**i for i in range(6, math.ceil(math.log2(n_most)) + 1)]
