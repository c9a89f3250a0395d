"""TensorRT runs the bundle: one launch of a CUDA graph a step, copies in and out included.

Per bucket there is an engine and one captured graph: tokens from pinned memory to the device, the
engine, its outputs to pinned memory. The memory that it wrote is copied to where it reads it when
the step is accepted. Tables are inputs that lie on the device: other ones are uploaded, no more.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from export.backends.staging import Staging
from export.bundle import DecoderBundle
from export.engines.builds import Build, Environment, find_build
from export.engines.gpu import Gpu, find_gpu
from export.engines.tables import fitted_tables, fixed_zeros
from export.errors import BackendError, BackendUnavailable
from export.manifest import TOKEN_INPUTS
from export.tensorrt.cuda_runtime import CapturedGraph, DeviceArray, PinnedMemory, Stream
from export.tensorrt.engine import Engine
from export.tensorrt.library import STAND_IN, Library, library_for
from streams.messages import Float32s, TokenWindow

N_WARM_RUNS = 2
N_BYTES = 4
"""Of a token's row, time and count, and of every other number that goes in or out."""


class TensorrtBackend:
    """Runs one bin per step.

    Args:
        bundle: the decoder.
        build: its engines.
        library: the one that built them.
        gpu: the card that they run on.

    Raises:
        BackendUnavailable: the engines do not open here.
        BundleError: a table does not fit them.
    """

    name = "tensorrt"

    def __init__(self, bundle: DecoderBundle, build: Build, library: Library, gpu: Gpu) -> None:
        self.library = f"{library} on {gpu}"
        self.precision = str(build.record["precision"])
        self._signature, self._build = bundle.manifest.graph, build
        self._pinned: list[PinnedMemory] = []
        self._staging = Staging(build.token_buckets, self._pinned_array)
        self.n_most_tokens: int | None = self._staging.n_most
        self._stream = Stream()
        known = {t.name: t for t in (*self._signature.inputs, *self._signature.outputs)}
        memory = {name: fixed_zeros(known[name]) for name in self._signature.memory}
        self._memory_shapes = {name: values.shape for name, values in memory.items()}
        self._values: dict[str, np.ndarray] = {
            output.name: self._pinned_array(output.dims, np.float32)
            for output in bundle.manifest.outputs
        }
        tables = self._fitted(bundle.tables)
        sizes = (
            {name: self._staging.n_most * N_BYTES for name in TOKEN_INPUTS}
            | {name: values.nbytes for name, values in (tables | memory).items()}
            | {f"{name}_out": values.nbytes for name, values in memory.items()}
            | {name: values.nbytes for name, values in self._values.items()}
            | {"lead_s": N_BYTES}
        )
        self._device = {name: DeviceArray(n_bytes) for name, n_bytes in sizes.items()}
        self._upload(tables)
        self._engines = {
            n: Engine(library, build.read_bucket(n, "plan"), self._device, str(gpu))
            for n in self._staging.buckets
        }
        self._graphs = {n: self._captured(n) for n in self._staging.buckets}
        for engine in self._engines.values():
            engine.keep_kernels()
        self.reset()

    def step(self, window: TokenWindow, lead_s: float) -> Mapping[str, Float32s]:
        """Run one bin and advance the memory.

        Args:
            window: its tokens; none is legal.
            lead_s: how far ahead of the window's end to estimate.

        Returns:
            Per output, (dims,) float32 in physical units; the next step overwrites them.

        Raises:
            BackendError: the run failed.
        """
        self._launch(window, lead_s)
        self.accept()
        self._stream.wait()
        return self._values

    def predecode(self, window: TokenWindow, lead_s: float) -> Mapping[str, Float32s]:
        """Run a bin without advancing the memory, unless `accept` follows.

        Returns:
            As `step`.

        Raises:
            BackendError: the run failed.
        """
        self._launch(window, lead_s)
        self._stream.wait()
        return self._values

    def accept(self) -> None:
        """Advance the memory by the run just before; the stream does it before the next run."""
        for name in self._signature.memory:
            self._stream.copy(self._device[name], self._device[f"{name}_out"])

    def _launch(self, window: TokenWindow, lead_s: float) -> None:
        bucket = self._staging.take(window, lead_s)
        graph = self._graphs[bucket]
        if graph is None:
            self._enqueue(bucket)
        else:
            graph.launch()

    def reset(self) -> None:
        """Zero the memory."""
        for name in self._signature.memory:
            self._stream.zero(self._device[name])
        self._stream.wait()

    def memory(self) -> dict[str, np.ndarray]:
        """Return copies of the memory's arrays, float32, by name."""
        found = {}
        for name in self._signature.memory:
            array = np.empty(self._memory_shapes[name], np.float32)
            self._stream.download(array.ctypes.data, self._device[name], array.nbytes)
            self._stream.wait()
            found[name] = array
        return found

    def set_memory(self, memory: Mapping[str, np.ndarray]) -> None:
        """Go on with the memory that `memory` of the same decoder returned."""
        for name in self._signature.memory:
            array = np.ascontiguousarray(memory[name], np.float32)
            self._stream.upload(self._device[name], array.ctypes.data, array.nbytes)
            self._stream.wait()

    def set_tables(self, tables: Mapping[str, np.ndarray]) -> None:
        """Decode with other tables from the next step on: they are uploaded, nothing else changes.

        Raises:
            BundleError: one is missing or does not fit.
        """
        self._upload(self._fitted(tables))

    def _fitted(self, tables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        pads = bool(self._build.record["rows_padded"])
        return fitted_tables(self._signature, tables, self._build.n_rows, pads=pads)

    def _upload(self, tables: Mapping[str, np.ndarray]) -> None:
        for name, values in tables.items():
            self._stream.upload(self._device[name], values.ctypes.data, values.nbytes)
        self._stream.wait()

    def _pinned_array(self, length: int, dtype: type[np.generic]) -> np.ndarray:
        memory = PinnedMemory(length * np.dtype(dtype).itemsize)
        self._pinned.append(memory)
        return memory.array(length, dtype)

    def _captured(self, bucket: int) -> CapturedGraph | None:
        """A recorded run, after plain ones in which TensorRT sets up what it needs.

        None where the library cannot be recorded: then each step is enqueued anew.
        """
        for _ in range(N_WARM_RUNS):
            self._enqueue(bucket)
            self._stream.wait()
        if not self._engines[bucket].can_be_captured(int(self._stream.handle)):
            return None
        with self._stream.capturing() as captured:
            self._enqueue(bucket)
        return captured

    def _enqueue(self, bucket: int) -> None:
        stream, device = self._stream, self._device
        for name in TOKEN_INPUTS:
            held: np.ndarray = getattr(self._staging, name)
            stream.upload(device[name], held.ctypes.data, bucket * N_BYTES)
        stream.upload(device["lead_s"], self._staging.lead_s.ctypes.data, N_BYTES)
        self._engines[bucket].run(int(stream.handle))
        for name, values in self._values.items():
            stream.download(values.ctypes.data, device[name], values.nbytes)


def open_tensorrt(bundle: DecoderBundle, precision: str = "fp32") -> TensorrtBackend:
    """The bundle's engines on the first GPU.

    Raises:
        BackendUnavailable: there is no GPU, or the graph has not been built for it.
        BundleError: a table does not fit the engines.
    """
    gpu = find_gpu()
    library = library_for(gpu.target)
    build = find_build(bundle, "tensorrt", precision, environment(library, gpu))
    return open_build(bundle, build, library, gpu)


def open_build(bundle: DecoderBundle, build: Build, library: Library, gpu: Gpu) -> TensorrtBackend:
    """A build on a card, with the bundle's tables.

    Raises:
        BackendUnavailable, BundleError: it does not run here.
    """
    try:
        return TensorrtBackend(bundle, build, library, gpu)
    except BackendError as error:
        raise BackendUnavailable(f"TensorRT cannot run what was built: {error}") from error


def environment(library: Library, gpu: Gpu) -> Environment:
    """Key that an engine is found by: the library, the card and its compute capability."""
    if not library.builds_ahead:
        return Environment(str(library), str(gpu))
    own = gpu.target if gpu.target in library.targets else STAND_IN
    return Environment(str(library), str(gpu), (own,))
