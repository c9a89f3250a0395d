"""A bundle made from another one: it inherits fields, and has its own parity record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from export.backends.onnxruntime_cpu import record_parity
from export.bundle import DecoderBundle, write_bundle
from export.parity import random_tokens

PARITY_S = 4.0
INHERITED = (
    "family", "session", "units", "hop_s", "bin_s", "context_s", "stale_after_s", "token_buckets",
    "lead_s", "outputs", "graph", "parity", "training",
)  # fmt: skip


def write_child(
    out: Path,
    parent: DecoderBundle,
    fields: Mapping[str, Any],
    *,
    graph: bytes,
    tables: Mapping[str, np.ndarray],
    learnt: Mapping[str, np.ndarray],
) -> DecoderBundle:
    """Write a bundle.

    Args:
        out: directory to write; must not exist.
        parent: the decoder that it was made from.
        fields: for the manifest, where they differ from the parent's.
        graph: ONNX, with the parent's signature.
        tables: the graph's.
        learnt: weights that the parent does not have or has otherwise.

    Raises:
        export.errors.ExportError: `out` cannot be written.
    """
    said, signature = parent.manifest.model_dump(mode="json"), parent.manifest.graph
    own = {field: said[field] for field in INHERITED} | {"parent_id": said["id"], "name": out.name}
    own |= dict(fields)
    tokens = random_tokens(
        np.random.default_rng(0),
        n_rows=len(own["units"]),
        n_beats=round(PARITY_S / own["hop_s"]),
        bin_s=own["bin_s"],
        n_most=own["token_buckets"][-1],
        leads_s=parent.manifest.lead_s.ends,
    )
    names = [output.name for output in parent.manifest.outputs]
    return write_bundle(
        out,
        own,
        graph=graph,
        tables=tables,
        weights={**parent.weights(), **learnt},
        parity=record_parity(graph, signature, tables, tokens, names),
    )
