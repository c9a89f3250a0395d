"""Table of backends: each name in the config, with the function that opens it for a bundle.

`NAME:PRECISION` asks for another precision than fp32, where `spikeloop build` has made it.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from pickle import PickleError
from types import ModuleType
from typing import Protocol, runtime_checkable

import numpy as np

from export.bundle import DecoderBundle
from export.errors import BackendUnavailable, NotProvidedError
from streams.messages import Float32s, TokenWindow
from streams.spikes.kernels.choose import NUMPY, Kernels, numba_kernels

COMPILED = "numba-cpu"
"""The backend that compiles the decoder, and with it the kernels before it (`kernels_for`)."""
AUTO = "auto"
"""In the config: the fastest of those below, see `export.choice.auto`."""
REFERENCE = "torch"
"""What others are held to; `auto` never takes it, so that no daemon loads torch unasked."""
GPU_BACKENDS = ("onnxruntime-cuda", "tensorrt", "torch-cuda")
PRECISIONS = ("fp32", "fp16", "bf16")


class Backend(Protocol):
    """Runs a decoder's graph, one bin a step, and carries its memory.

    Attributes:
        name: as in the config.
        library: name and version of what runs it, with the card where it needs one.
        precision: "fp32", "fp16" or "bf16".
        n_most_tokens: tokens that a step takes at most; None where any number does.
    """

    name: str
    library: str
    precision: str
    n_most_tokens: int | None

    def step(self, window: TokenWindow, lead_s: float) -> Mapping[str, Float32s]:
        """Run one bin and advance the memory.

        Returns:
            Per output, (dims,) float32 in physical units, valid until the next step.

        Raises:
            BackendError: the run failed.
        """

    def reset(self) -> None:
        """Zero the memory."""

    def set_tables(self, tables: Mapping[str, np.ndarray]) -> None:
        """Decode with other tables from the next step on.

        Raises:
            BundleError: a table is missing or does not fit the graph.
        """


@runtime_checkable
class Predecodes(Protocol):
    """A backend that can run a bin before it is known to be whole."""

    def predecode(self, window: TokenWindow, lead_s: float) -> Mapping[str, Float32s]:
        """Run a bin as `step` does, but for the memory, which stays as it was.

        Raises:
            BackendError: the run failed.
        """

    def accept(self) -> None:
        """Take the run just before as the step: advance the memory by it."""


@runtime_checkable
class Remembers(Protocol):
    """A backend whose memory can be read, and set: it goes on bit for bit."""

    def memory(self) -> dict[str, np.ndarray]:
        """Return copies of the memory's arrays, float32, by name."""

    def set_memory(self, memory: Mapping[str, np.ndarray]) -> None:
        """Go on with the memory that `memory` of the same decoder returned."""


def _onnxruntime_cpu(bundle: DecoderBundle, precision: str) -> Backend:
    require_one_onnxruntime()
    from export.backends.onnxruntime_cpu import open_cpu

    return open_cpu(bundle, precision)


def _onnxruntime_cuda(bundle: DecoderBundle, precision: str) -> Backend:
    require_one_onnxruntime()
    from export.backends.onnxruntime_cuda import open_cuda

    return open_cuda(bundle, precision)


def _numba_cpu(bundle: DecoderBundle, precision: str) -> Backend:
    if not is_importable("numba"):
        raise NotProvidedError("numba is not installed: pip install 'spikeloop[numba]'")
    family = bundle.manifest.family
    if family != "streaming":  # asked first: what follows compiles for seconds
        raise NotProvidedError(
            f"{COMPILED} runs decoders of the family `streaming` as `spikeloop export` writes "
            f"them; {bundle.manifest.name!r} is of {family!r}: use onnxruntime-cpu"
        )
    try:
        from numba.core.errors import NumbaError
    except (ImportError, OSError) as error:  # as where numpy is newer than numba knows
        raise BackendUnavailable(f"numba does not load: {error}") from error
    try:
        from export.backends.numba_cpu import open_cpu

        numba_kernels()  # what the loop would use with it is compiled, or refused, with it
    except RuntimeError as error:
        raise BackendUnavailable(
            f"numba cannot keep what it compiles: {error}; set NUMBA_CACHE_DIR to a folder that "
            "can be written"
        ) from error
    except (NumbaError, OSError, EOFError, PickleError) as error:
        raise BackendUnavailable(
            f"numba cannot compile here, or its cache is damaged ({type(error).__name__}: "
            f"{error}): empty the folder that NUMBA_CACHE_DIR names, or `__pycache__` beside "
            "`export/backends` and `streams/spikes/kernels`"
        ) from error
    return open_cpu(bundle, precision)


