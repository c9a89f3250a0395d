"""A streaming decoder with random weights and two outputs, one of classes, as parts of a bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from decoders.streaming.linear_filter import SERVES_TO_S, TAPS_S
from decoders.streaming.shape import OutputSpec, StreamingConfig
from decoders.streaming.step import StepModule
from export.backends.onnxruntime_cpu import describe_graph
from export.backends.torch_cpu import TorchBackend
from export.graphs.step_bundle import OPSET
from export.graphs.streaming import streaming_graph
from export.parity import random_tokens, replay

KEYS = [f"u{i}" for i in range(30)]
BUCKET = 64
CONFIG = StreamingConfig(
    outputs=(OutputSpec("velocity", 2), OutputSpec("target", 4, classes=True)),
    bin_s=0.02,
    n_latents=3,
    d_unit=16,
    d_value=8,
    d_model=16,
    d_memory=24,
    d_readout=12,
    taps_s=TAPS_S,
    serves_to_s=SERVES_TO_S,
)


def untrained_parts(
    config: StreamingConfig = CONFIG, keys: Sequence[str] = KEYS
) -> tuple[dict[str, Any], dict[str, Any]]:
    """An untrained network of these units as `write_bundle` takes it, its record made by torch."""
    torch.manual_seed(0)
    step = StepModule(config).eval()
    step.decoder.scale[:] = 20.0
    graph = streaming_graph(step)
    signature = describe_graph(graph, OPSET)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        table = step.decoder.encoder.fold(torch.randn(len(keys), config.d_unit)).numpy()
    tables = {"table": table, "session": rng.normal(0, 0.1, config.d_readout).astype(np.float32)}
    tables["centre"] = rng.normal(0, 0.01, config.n_pooled).astype(np.float32)
    if config.taps_s:
        tables |= random_filter(rng, len(keys), config)
        tables["usual"] = rng.normal(0, 0.01, config.n_pooled).astype(np.float32)
        tables["follow"] = np.array([0.05], np.float32)
    tokens = random_tokens(
        rng, n_rows=len(keys), n_beats=100, bin_s=0.02, n_most=BUCKET, leads_s=(0.0, 0.3)
    )
    names = [output.name for output in config.outputs]
    fields = {
        "name": "untrained",
        "family": "streaming",
        "session": "nobody/2026-11-21/untrained",
        "units": [{"key": key, "row": row} for row, key in enumerate(keys)],
        "hop_s": 0.02,
        "bin_s": 0.02,
        "context_s": 1.0,
        "stale_after_s": 0.1,
        "token_buckets": [BUCKET],
        "lead_s": {"min": 0.0, "max": 0.3, "default": 0.0},
        "outputs": [
            {"name": "velocity", "dims": 2, "unit": "cm/s", "low": [-9.0] * 2, "high": [9.0] * 2},
            {"name": "target", "dims": 4, "unit": "", "low": [0.0] * 4, "high": [1.0] * 4},
        ],
        "graph": signature.model_dump(),
        "training": {"config": json.loads(json.dumps(config.to_dict()))},
    }
    return fields, {
        "graph": graph,
        "tables": tables,
        "weights": {name: value.numpy() for name, value in step.state_dict().items()},
        "parity": replay(TorchBackend(step, signature, tables, names), tokens),
    }


def random_filter(
    rng: np.random.Generator, n_rows: int, config: StreamingConfig
) -> dict[str, np.ndarray]:
    """Tables of a filter that counts, of the continuous outputs."""
    continuous = [float(not out.classes) for out in config.outputs for _ in range(out.dims)]
    counts = np.tile(continuous, len(config.taps_s))
    return {
        "filter_rows": (rng.normal(0, 0.5, (n_rows, len(counts))) * counts).astype(np.float32),
        "filter_centre": (rng.normal(0, 2.0, len(counts)) * counts).astype(np.float32),
        "blend": np.stack([np.multiply(0.2, continuous), continuous]).astype(np.float32),
    }
