"""ONNX Runtime runs the bundle's graph on the CPU, bins of any length.

A step allocates nothing of its own: the outputs have kept buffers, and the memory goes back and
forth between two, so that what a step writes is what the next one reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.backends.onnxruntime_session import (
    ORT_ERRORS,
    VERSION,
    describe_graph,
    open_session,
    require_declared,
    signature_of,
    value_on,
)
from export.bundle import DecoderBundle, tables_for
from export.engines.builds import Build, Environment, find_build
from export.engines.tables import fixed_zeros
from export.errors import BackendError, BundleError
from export.manifest import Graph
from export.parity import ParityRecord, replay
from streams.messages import Float32s, TokenWindow

__all__ = ["OnnxruntimeBackend", "describe_graph", "open_cpu", "record_parity"]

PROBE_BEATS = 3

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
        precision: of the graph's multiplications.

    Raises:
        BundleError: the graph does not load, or is not the declared one.
    """

    name = "onnxruntime-cpu"
    library = f"onnxruntime {VERSION}"
    n_most_tokens: int | None = None

    def __init__(
        self,
        graph: bytes,
        signature: Graph,
        tables: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        precision: str = "fp32",
    ) -> None:
        self.precision = precision
        self._session = open_session(graph)
        require_declared(signature_of(self._session, signature.opset), signature)
        self._signature = signature
        self._values = {t.name: fixed_zeros(t) for t in signature.outputs if t.name in outputs}
        self._memory = [self._zero_memory() for _ in range(2)]
        self._bindings = [self._bind(self._memory[i], self._memory[1 - i]) for i in range(2)]
        self._turn = 0
        self._lead_s, self._lead = 0.0, np.zeros(1, np.float32)
        self._tables: dict[str, np.ndarray] = {}
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
        self._run(window, lead_s)
        self._turn = 1 - self._turn
        return self._values

    def predecode(self, window: TokenWindow, lead_s: float) -> Mapping[str, Float32s]:
        """Run a bin without consequence, unless `accept` follows.

        What it writes, the next step overwrites: the memory stays as it was, and the outputs of
        the step before are gone.

        Returns:
            As `step`.

        Raises:
            BackendError: the run failed.
        """
        self._run(window, lead_s)
        return self._values

    def accept(self) -> None:
        """Advance the memory by what was predecoded just before, as if it had been a step."""
        self._turn = 1 - self._turn

    def _run(self, window: TokenWindow, lead_s: float) -> None:
        if not len(window):
            window = _NO_TOKENS
        binding = self._bindings[self._turn]
        try:
            if lead_s != self._lead_s:
                self._bind_lead(lead_s)
            self._bind_tokens(binding, window)
            self._session.run_with_iobinding(binding)
        except ORT_ERRORS as error:
            raise BackendError(f"{self.name} failed on {len(window)} tokens: {error}") from error

    @staticmethod
    def _bind_tokens(binding: Any, window: TokenWindow) -> None:
        binding.bind_cpu_input("unit", window.unit)
        binding.bind_cpu_input("t_rel", window.t_rel)
        binding.bind_cpu_input("count", window.count)

    def reset(self) -> None:
        """Zero the memory."""
        for values in self._memory:
            for value in values.values():
                value.update_inplace(np.zeros(value.shape(), np.float32))

    def memory(self) -> dict[str, np.ndarray]:
        """Return copies of the memory's arrays, float32, by name."""
        return {name: value.numpy().copy() for name, value in self._memory[self._turn].items()}

    def set_memory(self, memory: Mapping[str, np.ndarray]) -> None:
        """Go on with the memory that `memory` of the same decoder returned."""
        for name, value in self._memory[self._turn].items():
            value.update_inplace(memory[name])

    def set_tables(self, tables: Mapping[str, np.ndarray]) -> None:
        """Decode with other tables from the next step on; the graph stays.

        Raises:
            BundleError: an array is missing or has another shape or type than the graph takes.
        """
        self._tables = tables_for(self._signature, tables)
        for name, values in self._tables.items():
            for binding in self._bindings:
                binding.bind_cpu_input(name, values)

    def fixed_arrays(self) -> Mapping[str, np.ndarray]:
        """Arrays that a step reads and nothing writes to; the weights are ONNX Runtime's own."""
        return {"lead_s": self._lead, **self._tables}

    def make_probe(self, tokens: ParityRecord) -> Callable[[], bytes]:
        """Return a run of a few of these beats through the same session, with memory of its own.

        ONNX Runtime lets several threads run one session. The answers are the same bit for bit.
        """
        memory = [self._zero_memory() for _ in range(2)]
        bindings = [self._bind(memory[i], memory[1 - i]) for i in range(2)]
        outputs = [t for t in self._signature.outputs if t.name in self._values]
        values = {t.name: fixed_zeros(t) for t in outputs}
        for binding in bindings:
            for name, value in values.items():
                _bind_output(binding, name, value)
        tables = dict(self._tables)
        fullest = sorted(range(len(tokens)), key=lambda i: -len(tokens.window(i)))[:PROBE_BEATS]
        windows = [tokens.window(i) if len(tokens.window(i)) else _NO_TOKENS for i in fullest]
        leads = [tokens.lead_s[i : i + 1].copy() for i in fullest]

        def probe() -> bytes:
            for value in (*memory[0].values(), *memory[1].values()):
                value.update_inplace(np.zeros(value.shape(), np.float32))
            # A binding keeps no array alive, and the backend may have other tables by now.
            for binding in bindings:
                for name, table in tables.items():
                    binding.bind_cpu_input(name, table)
            answers = b""
            for i, (window, lead_s) in enumerate(zip(windows, leads, strict=True)):
                binding = bindings[i % 2]
                self._bind_tokens(binding, window)
                binding.bind_cpu_input("lead_s", lead_s)
                try:
                    self._session.run_with_iobinding(binding)
                except ORT_ERRORS as error:
                    raise BackendError(f"{self.name} failed: {error}") from error
                answers += b"".join(value.tobytes() for value in values.values())
            return answers

        return probe

    def _bind_lead(self, lead_s: float) -> None:
        self._lead = np.array([lead_s], np.float32)
        for binding in self._bindings:
            binding.bind_cpu_input("lead_s", self._lead)
        self._lead_s = lead_s

    def _zero_memory(self) -> dict[str, Any]:
        inputs = [t for t in self._signature.inputs if t.name in self._signature.memory]
        return {t.name: value_on("cpu", fixed_zeros(t)) for t in inputs}

    def _bind(self, read: Mapping[str, Any], written: Mapping[str, Any]) -> Any:
        """Bind what stays: the memory read and written, and the outputs."""
        binding = self._session.io_binding()
        for name in self._signature.memory:
            binding.bind_ortvalue_input(name, read[name])
            binding.bind_ortvalue_output(f"{name}_out", written[name])
        for name, values in self._values.items():
            _bind_output(binding, name, values)
        return binding


