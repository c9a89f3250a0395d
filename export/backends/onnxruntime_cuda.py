"""ONNX Runtime's CUDA provider: a static graph per bucket, bound once, replayed as a CUDA graph.

Inputs, tables and memory have fixed addresses on the device; a step copies tokens there and the
outputs back. On "cpu" the same code runs without a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.backends.onnxruntime_session import (
    CUDA,
    ORT_ERRORS,
    VERSION,
    Provider,
    load_gpu_libraries,
    open_session,
    providers_at_hand,
    value_on,
)
from export.backends.staging import Staging
from export.bundle import DecoderBundle
from export.engines.builds import Build, Environment, find_build
from export.engines.gpu import find_gpu
from export.engines.tables import fitted_tables, fixed_zeros
from export.errors import BackendError, BackendUnavailable, NotProvidedError
from export.manifest import TOKEN_INPUTS, Graph
from streams.messages import Float32s, TokenWindow

N_CAPTURE_RUNS = 4
"""The CUDA provider captures after two plain runs; then once more, to see that it replays."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """Shapes that a build's graphs are made for.

    Attributes:
        signature: of the bundle's graph, its lengths open.
        outputs: names of the outputs that are handed out.
        n_rows: rows of the tables.
        rows_padded: whether fewer rows may be padded.
    """

    signature: Graph
    outputs: tuple[str, ...]
    n_rows: int
    rows_padded: bool


class _Bucket:
    """The session of one bucket, bound to its tokens and to what all buckets share."""

    def __init__(
        self,
        graph: bytes,
        n_tokens: int,
        providers: Sequence[Provider],
        device: str,
        shared: tuple[Mapping[str, Any], Mapping[str, Any]],
    ) -> None:
        self._session = open_session(graph, providers)
        self._n_tokens = n_tokens
        dtypes = (np.int32, np.float32, np.float32)
        self._tokens = {
            name: value_on(device, np.zeros(n_tokens, dtype))
            for name, dtype in zip(TOKEN_INPUTS, dtypes, strict=True)
        }
        self._binding = self._session.io_binding()
        for name, value in (self._tokens | dict(shared[0])).items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in shared[1].items():
            self._binding.bind_ortvalue_output(name, value)

    def run(self, staging: Staging) -> None:
        for name, value in self._tokens.items():
            value.update_inplace(getattr(staging, name)[: self._n_tokens])
        self._session.run_with_iobinding(self._binding)


class StaticOnnxruntimeBackend:
    """Runs one bin per step.

    Args:
        name: as in the config.
        precision: of the graphs' multiplications.
        graphs: per bucket an ONNX file's content, every shape static.
        shapes: what they are made for.
        tables: the inputs that belong to the decoder.
        providers: of the sessions, for one that has none of its own.
        device: "cuda" or "cpu": where inputs, tables and memory lie.

    Raises:
        BundleError: a graph does not load, or a table does not fit.
        BackendUnavailable: the GPU cannot be used.
    """

    def __init__(
        self,
        name: str,
        precision: str,
        graphs: Mapping[int, bytes],
        shapes: Shapes,
        tables: Mapping[str, np.ndarray],
        *,
        providers: Sequence[Provider],
        device: str,
    ) -> None:
        self.name, self.precision, self._shapes = name, precision, shapes
        self.library = f"onnxruntime {VERSION}"
        self._staging = Staging(sorted(graphs))
        self.n_most_tokens: int | None = self._staging.n_most
        signature = shapes.signature
        known = {t.name: t for t in (*signature.inputs, *signature.outputs)}

        def zeros(name: str) -> Any:
            return value_on(device, fixed_zeros(known[name]))

        fitted = fitted_tables(signature, tables, shapes.n_rows, pads=shapes.rows_padded)
        self._tables = {name: value_on(device, values) for name, values in fitted.items()}
        self._lead, self._lead_s = zeros("lead_s"), 0.0
        self._memory = {name: zeros(name) for name in signature.memory}
        self._written = {f"{name}_out": zeros(name) for name in signature.memory}
        self._values = {name: zeros(name) for name in shapes.outputs}
        self._zero_memory = {name: fixed_zeros(known[name]) for name in signature.memory}
        shared = (
            {"lead_s": self._lead, **self._tables, **self._memory},
            {**self._values, **self._written},
        )
        self._buckets = {
            n_tokens: _Bucket(graphs[n_tokens], n_tokens, providers, device, shared)
            for n_tokens in self._staging.buckets
        }
        self._capture()

    def step(self, window: TokenWindow, lead_s: float) -> Mapping[str, Float32s]:
        """Run one bin and advance the memory.

        Args:
            window: its tokens; none is legal.
            lead_s: how far ahead of the window's end to estimate.

        Returns:
            Per output, (dims,) float32 in physical units.

        Raises:
            BackendError: the run failed.
        """
        values = self.predecode(window, lead_s)
        self.accept()
        return values

    def predecode(self, window: TokenWindow, lead_s: float) -> Mapping[str, Float32s]:
        """Run a bin without advancing the memory, unless `accept` follows.

        Returns:
            As `step`.

        Raises:
            BackendError: the run failed.
        """
        bucket = self._staging.take(window, lead_s)
        try:
            if lead_s != self._lead_s:
                self._lead.update_inplace(self._staging.lead_s)
                self._lead_s = lead_s
            self._buckets[bucket].run(self._staging)
            return {name: value.numpy() for name, value in self._values.items()}
        except ORT_ERRORS as error:
            raise BackendError(f"{self.name} failed on {len(window)} tokens: {error}") from error

    def accept(self) -> None:
        """Advance the memory by the run just before.

        Raises:
            BackendError: the copy failed.
        """
        try:
            for name, value in self._memory.items():
                value.update_inplace(self._written[f"{name}_out"])
        except ORT_ERRORS as error:
            raise BackendError(f"{self.name} cannot keep its memory: {error}") from error

    def reset(self) -> None:
        """Zero the memory."""
        for name, value in self._memory.items():
            value.update_inplace(self._zero_memory[name])

    def memory(self) -> dict[str, np.ndarray]:
        """Return copies of the memory's arrays, float32, by name."""
        return {name: value.numpy().copy() for name, value in self._memory.items()}

    def set_memory(self, memory: Mapping[str, np.ndarray]) -> None:
        """Go on with the memory that `memory` of the same decoder returned."""
        for name, value in self._memory.items():
            value.update_inplace(memory[name].copy())

    def set_tables(self, tables: Mapping[str, np.ndarray]) -> None:
        """Decode with other tables from the next step on: they are uploaded, nothing else changes.

        Raises:
            BundleError: one is missing or does not fit.
        """
        shapes = self._shapes
        fitted = fitted_tables(shapes.signature, tables, shapes.n_rows, pads=shapes.rows_padded)
        for name, values in fitted.items():
            self._tables[name].update_inplace(values)

    def _capture(self) -> None:
        """Run every bucket, so that each has its CUDA graph before the first beat needs it."""
        try:
            for bucket in self._buckets.values():
                for _ in range(N_CAPTURE_RUNS):
                    bucket.run(self._staging)
        except ORT_ERRORS as error:
            raise BackendUnavailable(
                f"{self.name} cannot run what was built: {error}; build it again, or use another "
                "backend"
            ) from error
        self.reset()


