"""A decoder whose step takes as long as is asked for: wide layers that every token runs through."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.backends.onnxruntime_cpu import OnnxruntimeBackend, describe_graph, record_parity
from export.bundle import DecoderBundle, write_bundle
from export.parity import random_tokens
from streams.clock import MonotonicClock
from streams.messages import TokenWindow
from tests.export.tiny_graph import N_FEATURES, N_HIDDEN, OPSET, tiny_graph, tiny_parts

WIDTH = 256
N_TIMED = 20


def heavy_graph(n_layers: int) -> bytes:
    """The tiny graph, each of whose tokens first goes through `n_layers` of 256 x 256."""
    model = onnx.load_from_string(tiny_graph())
    graph, rng = model.graph, np.random.default_rng(1)
    weights = {
        "w_wide": rng.normal(0, 0.3, (N_FEATURES, WIDTH)),
        "w_deep": rng.normal(0, WIDTH**-0.5, (WIDTH, WIDTH)),
        "w_narrow": rng.normal(0, 0.06, (WIDTH, N_FEATURES)),
    }
    graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()
    )
    nodes = [helper.make_node("MatMul", ["rows", "w_wide"], ["deep_0"])]
    for i in range(n_layers):
        nodes.append(helper.make_node("MatMul", [f"deep_{i}", "w_deep"], [f"through_{i}"]))
        nodes.append(helper.make_node("Tanh", [f"through_{i}"], [f"deep_{i + 1}"]))
    nodes.append(helper.make_node("MatMul", [f"deep_{n_layers}", "w_narrow"], ["rows_deep"]))
    at = next(i for i, node in enumerate(graph.node) if "weighted" in node.output)
    graph.node[at].input[0] = "rows_deep"
    for node in reversed(nodes):
        graph.node.insert(at, node)
    content: bytes = model.SerializeToString()
    return content


def step_s(graph: bytes, n_tokens: int, n_units: int) -> float:
    """Seconds that a step of so many tokens takes here, the fastest of some."""
    rng = np.random.default_rng(0)
    tables = {
        "table": rng.normal(0, 0.3, (n_units, N_FEATURES)).astype(np.float32),
        "session": np.zeros(N_HIDDEN, np.float32),
    }
    backend = OnnxruntimeBackend(graph, describe_graph(graph, OPSET), tables, ["velocity"])
    window = TokenWindow(
        unit=np.resize(np.arange(n_units, dtype=np.int32), n_tokens),
        t_rel=np.zeros(n_tokens, np.float32),
        count=np.ones(n_tokens, np.float32),
        t_window=0.0,
    )
    clock, taken_s = MonotonicClock(), []
    for _ in range(N_TIMED):
        t_s = clock.now()
        backend.step(window, 0.0)
        taken_s.append(clock.now() - t_s)
    return min(taken_s)


def write_heavy_bundle(
    path: Path, unit_keys: Sequence[str], hop_s: float, bucket: int, bucket_s: float
) -> DecoderBundle:
    """A bundle whose step at its largest bucket takes about `bucket_s` on this machine now.

    Args:
        path: a directory that does not exist yet.
        unit_keys: the units it knows.
        hop_s: seconds between beats, and length of a bin.
        bucket: tokens in the largest bucket.
        bucket_s: what a step of so many should take.
    """
    one_s = step_s(heavy_graph(8), bucket, len(unit_keys)) / 8
    graph = heavy_graph(max(1, round(bucket_s / one_s)))
    fields, contents = tiny_parts(unit_keys, hop_s, hop_s, name="heavy")
    signature = describe_graph(graph, OPSET)
    tokens = random_tokens(
        np.random.default_rng(2), n_rows=len(unit_keys), n_beats=20, bin_s=hop_s, n_most=bucket
    )
    record = record_parity(graph, signature, contents["tables"], tokens, ["velocity"])
    fields |= {"graph": signature.model_dump(), "token_buckets": [bucket]}
    return write_bundle(path, fields, **(contents | {"graph": graph, "parity": record}))