def _bind_output(binding: Any, name: str, values: np.ndarray) -> None:
    binding.bind_output(name, "cpu", 0, values.dtype, values.shape, values.ctypes.data)


def open_cpu(bundle: DecoderBundle, precision: str = "fp32") -> OnnxruntimeBackend:
    """The bundle's graph on one core of the CPU.

    Raises:
        BackendUnavailable: another precision than fp32 has not been built.
        BundleError: the graph does not load, or is not the declared one.
    """
    if precision == "fp32":
        return _opened(bundle, bundle.graph_path, precision)
    return open_build(bundle, find_build(bundle, "onnxruntime-cpu", precision, environment()))


def open_build(bundle: DecoderBundle, build: Build) -> OnnxruntimeBackend:
    """A graph that was built, with the bundle's tables.

    Raises:
        BundleError: it does not load, or is not the declared one.
    """
    return _opened(bundle, build.file("graph.onnx"), str(build.record["precision"]))


def open_graph(bundle: DecoderBundle, graph: bytes, precision: str) -> OnnxruntimeBackend:
    """A graph made of the bundle's, with its tables.

    Raises:
        BundleError: it does not load, or is not the declared one.
    """
    manifest = bundle.manifest
    outputs = [output.name for output in manifest.outputs]
    return OnnxruntimeBackend(graph, manifest.graph, bundle.tables, outputs, precision)


def _opened(bundle: DecoderBundle, path: Path, precision: str) -> OnnxruntimeBackend:
    try:
        return open_graph(bundle, path.read_bytes(), precision)
    except BundleError as error:
        raise BundleError(f"{path}: {error}; export the bundle again") from error


def environment() -> Environment:
    """The environment of a build for this backend."""
    return Environment(f"onnxruntime {VERSION}", "cpu")


def record_parity(
    graph: bytes,
    signature: Graph,
    tables: Mapping[str, np.ndarray],
    tokens: ParityRecord,
    outputs: Sequence[str],
) -> ParityRecord:
    """The tokens with the outputs that the graph gives for them, for a decoder without torch."""
    return replay(OnnxruntimeBackend(graph, signature, tables, outputs), tokens)