def open_cuda(bundle: DecoderBundle, precision: str = "fp32") -> StaticOnnxruntimeBackend:
    """The bundle's graph on the first GPU, by the CUDA provider.

    Raises:
        BackendUnavailable: the installed ONNX Runtime has no CUDA, CUDA does not start, or the
            graph has not been built for it.
    """
    build = find_build(bundle, "onnxruntime-cuda", precision, cuda_environment())
    return open_build(bundle, build)


def open_build(bundle: DecoderBundle, build: Build) -> StaticOnnxruntimeBackend:
    """Open a build with the bundle's tables.

    Raises:
        BundleError, BackendUnavailable: it does not run here.
    """
    graphs = {n: build.read_bucket(n, "onnx") for n in build.token_buckets}
    backend, manifest = str(build.record["backend"]), bundle.manifest
    outputs = tuple(output.name for output in manifest.outputs)
    shapes = Shapes(manifest.graph, outputs, build.n_rows, bool(build.record["rows_padded"]))
    return StaticOnnxruntimeBackend(
        backend,
        str(build.record["precision"]),
        graphs,
        shapes,
        bundle.tables,
        providers=[(CUDA, {"use_tf32": "0", "enable_cuda_graph": "True"})],
        device="cuda",
    )


def cuda_environment() -> Environment:
    """The environment of a build for the CUDA provider.

    Raises:
        BackendUnavailable: the installed ONNX Runtime has no CUDA, or there is no GPU.
    """
    if CUDA not in providers_at_hand():
        raise NotProvidedError(
            f"the installed ONNX Runtime has no {CUDA}: pip uninstall onnxruntime, "
            "then pip install 'spikeloop[gpu]'"
        )
    load_gpu_libraries()
    return Environment(f"onnxruntime {VERSION}", str(find_gpu()))
