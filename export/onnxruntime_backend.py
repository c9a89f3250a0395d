"""ONNX Runtime runs the bundle's graph: the only file that imports it.

A step allocates nothing of its own: outputs and memory have kept buffers, and memory goes back and
forth between two of them, so that what a step writes is what the next one reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime as ort

from export.bundle import DecoderBundle, require_fit
from export.manifest import BundleError, Graph, Tensor
from export.parity import ParityRecord, replay
from streams.messages import Float32s, TokenWindow

_ONNX_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}


class OnnxruntimeBackend:
    """Runs one bin per step.

    Args:
        graph: the ONNX file.
        signature: what the manifest declares of it.
        tables: the inputs that belong to the decoder.
        outputs: names of the outputs that are handed out.
        providers: of ONNX Runtime, in the order of preference.

    Raises:
        BundleError: the graph does not load, or is not the declared one.
    """

    precision = "fp32"

    def __init__(
        self,
        graph: bytes,
        signature: Graph,
        tables: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        *,
        name: str = "onnxruntime-cpu",
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        self.name = name
        self._session = _open_session(graph, providers)
        _require_declared(self._session, signature)
        self._signature = signature
        memory = [t for t in signature.inputs if t.name in signature.memory]
        buffers = [{t.name: _buffer(t) for t in memory} for _ in range(2)]
        self._memory = buffers
        self._lead_s = np.zeros(1, np.float32)
        self._values = {t.name: _buffer(t) for t in signature.outputs if t.name in outputs}
        self._bindings = [self._bind(buffers[i], buffers[1 - i]) for i in range(2)]
        self._turn = 0
        self.set_tables(tables)

    def step(self, window: TokenWindow, lead_s: float) -> Mapping[str, Float32s]:
        """Run one bin and advance the memory.

        Args:
            window: its tokens; none is legal.
            lead_s: how far ahead of the window's end to estimate.

        Returns:
            Per output, (dims,) float32 in physical units; the next step overwrites them.
        """
        binding = self._bindings[self._turn]
        binding.bind_cpu_input("unit", window.unit)
        binding.bind_cpu_input("t_rel", window.t_rel)
        binding.bind_cpu_input("count", window.count)
        self._lead_s[0] = lead_s
        self._session.run_with_iobinding(binding)
        self._turn = 1 - self._turn
        return self._values

    def reset(self) -> None:
        """Zero the memory."""
        for buffers in self._memory:
            for values in buffers.values():
                values[:] = 0

    def set_tables(self, tables: Mapping[str, np.ndarray]) -> None:
        """Decode with other tables from the next step on; the graph stays.

        Raises:
            BundleError: an array is missing or has another shape or type than the graph takes.
        """
        for tensor in self._signature.tables:
            if tensor.name not in tables:
                raise BundleError(f"the graph takes a table {tensor.name!r}, none was given")
            require_fit(tensor, tables[tensor.name], "tables")
        kept = {t.name: np.ascontiguousarray(tables[t.name]) for t in self._signature.tables}
        for name, values in kept.items():
            for binding in self._bindings:
                binding.bind_cpu_input(name, values)

    def _bind(
        self, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
    ) -> ort.IOBinding:
        binding = self._session.io_binding()
        binding.bind_cpu_input("lead_s", self._lead_s)
        for name, values in before.items():
            binding.bind_cpu_input(name, values)
        written = {f"{name}_out": values for name, values in after.items()} | self._values
        for tensor in self._signature.outputs:
            if tensor.name in written:
                values = written[tensor.name]
                binding.bind_output(
                    tensor.name, "cpu", 0, values.dtype, values.shape, values.ctypes.data
                )
        return binding


def open_cpu(bundle: DecoderBundle) -> OnnxruntimeBackend:
    """The bundle's graph on one core of the CPU."""
    return _of_bundle(bundle, "onnxruntime-cpu", ("CPUExecutionProvider",))


def _of_bundle(bundle: DecoderBundle, name: str, providers: Sequence[str]) -> OnnxruntimeBackend:
    manifest = bundle.manifest
    outputs = [output.name for output in manifest.outputs]
    return OnnxruntimeBackend(
        bundle.graph_path.read_bytes(),
        manifest.graph,
        bundle.tables,
        outputs,
        name=name,
        providers=providers,
    )


def _open_session(graph: bytes, providers: Sequence[str]) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(graph, options, providers=list(providers))


def _tensor(value: ort.NodeArg) -> Tensor:
    return Tensor.model_validate(
        {"name": value.name, "dtype": _ONNX_DTYPES.get(value.type), "shape": tuple(value.shape)}
    )


def _buffer(tensor: Tensor) -> np.ndarray:
    shape = [length for length in tensor.shape if isinstance(length, int)]
    if len(shape) != len(tensor.shape):
        raise BundleError(
            f"graph: `{tensor.name}` has a length that varies, {list(tensor.shape)}; "
            "export the decoder again with a fixed one"
        )
    return np.zeros(shape, tensor.dtype)


def _signature_of(session: ort.InferenceSession, opset: int) -> Graph:
    inputs = tuple(_tensor(value) for value in session.get_inputs())
    return Graph(
        opset=opset,
        inputs=inputs,
        outputs=tuple(_tensor(value) for value in session.get_outputs()),
        memory=tuple(t.name for t in inputs if t.name.startswith("memory_")),
    )


def describe_graph(graph: bytes, opset: int) -> Graph:
    """The signature of an ONNX file, for the manifest."""
    return _signature_of(_open_session(graph, ("CPUExecutionProvider",)), opset)


def _require_declared(session: ort.InferenceSession, declared: Graph) -> None:
    found = _signature_of(session, declared.opset)
    if found != declared:
        raise BundleError("the graph is not the one that the manifest declares")


def record_parity(
    graph: bytes,
    signature: Graph,
    tables: Mapping[str, np.ndarray],
    tokens: ParityRecord,
    outputs: Sequence[str],
) -> ParityRecord:
    """The tokens with the outputs that this backend gives for them."""
    backend = OnnxruntimeBackend(graph, signature, tables, outputs)
    return replay(backend, tokens)
