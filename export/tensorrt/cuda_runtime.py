"""CUDA's runtime by NVIDIA's own bindings (`cuda.bindings`): the only file that imports them.

Every call is checked: an error becomes a `BackendError` that names it. Names and signatures are
those of cuda-bindings 12 and 13.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from cuda.bindings import runtime

from export.errors import BackendError


def _checked(answer: tuple[Any, ...]) -> Any:
    """Unpack a call's results, without its error code.

    Raises:
        BackendError: the call failed.
    """
    error, *values = answer
    if error != runtime.cudaError_t.cudaSuccess:
        _, told = runtime.cudaGetErrorString(error)
        why = told.decode() if isinstance(told, bytes) else "no driver that could say more"
        raise BackendError(f"CUDA: {error.name}: {why}")
    return values[0] if values else None


class DeviceArray:
    """Memory on the GPU, zeroed, freed with the object.

    Args:
        n_bytes: its size.
    """

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self.address = int(_checked(runtime.cudaMalloc(max(n_bytes, 1))))
        _checked(runtime.cudaMemset(self.address, 0, n_bytes))

    def __del__(self) -> None:
        if hasattr(self, "address"):
            runtime.cudaFree(self.address)


class PinnedMemory:
    """Host memory that the GPU reads and writes by itself, freed with the object.

    Args:
        n_bytes: its size.
    """

    def __init__(self, n_bytes: int) -> None:
        self.address = int(_checked(runtime.cudaMallocHost(max(n_bytes, 1))))
        self.n_bytes = n_bytes
        ctypes.memset(self.address, 0, n_bytes)

    def array(self, length: int, dtype: type[np.generic]) -> np.ndarray:
        """A view of its beginning; valid as long as the object lives."""
        held = (ctypes.c_ubyte * self.n_bytes).from_address(self.address)
        return np.ctypeslib.as_array(held).view(dtype)[:length]

    def __del__(self) -> None:
        if hasattr(self, "address"):
            runtime.cudaFreeHost(self.address)


class Stream:
    """A stream of work for the GPU that waits for no other."""

    def __init__(self) -> None:
        flags = runtime.cudaStreamNonBlocking
        self.handle = _checked(runtime.cudaStreamCreateWithFlags(flags))

    def upload(self, target: DeviceArray, source: int, n_bytes: int) -> None:
        """Copy from host memory; done when the stream has come so far."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        _checked(runtime.cudaMemcpyAsync(target.address, source, n_bytes, kind, self.handle))

    def download(self, target: int, source: DeviceArray, n_bytes: int) -> None:
        """Copy to host memory, likewise."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _checked(runtime.cudaMemcpyAsync(target, source.address, n_bytes, kind, self.handle))

    def copy(self, target: DeviceArray, source: DeviceArray) -> None:
        """Copy on the device, likewise."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        _checked(
            runtime.cudaMemcpyAsync(
                target.address, source.address, source.n_bytes, kind, self.handle
            )
        )

    def zero(self, target: DeviceArray) -> None:
        """Fill with zeros, likewise."""
        _checked(runtime.cudaMemsetAsync(target.address, 0, target.n_bytes, self.handle))

    def wait(self) -> None:
        """Until all is done."""
        _checked(runtime.cudaStreamSynchronize(self.handle))

    @contextmanager
    def capturing(self) -> Iterator[CapturedGraph]:
        """Record what is asked of the stream in the block, instead of doing it."""
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _checked(runtime.cudaStreamBeginCapture(self.handle, mode))
        captured = CapturedGraph(self)
        try:
            yield captured
        except BackendError:
            runtime.cudaStreamEndCapture(self.handle)
            raise
        captured.finish(_checked(runtime.cudaStreamEndCapture(self.handle)))

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            runtime.cudaStreamDestroy(self.handle)


class CapturedGraph:
    """Recorded work, launched as one.

    Args:
        stream: it runs on.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._runnable: Any = None

    def finish(self, graph: Any) -> None:
        """Make the recording runnable."""
        self._runnable = _checked(runtime.cudaGraphInstantiate(graph, 0))
        runtime.cudaGraphDestroy(graph)

    def launch(self) -> None:
        """Do it all once; done when the stream has come so far."""
        _checked(runtime.cudaGraphLaunch(self._runnable, self._stream.handle))

    def __del__(self) -> None:
        if getattr(self, "_runnable", None) is not None:
            runtime.cudaGraphExecDestroy(self._runnable)
