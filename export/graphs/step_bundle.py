"""Write a step module's bundle: signature, tables and parity record follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from export.backends.onnxruntime_cpu import describe_graph
from export.backends.torch_cpu import TorchBackend
from export.bundle import DecoderBundle, write_bundle
from export.graphs.to_onnx import OPSET
from export.parity import random_tokens, replay


def write_step_bundle(
    out: Path,
    step: nn.Module,
    graph: bytes,
    fields: Mapping[str, Any],
    *,
    tables: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    n_beats: int,
    mean_hz: float = 20.0,
    whole_us: bool = False,
) -> DecoderBundle:
    """Write a bundle, its parity record decoded by torch from random spikes.

    Args:
        out: a directory that does not exist yet; its name becomes the decoder's.
        step: takes the graph's inputs and gives its outputs, in the graph's order.
        graph: the step as ONNX.
        fields: for the manifest, but for `name` and `graph`.
        tables: graph inputs that belong to the session.
        weights: for the bundle.
        n_beats: parity record length.
        mean_hz: unit rate in the parity record.
        whole_us: round its token times to whole microseconds, as the loop's are.

    Raises:
        BundleError: `out` exists, or a field is wrong.
    """
    signature = describe_graph(graph, OPSET)
    held = {name: np.ascontiguousarray(t.detach().numpy()) for name, t in tables.items()}
    lead_s = fields["lead_s"]
    tokens = random_tokens(
        np.random.default_rng(0),
        n_rows=len(fields["units"]),
        n_beats=n_beats,
        bin_s=fields["bin_s"],
        n_most=max(fields["token_buckets"]),
        leads_s=(lead_s["min"], lead_s["max"]),
        mean_hz=mean_hz,
    )
    if whole_us:
        # In float64: float32 does not hold whole microseconds as seconds.
        rounded = np.round(tokens.t_rel.astype(np.float64) * 1e6) * 1e-6
        tokens = replace(tokens, t_rel=rounded.astype(np.float32))
    names = [output["name"] for output in fields["outputs"]]
    return write_bundle(
        out,
        {**fields, "name": out.name, "graph": signature.model_dump()},
        graph=graph,
        tables=held,
        weights={name: value.detach().numpy() for name, value in weights.items()},
        parity=replay(TorchBackend(step, signature, held, names), tokens),
    )
