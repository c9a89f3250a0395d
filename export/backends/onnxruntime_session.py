"""ONNX Runtime: the only file that imports it. Sessions, values on a device, its errors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import ValidationError

from export.errors import BackendUnavailable, BundleError
from export.manifest import Graph, Tensor, describe

# From 1.29 on it sends events to its maker unless told not to before it is loaded. A daemon that
# is reached by loopback only sends nothing of its own accord.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
VERSION: str = ort.__version__
Provider = str | tuple[str, Mapping[str, str]]

_ONNX_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}
ORT_ERRORS = (
    RuntimeError,
    ValueError,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    ort_errors.EPFail,
)


def providers_at_hand() -> list[str]:
    """Names of the execution providers that the installed ONNX Runtime was built with."""
    names: list[str] = ort.get_available_providers()
    return names


def load_gpu_libraries() -> None:
    """Find CUDA and cuDNN where `spikeloop[gpu]` put them: in packages beside ONNX Runtime."""
    ort.preload_dlls()


def open_session(graph: bytes, providers: Sequence[Provider] = (CPU,)) -> ort.InferenceSession:
    """A session of one thread.

    Args:
        graph: an ONNX file's content.
        providers: in order of preference, each with its options; the first must take the graph.

    Raises:
        BundleError: the graph does not load.
        BackendUnavailable: the first provider could not be started.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Patterns are kept for every token count ever seen: 4 % faster, but the process grows.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    # Another try on the CPU, which ONNX Runtime announces on standard output: of use for GPUs only.
    fallback = int(wanted != CPU)
    try:
        session = ort.InferenceSession(
            graph, options, providers=list(providers), enable_fallback=fallback
        )
    except ORT_ERRORS as error:
        raise BundleError(f"ONNX Runtime {VERSION} cannot load it: {error}") from error
    if wanted not in session.get_providers():
        raise BackendUnavailable(
            f"ONNX Runtime has {wanted} but could not start it; are the NVIDIA driver, CUDA and "
            "cuDNN of the versions that onnxruntime-gpu asks for installed?"
        )
    return session


def value_on(device: str, array: np.ndarray) -> ort.OrtValue:
    """A value of its own memory on "cpu" or "cuda", beginning as the array."""
    return ort.OrtValue.ortvalue_from_numpy(array.copy(), device)


def describe_graph(graph: bytes, opset: int) -> Graph:
    """The signature of an ONNX file, for the manifest.

    Raises:
        BundleError: it does not load, or does not obey the graph contract.
    """
    return signature_of(open_session(graph), opset)


def signature_of(session: ort.InferenceSession, opset: int) -> Graph:
    """Inputs and outputs of a session.

    Raises:
        BundleError: it does not obey the graph contract.
    """
    inputs = [_described(value) for value in session.get_inputs()]
    names = [str(tensor["name"]) for tensor in inputs]
    fields = {
        "opset": opset,
        "inputs": inputs,
        "outputs": [_described(value) for value in session.get_outputs()],
        "memory": [name for name in names if name.startswith("memory_")],
    }
    try:
        return Graph.model_validate(fields)
    except ValidationError as error:
        raise BundleError(f"it does not obey the graph contract: {describe(error)}") from error


def _described(value: ort.NodeArg) -> dict[str, object]:
    dtype = _ONNX_DTYPES.get(value.type, value.type)
    return {"name": value.name, "dtype": dtype, "shape": value.shape}


def require_declared(found: Graph, declared: Graph) -> None:
    """Refuse a graph that is not the one declared.

    Raises:
        BundleError: naming the input or output that differs.
    """
    have = {tensor.name: tensor for tensor in (*found.inputs, *found.outputs)}
    want = {tensor.name: tensor for tensor in (*declared.inputs, *declared.outputs)}
    for name in want | have:
        if have.get(name) != want.get(name):
            raise BundleError(
                f"`{name}` is {_told(have.get(name))} in the graph, "
                f"{_told(want.get(name))} in the manifest"
            )


def _told(tensor: Tensor | None) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}" if tensor else "absent"