def _torch(bundle: DecoderBundle, precision: str) -> Backend:
    _require_torch("torch", precision)
    from export.backends.torch_cpu import open_cpu

    return open_cpu(bundle)


def _torch_cuda(bundle: DecoderBundle, precision: str) -> Backend:
    _require_torch("torch-cuda", precision)
    from export.backends.torch_cuda import open_cuda

    return open_cuda(bundle)


def _require_torch(name: str, precision: str) -> None:
    if importlib.util.find_spec("torch") is None:
        raise NotProvidedError("torch is not installed: pip install 'spikeloop[train]'")
    if precision != "fp32":
        raise NotProvidedError(f"{name} is the reference: it runs fp32, not {precision}")


def _tensorrt(bundle: DecoderBundle, precision: str) -> Backend:
    opened: Backend = load_tensorrt().open_tensorrt(bundle, precision)
    return opened


BACKENDS: Mapping[str, Callable[[DecoderBundle, str], Backend]] = {
    "onnxruntime-cpu": _onnxruntime_cpu,
    COMPILED: _numba_cpu,
    "onnxruntime-cuda": _onnxruntime_cuda,
    "tensorrt": _tensorrt,
    "torch": _torch,
    "torch-cuda": _torch_cuda,
}


def parse_choice(choice: str) -> tuple[str, str]:
    """`NAME` or `NAME:PRECISION` of the config as a name and a precision.

    Raises:
        BackendUnavailable: there is no such backend or precision.
    """
    name, _, precision = choice.partition(":")
    if name == AUTO:
        raise BackendUnavailable(
            f"{choice!r}: {AUTO} runs fp32, and is no fallback; name a backend, or leave it out"
        )
    if name not in BACKENDS:
        near = difflib.get_close_matches(name, [*BACKENDS, AUTO], n=2)
        hint = f"; did you mean {' or '.join(near)}?" if near else ";"
        raise BackendUnavailable(
            f"no backend {name!r}{hint} there are: {', '.join([*BACKENDS, AUTO])}"
        )
    if precision and precision not in PRECISIONS:
        raise BackendUnavailable(
            f"no precision {precision!r} in {choice!r}; there are: {', '.join(PRECISIONS)}"
        )
    return name, precision or "fp32"


def load_tensorrt() -> ModuleType:
    """The module that runs TensorRT's engines.

    Raises:
        BackendUnavailable: TensorRT or CUDA's bindings are not installed, or do not load.
    """
    from export.tensorrt.library import require_installed

    require_installed()
    install = "pip install 'spikeloop[rtx]' (or `cuda-bindings` beside your own TensorRT)"
    if not is_importable("cuda.bindings"):
        raise NotProvidedError(f"no python package 'cuda.bindings': {install}")
    try:
        return importlib.import_module("export.tensorrt.backend")
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendUnavailable(f"CUDA's bindings do not load: {error}; {install}") from error


def kernels_for(backend: Backend) -> Kernels:
    """Return the kernels from a pull to tokens, compiled where the decoder is."""
    return numba_kernels() if backend.name == COMPILED else NUMPY


def is_importable(module: str) -> bool:
    """Return True if a package is installed; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def require_one_onnxruntime() -> None:
    """Refuse an installation with no ONNX Runtime, or with both of its distributions.

    Raises:
        BackendUnavailable: with the commands that mend it.
    """
    found = [name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)]
    if len(found) == 2:
        raise NotProvidedError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files: "
            "pip uninstall onnxruntime onnxruntime-gpu, then pip install 'spikeloop[cpu]' "
            "or 'spikeloop[gpu]'"
        )
    if not found:
        raise NotProvidedError("onnxruntime is not installed: pip install 'spikeloop[cpu]'")


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
