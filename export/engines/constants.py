"""Constant folding: nodes that need no input are computed once, before the graph is compiled."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every node that depends on constants alone replaced by its value.

    `Shape` of a tensor whose inferred shape is static counts as a constant.

    Args:
        model: its nodes in topological order.

    Returns:
        A new model: of the constants only those that something reads, no inferred shapes.
    """
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    shapes = static_shapes(model)
    kept = []
    for node in model.graph.node:
        values = _values_of(node, known, shapes, model.opset_import)
        if values is None:
            kept.append(node)
        else:
            known.update(values)
    return with_nodes(model, kept, known)


def _values_of(
    node: onnx.NodeProto,
    known: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    opsets: list[onnx.OperatorSetIdProto],
) -> dict[str, np.ndarray] | None:
    """Compute a node's outputs; None where they depend on an input of the graph."""
    if node.op_type == "Shape" and node.input[0] in shapes:
        part = {attribute.name: attribute.i for attribute in node.attribute}
        told = shapes[node.input[0]][part.get("start", 0) : part.get("end")]
        return {node.output[0]: np.array(told, np.int64)}
    if any(name and name not in known for name in node.input):
        return None
    alone = helper.make_graph(
        [node],
        "one",
        [],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output],
        [numpy_helper.from_array(known[name], name) for name in set(node.input) if name],
    )
    values = ReferenceEvaluator(helper.make_model(alone, opset_imports=opsets)).run(None, {})
    return dict(zip(node.output, (np.asarray(value) for value in values), strict=True))


def static_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shapes that are known whole, by the tensor's name: inputs, constants, what is inferred.

    Raises:
        onnx.shape_inference.InferenceError: the graph contradicts itself.
    """
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for name, kind in inferred_types(model).items():
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            shapes[name] = tuple(dim.dim_value for dim in kind.shape.dim)
    return shapes


def inferred_types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """Element type and shape by the tensor's name, but for constants, as far as they are known.

    Raises:
        onnx.shape_inference.InferenceError: the graph contradicts itself.
    """
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {value.name: value.type.tensor_type for value in values}


def float_tensors(model: onnx.ModelProto) -> set[str]:
    """Names of the tensors in fp32, constants among them."""
    floats = {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
    types = inferred_types(model)
    return floats | {name for name, kind in types.items() if kind.elem_type == TensorProto.FLOAT}


def with_nodes(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], constants: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    """The model with other nodes, and those of the constants that they or the outputs read."""
    read = {name for node in nodes for name in node.input}
    read |= {output.name for output in model.graph.output}
    graph = helper.make_graph(
        nodes,
        model.graph.name,
        list(model.graph.input),
        list(model.graph.output),
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in read],
    )
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
