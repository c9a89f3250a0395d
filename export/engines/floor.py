"""The floor of a step: bytes and operations that it needs, counted from its static graph."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx

from export.engines.constants import inferred_types, static_shapes

N_BYTES = {1: 4, 6: 4, 7: 8, 9: 1, 10: 2, 16: 2}
"""Of an element, by ONNX's number of its type."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The least work of a step.

    Attributes:
        n_bytes: weights, inputs and outputs, each moved once; of tables what is gathered at most.
        n_operations: multiplications and additions of its matrix products.
    """

    n_bytes: int
    n_operations: int


def floor_of(model: onnx.ModelProto, n_tokens: int) -> Floor:
    """The floor of a graph in which every shape is static."""
    shapes = static_shapes(model)
    moved = [tensor.name for tensor in model.graph.initializer]
    moved += [value.name for value in (*model.graph.input, *model.graph.output)]
    types = {name: kind.elem_type for name, kind in inferred_types(model).items()}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    n_bytes = 0
    for name in moved:
        shape = shapes[name]
        if name == "table":
            shape = (min(shape[0], n_tokens), *shape[1:])
        n_bytes += math.prod(shape) * N_BYTES[types[name]]
    return Floor(n_bytes, sum(_operations(node, shapes) for node in model.graph.node))


def _operations(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type not in ("MatMul", "Gemm"):
        return 0
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    length = shapes[node.input[0]][0 if transposed else -1]
    return 2 * length * math.prod(shapes[node.output[0]])
