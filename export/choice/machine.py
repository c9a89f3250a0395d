"""The machine that a measured time belongs to: processor, GPU, and the libraries' versions."""

from __future__ import annotations

import platform
import shutil
from importlib import metadata
from pathlib import Path

from export.engines.gpu import find_gpu
from export.errors import BackendUnavailable

LIBRARIES = (
    "spikeloop", "numpy", "onnxruntime", "onnxruntime-gpu", "numba", "llvmlite", "torch", "triton",
    "tensorrt", "tensorrt-rtx-cu13-libs", "cuda-bindings",
)  # fmt: skip
"""Whose code runs a step, or is compiled into it."""


def cpu_model() -> str | None:
    """Name of the processor; None where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def gpu_name() -> str:
    """Name, compute capability and driver of the GPU; "" where there is none."""
    if shutil.which("nvidia-smi") is None:
        return ""
    try:
        return str(find_gpu())
    except BackendUnavailable:
        return ""


def library_versions() -> dict[str, str]:
    """Version of each of `LIBRARIES` that is installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
