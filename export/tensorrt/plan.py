"""A static graph compiled by TensorRT: the plan, and the check that it is the bundle's graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.engines.constants import float_tensors, with_nodes
from export.errors import ExportError
from export.manifest import Graph
from export.tensorrt.library import Library, new_log

N_WORKSPACE_BYTES = 4 << 30
OPTIMISATION_LEVEL = 4
"""Of 0 to 5, for TensorRT: builds take minutes, once a graph and GPU. RTX has one level."""
TURING = "sm75"


def build_plan(
    library: Library, graph: bytes, signature: Graph, targets: Sequence[str] = ()
) -> bytes:
    """Compile a static graph.

    Args:
        library: compiles it; TensorRT for the GPU of this machine, TensorRT for RTX for `targets`.
        graph: an ONNX file's content, every shape static, its types as they are to run.
        signature: inputs and outputs that the bundle declares, every length fixed.
        targets: compute capabilities, such as "sm89".

    Returns:
        The serialized engine.

    Raises:
        ExportError: the library refuses the graph or builds no engine, naming the layer; or what
            it parsed does not have the inputs and outputs declared.
    """
    trt, log = library.trt, new_log(library)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        told = [
            f"{one.node_operator()} {one.node_name()!r}: {one.desc().strip()}" for one in errors
        ]
        raise ExportError(f"{library} does not take the graph: {'; '.join(told[:3])}")
    _require_declared(_tensors(trt, network), signature, str(library))
    plan = builder.build_serialized_network(network, _config(library, builder, targets))
    if plan is None:
        hint = "; Turing (sm75) multiplies in fp16 only: --precision fp16"
        hint = hint if "for Turing" in log.told() else ""
        raise ExportError(f"{library} built no engine: {log.told()}{hint}")
    return bytes(plan)


def _config(library: Library, builder: Any, targets: Sequence[str]) -> Any:
    trt = library.trt
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    if library.builds_ahead:
        # No timing cache: with RTX it does nothing, and asks for a GPU.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
        config.num_compute_capabilities = len(targets)
        for i, name in enumerate(targets):
            config.set_compute_capability(library.targets[name], i)
    else:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, N_WORKSPACE_BYTES)
        config.builder_optimization_level = OPTIMISATION_LEVEL
    return config


def _tensors(trt: Any, network: Any) -> dict[str, tuple[str, list[int]]]:
    """Type and shape of every input and output of a parsed network."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    return {
        tensor.name: (trt.nptype(tensor.dtype).__name__, list(tensor.shape))
        for tensor in (*inputs, *outputs)
    }


def _require_declared(
    found: dict[str, tuple[str, list[int]]], signature: Graph, library: str
) -> None:
    declared = {
        tensor.name: (tensor.dtype, list(tensor.shape))
        for tensor in (*signature.inputs, *signature.outputs)
    }
    for name in declared | found:
        if found.get(name) != declared.get(name):
            raise ExportError(
                f"{library} reads `{name}` as {found.get(name, 'absent')}, the bundle declares "
                f"{declared.get(name, 'nothing of that name')}: export the bundle again"
            )


def without_fp32_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with each `MatMul` and `Gemm` of fp32 written as multiplications and a sum.

    The compiler for Turing (sm75) in TensorRT for RTX takes no matrix products in fp32. Those that
    `in_precision` leaves in fp32, few and small, are written like this.

    Args:
        model: static, in fp16.

    Raises:
        ExportError: a `Gemm` scales, or transposes its left operand.
    """
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    floats = float_tensors(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        is_product = node.op_type in ("MatMul", "Gemm") and node.input[0] in floats
        nodes += _summed(node, constants) if is_product else [node]
    return with_nodes(model, nodes, constants)


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
