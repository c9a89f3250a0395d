"""A small real decoder: an ONNX graph that obeys the graph contract, in a real bundle.

A leaky recurrent readout of the tokens' rows. It decodes nothing; it runs everywhere the
product's decoders run, without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.backends.onnxruntime_cpu import describe_graph, record_parity
from export.bundle import DecoderBundle, write_bundle
from export.parity import random_tokens

OPSET = 20
N_FEATURES, N_HIDDEN = 8, 16
BUCKETS = [64, 256]
VELOCITY = {"name": "velocity", "dims": 2, "unit": "cm/s", "low": [-30.0] * 2, "high": [30.0] * 2}
POSITION = {
    "name": "position",
    "dims": 2,
    "unit": "cm",
    "safe": "hold",
    "low": [-15.0] * 2,
    "high": [15.0] * 2,
}


def tiny_graph(outputs: Sequence[str] = ("velocity",), seed: int = 0) -> bytes:
    """The ONNX file: rows gathered, weighted by count and time, summed, one leaky tanh layer."""
    rng = np.random.default_rng(seed)
    floats, whole = TensorProto.FLOAT, TensorProto.INT32
    inputs = [
        helper.make_tensor_value_info("unit", whole, ["N"]),
        helper.make_tensor_value_info("t_rel", floats, ["N"]),
        helper.make_tensor_value_info("count", floats, ["N"]),
        helper.make_tensor_value_info("table", floats, ["R", N_FEATURES]),
        helper.make_tensor_value_info("session", floats, [N_HIDDEN]),
        helper.make_tensor_value_info("lead_s", floats, [1]),
        helper.make_tensor_value_info("memory_h", floats, [1, N_HIDDEN]),
    ]
    constants = {
        "axis_last": np.array([1]),
        "axis_first": np.array([0]),
        "one": np.array([1.0], np.float32),
        "keep": np.array([0.9], np.float32),
        "w_in": rng.normal(0, 0.5, (N_FEATURES, N_HIDDEN)).astype(np.float32),
        "w_back": rng.normal(0, 0.2, (N_HIDDEN, N_HIDDEN)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "unit"], ["rows"], axis=0),
        helper.make_node("Add", ["t_rel", "one"], ["later"]),
        helper.make_node("Mul", ["later", "count"], ["weight"]),
        helper.make_node("Unsqueeze", ["weight", "axis_last"], ["weight_2d"]),
        helper.make_node("Mul", ["rows", "weight_2d"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "axis_first"], ["summed"], keepdims=1),
        helper.make_node("MatMul", ["summed", "w_in"], ["driven"]),
        helper.make_node("MatMul", ["memory_h", "w_back"], ["carried"]),
        helper.make_node("Add", ["driven", "carried"], ["both"]),
        helper.make_node("Tanh", ["both"], ["fresh"]),
        helper.make_node("Mul", ["memory_h", "keep"], ["kept"]),
        helper.make_node("Add", ["fresh", "kept"], ["memory_h_out"]),
        helper.make_node("Add", ["memory_h_out", "session"], ["biased"]),
        helper.make_node("Add", ["biased", "lead_s"], ["led"]),
    ]
    for name in outputs:
        constants[f"w_{name}"] = rng.normal(0, 0.5, (N_HIDDEN, 2)).astype(np.float32)
        nodes.append(helper.make_node("MatMul", ["led", f"w_{name}"], [f"{name}_2d"]))
        nodes.append(helper.make_node("Squeeze", [f"{name}_2d", "axis_first"], [name]))
    declared = [helper.make_tensor_value_info(name, floats, [2]) for name in outputs]
    declared.append(helper.make_tensor_value_info("memory_h_out", floats, [1, N_HIDDEN]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        inputs,
        declared,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def tiny_parts(
    unit_keys: Sequence[str],
    hop_s: float = 0.02,
    bin_s: float = 0.02,
    *,
    with_position: bool = False,
    name: str = "tiny",
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of `write_bundle` after the path: the manifest's fields, and the contents."""
    rng = np.random.default_rng(seed)
    outputs: list[Mapping[str, Any]] = [VELOCITY, POSITION] if with_position else [VELOCITY]
    graph = tiny_graph([output["name"] for output in outputs], seed)
    tables = {
        "table": rng.normal(0, 0.3, (len(unit_keys), N_FEATURES)).astype(np.float32),
        "session": rng.normal(0, 0.1, N_HIDDEN).astype(np.float32),
    }
    signature = describe_graph(graph, OPSET)
    tokens = random_tokens(rng, n_rows=len(unit_keys), n_beats=20, bin_s=bin_s, n_most=BUCKETS[-1])
    record = record_parity(graph, signature, tables, tokens, [o["name"] for o in outputs])
    fields = {
        "name": name,
        "family": "streaming",
        "created_utc": "2026-11-21T00:00:00Z",
        "session": "nobody/2026-11-21/tiny",
        "units": [{"key": key, "row": row} for row, key in enumerate(unit_keys)],
        "hop_s": hop_s,
        "bin_s": bin_s,
        "context_s": 0.5,
        "stale_after_s": 0.1,
        "token_buckets": BUCKETS,
        "lead_s": {"min": 0.0, "max": 0.1, "default": 0.0},
        "outputs": outputs,
        "graph": signature.model_dump(),
    }
    weights = {"nothing": np.zeros(1, np.float32)}
    return fields, {"graph": graph, "tables": tables, "weights": weights, "parity": record}


def write_tiny_bundle(
    path: Path,
    unit_keys: Sequence[str],
    hop_s: float = 0.02,
    bin_s: float = 0.02,
    *,
    with_position: bool = False,
    name: str = "tiny",
    seed: int = 0,
) -> DecoderBundle:
    """A bundle with the output `velocity` (cm/s, safe zero) and, if asked, `position` (cm, hold).

    Args:
        path: a directory that does not exist yet.
        unit_keys: the units it knows, in the order of its rows.
        hop_s: seconds between beats.
        bin_s: length of a bin, seconds.
        with_position: declare the second output.
        name: the wire's `decoder_id`.
        seed: of its random weights.
    """
    fields, contents = tiny_parts(
        unit_keys, hop_s, bin_s, with_position=with_position, name=name, seed=seed
    )
    return write_bundle(path, fields, **contents)
