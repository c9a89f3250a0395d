"""ONNX Runtime runs the bundle's graph: the only file that imports it.

A step allocates nothing of its own: the outputs have kept buffers, and the memory goes back and
forth between two, on the provider's device, so that what a step writes is what the next one reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from pydantic import ValidationError

from export.bundle import DecoderBundle, require_fit
from export.errors import BackendError, BackendUnavailable, BundleError
from export.manifest import Graph, Tensor, describe
from export.parity import ParityRecord, replay
from streams.messages import Float32s, TokenWindow

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

_ONNX_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}
_ORT_ERRORS = (
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

# A graph may legally be run on no tokens, but an Einsum over none ends the process with SIGFPE
# (onnxruntime 1.31). One padding token means the same and cannot.
_NO_TOKENS = TokenWindow(
    np.zeros(1, np.int32), np.zeros(1, np.float32), np.zeros(1, np.float32), t_window=0.0
)


class OnnxruntimeBackend:
    """Runs one bin per step.

    Args:
        graph: the ONNX file.
        signature: what the manifest declares of it.
        tables: the inputs that belong to the decoder.
        outputs: names of the outputs that are handed out.
        on_cuda: run on the first GPU.

    Raises:
        BundleError: the graph does not load, or is not the declared one.
        BackendUnavailable: the GPU cannot be used.
    """

    precision = "fp32"

    def __init__(
        self,
        graph: bytes,
        signature: Graph,
        tables: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        *,
        on_cuda: bool = False,
    ) -> None:
        self.name = "onnxruntime-cuda" if on_cuda else "onnxruntime-cpu"
        self._session = _open_session(graph, on_cuda)
        _require_declared(_signature_of(self._session, signature.opset), signature)
        self._signature = signature
        self._values = {t.name: _zeros(t) for t in signature.outputs if t.name in outputs}
        self._memory = [self._zero_memory("cuda" if on_cuda else "cpu") for _ in range(2)]
        self._bindings = [self._bind(self._memory[i], self._memory[1 - i]) for i in range(2)]
        self._turn = 0
        self._lead_s = 0.0
        self._bind_lead(0.0)
        self.set_tables(tables)

    def step(self, window: TokenWindow, lead_s: float) -> Mapping[str, Float32s]:
        """Run one bin and advance the memory.

        Args:
            window: its tokens, contiguous arrays; none is legal.
            lead_s: how far ahead of the window's end to estimate.

        Returns:
            Per output, (dims,) float32 in physical units; the next step overwrites them.

        Raises:
            BackendError: the run failed.
        """
        if not len(window):
            window = _NO_TOKENS
        binding = self._bindings[self._turn]
        try:
            if lead_s != self._lead_s:
                self._bind_lead(lead_s)
            binding.bind_cpu_input("unit", window.unit)
            binding.bind_cpu_input("t_rel", window.t_rel)
            binding.bind_cpu_input("count", window.count)
            self._session.run_with_iobinding(binding)
        except _ORT_ERRORS as error:
            raise BackendError(f"{self.name} failed on {len(window)} tokens: {error}") from error
        self._turn = 1 - self._turn
        return self._values

    def reset(self) -> None:
        """Zero the memory."""
        for values in self._memory:
            for value in values.values():
                value.update_inplace(np.zeros(value.shape(), np.float32))

    def set_tables(self, tables: Mapping[str, np.ndarray]) -> None:
        """Decode with other tables from the next step on; the graph stays.

        Raises:
            BundleError: an array is missing or has another shape or type than the graph takes.
        """
        for tensor in self._signature.tables:
            if tensor.name not in tables:
                raise BundleError(f"the graph takes a table {tensor.name!r}, none was given")
            require_fit(tensor, tables[tensor.name], "the new tables")
        kept = {t.name: np.array(tables[t.name], order="C") for t in self._signature.tables}
        for name, values in kept.items():
            for binding in self._bindings:
                binding.bind_cpu_input(name, values)

    def _bind_lead(self, lead_s: float) -> None:
        values = np.array([lead_s], np.float32)
        for binding in self._bindings:
            binding.bind_cpu_input("lead_s", values)
        self._lead_s = lead_s

    def _zero_memory(self, device: str) -> dict[str, ort.OrtValue]:
        inputs = [t for t in self._signature.inputs if t.name in self._signature.memory]
        return {t.name: ort.OrtValue.ortvalue_from_numpy(_zeros(t), device) for t in inputs}

    def _bind(
        self, read: Mapping[str, ort.OrtValue], written: Mapping[str, ort.OrtValue]
    ) -> ort.IOBinding:
        """Bind what stays: the memory read and written, and the outputs."""
        binding = self._session.io_binding()
        for name in self._signature.memory:
            binding.bind_ortvalue_input(name, read[name])
            binding.bind_ortvalue_output(f"{name}_out", written[name])
        for name, values in self._values.items():
            binding.bind_output(name, "cpu", 0, values.dtype, values.shape, values.ctypes.data)
        return binding


def open_cpu(bundle: DecoderBundle) -> OnnxruntimeBackend:
    """The bundle's graph on one core of the CPU."""
    return _of_bundle(bundle, on_cuda=False)


