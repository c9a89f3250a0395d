"""A static graph compiled by TensorRT: the plan, and the check that it is the bundle's graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from export.errors import ExportError
from export.manifest import Graph
from export.tensorrt.library import Library, new_log

N_WORKSPACE_BYTES = 4 << 30
OPTIMISATION_LEVEL = 4
"""Of 0 to 5, for TensorRT: builds take minutes, once a graph and GPU. RTX has one level."""


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
        errors = [_told(parser.get_error(i)) for i in range(parser.num_errors)]
        raise ExportError(f"{library} does not take the graph: {'; '.join(errors[:3])}")
    _require_declared(_tensors(trt, network), signature, str(library))
    plan = builder.build_serialized_network(network, _config(library, builder, targets))
    if plan is None:
        raise ExportError(f"{library} built no engine: {log.told()}{_hint(log.told())}")
    return bytes(plan)


def _told(error: Any) -> str:
    """A parser's error with the operator and the node it is about."""
    return f"{error.node_operator()} {error.node_name()!r}: {error.desc().strip()}"


def _hint(told: str) -> str:
    if "for Turing" in told:
        return "; Turing (sm75) multiplies in fp16 only: --precision fp16"
    return ""


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
