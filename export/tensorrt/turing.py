"""A graph for Turing (sm75), whose compiler in TensorRT for RTX takes no matrix products in fp32.

Those that `in_precision` leaves in fp32, few and small, become multiplications and a sum.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.engines.constants import with_nodes
from export.errors import ExportError

TURING = "sm75"


def without_fp32_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with each `MatMul` and `Gemm` of fp32 written as multiplications and a sum.

    Args:
        model: static, in fp16.

    Raises:
        ExportError: a `Gemm` scales, or transposes its left operand.
    """
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    floats = _fp32_tensors(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        is_product = node.op_type in ("MatMul", "Gemm") and node.input[0] in floats
        nodes += _summed(node, constants) if is_product else [node]
    return with_nodes(model, nodes, constants)


def _fp32_tensors(model: onnx.ModelProto) -> set[str]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {t.name: t.data_type for t in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        types[value.name] = value.type.tensor_type.elem_type
    return {name for name, kind in types.items() if kind == TensorProto.FLOAT}


def _summed(node: onnx.NodeProto, constants: dict[str, np.ndarray]) -> list[onnx.NodeProto]:
    """Row times column: (..., m, k, 1) times (..., 1, k, n), summed over k."""
    left, right = node.input[0], node.input[1]
    target = node.output[0]
    names = {part: f"{target}__{part}" for part in ("turned", "left", "right", "products", "sum")}
    options: Mapping[str, float] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if options.get("transA", 0) or {options.get("alpha", 1.0), options.get("beta", 1.0)} != {1.0}:
        raise ExportError(f"{node.op_type} {node.name!r} scales or turns an operand: not for sm75")
    nodes = []
    if options.get("transB", 0):
        nodes.append(helper.make_node("Transpose", [right], [names["turned"]], perm=[1, 0]))
        right = names["turned"]
    for name, value in (("__last", -1), ("__third", -3), ("__second", -2)):
        constants[f"axis{name}"] = np.array([value], np.int64)
    is_last = len(node.input) < 3
    nodes += [
        helper.make_node("Unsqueeze", [left, "axis__last"], [names["left"]]),
        helper.make_node("Unsqueeze", [right, "axis__third"], [names["right"]]),
        helper.make_node("Mul", [names["left"], names["right"]], [names["products"]]),
        helper.make_node(
            "ReduceSum",
            [names["products"], "axis__second"],
            [target if is_last else names["sum"]],
            keepdims=0,
        ),
    ]
    if not is_last:
        nodes.append(helper.make_node("Add", [names["sum"], node.input[2]], [target]))
    return nodes
