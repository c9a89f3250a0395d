"""TensorRT: the only file that imports it. Plans are built, and engines opened and run.

Written to the headers and Python bindings of TensorRT 10.0 to 11.1 (github.com/NVIDIA/TensorRT),
using only what both have: networks are strongly typed, so that precision is what stands in the
ONNX, and TF32 is off. Engines are never refitted: what changes is an input.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorrt as trt

from export.errors import BackendError, BackendUnavailable, ExportError

VERSION: str = trt.__version__
N_WORKSPACE_BYTES = 4 << 30
OPTIMISATION_LEVEL = 4
"""Of 0 to 5: builds take minutes, once a graph and GPU."""


class _Complaints(trt.ILogger):  # type: ignore[misc]
    """Keeps what TensorRT complained of, for the error that tells of it."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.lines: list[str] = []

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Called by TensorRT, from any thread."""
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.lines.append(msg)

    def told(self) -> str:
        """The last complaints."""
        return "; ".join(self.lines[-3:]) or "it gave no reason"


def build_plan(graph: bytes, timing_cache: bytes) -> tuple[bytes, bytes]:
    """Compile a static graph for the GPU of this machine.

    Args:
        graph: an ONNX file's content, every shape static, its types as they are to run.
        timing_cache: of builds before, b"" for none: kernels that were timed are not timed again.

    Returns:
        The serialized engine, and the timing cache after it.

    Raises:
        ExportError: TensorRT refuses the graph, or finds no engine for it.
    """
    log = _Complaints()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph):
        errors = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise ExportError(f"TensorRT {VERSION} does not take the graph: {'; '.join(errors[:3])}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, N_WORKSPACE_BYTES)
    config.builder_optimization_level = OPTIMISATION_LEVEL
    cache = config.create_timing_cache(timing_cache)
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(f"TensorRT {VERSION} built no engine: {log.told()}")
    return bytes(plan), bytes(cache.serialize())


class Engine:
    """An engine with static shapes, its inputs and outputs at addresses that never change.

    Args:
        plan: what `build_plan` gave, on this GPU with this version.
        addresses: on the device, of every input and output.

    Raises:
        BackendUnavailable: the plan is of another version or GPU, or an address is lacking.
    """

    def __init__(self, plan: bytes, addresses: Mapping[str, int]) -> None:
        self._log = _Complaints()
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BackendUnavailable(
                f"TensorRT {VERSION} does not open the engine: {self._log.told()}; "
                "`spikeloop build` it again"
            )
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        lacking = [name for name in names if name not in addresses]
        if lacking:
            raise BackendUnavailable(
                f"the engine asks for {', '.join(lacking)}, which the bundle's graph does not have"
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise BackendUnavailable(
                f"TensorRT {VERSION} gives no context for the engine: {self._log.told()}"
            )
        for name in names:
            self._context.set_tensor_address(name, addresses[name])

    def run(self, stream: int) -> None:
        """Ask a stream to run it once.

        Raises:
            BackendError: TensorRT refuses.
        """
        if not self._context.execute_async_v3(stream_handle=stream):
            raise BackendError(f"TensorRT: {self._log.told()}")
