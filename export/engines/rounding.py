"""A 16-bit graph as one in fp32 that rounds where it would: what reduced precision costs, on a CPU.

A GPU's matrix units multiply 16-bit numbers exactly and sum in fp32. So does this graph: each
operation takes rounded operands, runs in fp32, and rounds its result.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.engines.constants import with_nodes
from export.engines.precision import MOVERS

_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in fp32 throughout, with the roundings of its 16-bit parts.

    Args:
        model: of `in_precision`, "fp16" or "bf16".
    """
    half = next(n for n in map(_cast_to, model.graph.node) if n in _HALVES)
    constants = {t.name: _widened(t) for t in model.graph.initializer}
    halves = {t.name for t in model.graph.initializer if t.data_type in _HALVES}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        to = _cast_to(node)
        if to in _HALVES:
            nodes += _rounded(node.input[0], node.output[0], half)
            halves.add(node.output[0])
        elif to == TensorProto.FLOAT and node.input[0] in halves:
            nodes.append(helper.make_node("Identity", node.input[:1], node.output[:1]))
        elif not halves & set(node.input):
            nodes.append(node)
        else:
            halves |= set(node.output)
            nodes += [node] if node.op_type in MOVERS else _computed(node, half)
    return with_nodes(model, nodes, constants)


def _cast_to(node: onnx.NodeProto) -> int:
    """The type that a `Cast` gives; 0 for another operator."""
    return next((a.i for a in node.attribute if node.op_type == "Cast" and a.name == "to"), 0)


def _widened(tensor: onnx.TensorProto) -> np.ndarray:
    values: np.ndarray = numpy_helper.to_array(tensor)
    return values.astype(np.float32) if tensor.data_type in _HALVES else values


def _computed(node: onnx.NodeProto, half: int) -> list[onnx.NodeProto]:
    wide = onnx.NodeProto()
    wide.CopyFrom(node)
    wide.output[:] = [f"{name}__exact" for name in node.output]
    pairs = zip(wide.output, node.output, strict=True)
    return [wide, *(one for exact, name in pairs for one in _rounded(exact, name, half))]


def _rounded(source: str, target: str, half: int) -> list[onnx.NodeProto]:
    narrow = f"{target}__half"
    return [
        helper.make_node("Cast", [source], [narrow], to=half),
        helper.make_node("Cast", [narrow], [target], to=TensorProto.FLOAT),
    ]
