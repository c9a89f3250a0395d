"""A TensorRT engine on the GPU: opened from its plan, run on a stream."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from export.engines.builds import builds_folder
from export.errors import BackendError, BackendUnavailable
from export.tensorrt.cuda_runtime import DeviceArray
from export.tensorrt.library import Library, new_log
from streams.files import write_whole

N_HEX = 16


class Engine:
    """An engine with static shapes, its inputs and outputs at addresses that never change.

    Args:
        library: the one that built the plan.
        plan: of the engine.
        arrays: memory on the device for every input and output.
        device: the GPU and its driver: kernels compiled for it are kept under that name.

    Raises:
        BackendUnavailable: the plan does not open on this GPU, or asks for other memory.
    """

    def __init__(
        self, library: Library, plan: bytes, arrays: Mapping[str, DeviceArray], device: str
    ) -> None:
        self._library, self._log = library, new_log(library)
        self._runtime = library.trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BackendUnavailable(
                f"{library} does not open the engine on {device}: {self._log.told()}; "
                "`spikeloop build` it again on this machine"
            )
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self._require_memory(names, arrays)
        self._kernels = _kernels_file(library, plan, device)
        self._context = self._new_context()
        if self._context is None:
            raise BackendUnavailable(f"{library} gives no context: {self._log.told()}")
        for name in names:
            self._context.set_tensor_address(name, arrays[name].address)

    def run(self, stream: int) -> None:
        """Ask a stream to run it once.

        Raises:
            BackendError: TensorRT refuses.
        """
        if not self._context.execute_async_v3(stream_handle=stream):
            raise BackendError(f"TensorRT: {self._log.told()}")

    def can_be_captured(self, stream: int) -> bool:
        """Return True if a run can be recorded into a CUDA graph."""
        if not self._library.builds_ahead:
            return True
        return bool(self._context.is_stream_capturable(stream))

    def keep_kernels(self) -> None:
        """Keep what was compiled for this GPU, so that the next start need not compile it."""
        if not self._library.builds_ahead:
            return
        with suppress(OSError):  # a start without the cache is slower, no more
            self._kernels.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._kernels, bytes(self._cache.serialize()))

    def _require_memory(self, names: list[str], arrays: Mapping[str, DeviceArray]) -> None:
        """Refuse an engine that would read or write beyond the memory that is there for it."""
        for name in names:
            shape = self._engine.get_tensor_shape(name)
            n_bytes = self._library.trt.volume(shape) * self._engine.get_tensor_dtype(name).itemsize
            have = arrays[name].n_bytes if name in arrays else 0
            if have < n_bytes:
                raise BackendUnavailable(
                    f"the engine asks for {n_bytes} bytes of {name!r}, the bundle has {have}: "
                    "`spikeloop build` it again"
                )

    def _new_context(self) -> Any:
        if not self._library.builds_ahead:
            return self._engine.create_execution_context()
        strategy = self._library.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        self._cache = config.create_runtime_cache()
        held = _read(self._kernels)
        if held and not self._cache.deserialize(held):
            self._cache.reset()  # of another driver or version: compiled anew, and kept
        config.set_runtime_cache(self._cache)
        context = self._engine.create_execution_context(config)
        if context is not None:
            self._scratch = DeviceArray(int(self._engine.device_memory_size_v2))
            context.set_device_memory(self._scratch.address, self._scratch.n_bytes)
        return context


def _kernels_file(library: Library, plan: bytes, device: str) -> Path:
    digest = hashlib.sha256(plan + f"{library} on {device}".encode()).hexdigest()
    return builds_folder() / "kernels" / f"{digest[:N_HEX]}.bin"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