def open_cuda(bundle: DecoderBundle) -> OnnxruntimeBackend:
    """The bundle's graph on the first GPU.

    Raises:
        BackendUnavailable: the installed ONNX Runtime has no CUDA, or CUDA does not start.
    """
    if CUDA not in ort.get_available_providers():
        raise BackendUnavailable(
            "the installed ONNX Runtime has no CUDA: pip uninstall onnxruntime, "
            "then pip install 'spikeloop[gpu]'"
        )
    return _of_bundle(bundle, on_cuda=True)


def _of_bundle(bundle: DecoderBundle, *, on_cuda: bool) -> OnnxruntimeBackend:
    manifest, graph = bundle.manifest, bundle.graph_path.read_bytes()
    outputs = [output.name for output in manifest.outputs]
    try:
        return OnnxruntimeBackend(graph, manifest.graph, bundle.tables, outputs, on_cuda=on_cuda)
    except BundleError as error:
        raise BundleError(f"{bundle.graph_path}: {error}; export the bundle again") from error


def _open_session(graph: bytes, on_cuda: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Patterns are kept for every token count ever seen: 4 % faster, but the process grows.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = [(CUDA, {"use_tf32": "0"}), CPU] if on_cuda else [CPU]
    try:
        session = ort.InferenceSession(graph, options, providers=providers)
    except _ORT_ERRORS as error:
        raise BundleError(f"ONNX Runtime {ort.__version__} cannot load it: {error}") from error
    if on_cuda and CUDA not in session.get_providers():
        raise BackendUnavailable(
            "ONNX Runtime has CUDA but could not start it and fell back to the CPU; are the "
            "NVIDIA driver, CUDA and cuDNN of the versions that onnxruntime-gpu asks for installed?"
        )
    return session


def _zeros(tensor: Tensor) -> np.ndarray:
    shape = [length for length in tensor.shape if isinstance(length, int)]
    if len(shape) != len(tensor.shape):
        raise BundleError(f"`{tensor.name}` has a length that varies: {list(tensor.shape)}")
    return np.zeros(shape, tensor.dtype)


def describe_graph(graph: bytes, opset: int) -> Graph:
    """The signature of an ONNX file, for the manifest.

    Raises:
        BundleError: it does not load, or does not obey the graph contract.
    """
    return _signature_of(_open_session(graph, on_cuda=False), opset)


def _signature_of(session: ort.InferenceSession, opset: int) -> Graph:
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


def _require_declared(found: Graph, declared: Graph) -> None:
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


def record_parity(
    graph: bytes,
    signature: Graph,
    tables: Mapping[str, np.ndarray],
    tokens: ParityRecord,
    outputs: Sequence[str],
) -> ParityRecord:
    """The tokens with the outputs that the graph gives for them, for a decoder without torch."""
    return replay(OnnxruntimeBackend(graph, signature, tables, outputs), tokens)
