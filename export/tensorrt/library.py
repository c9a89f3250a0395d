"""TensorRT's two libraries behind one face: TensorRT for RTX, and TensorRT for data-centre GPUs.

The only file that imports them. Both have the same API where this code uses it; TensorRT for RTX
comes from PyPI and builds engines without a GPU, for several cards at once.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from export.errors import BackendUnavailable, NotProvidedError

RTX, FULL = "tensorrt-rtx", "tensorrt"
RTX_INSTALL = "pip install 'spikeloop[rtx]'"
FULL_INSTALL = "python3 -m pip install --upgrade tensorrt cuda-bindings"
DESKTOP = ("sm86", "sm89", "sm120")
"""RTX cards of the generations Ampere, Ada and Blackwell."""
STAND_IN = "sm80"
"""Tried on a card that TensorRT for RTX does not name, such as Hopper: not promised by NVIDIA."""

_MODULES = {RTX: "tensorrt_rtx_bindings", FULL: "tensorrt"}
_RTX_LIBRARIES = ("libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1")


@dataclass(frozen=True, slots=True)
class Library:
    """One of the two, loaded.

    Attributes:
        name: "tensorrt-rtx" or "tensorrt".
        trt: its Python module.
    """

    name: str
    trt: ModuleType

    def __str__(self) -> str:
        return f"{self.name} {self.trt.__version__}"

    @property
    def builds_ahead(self) -> bool:
        """Return True if engines are built for cards that are not in this machine."""
        return self.name == RTX

    @property
    def targets(self) -> Mapping[str, Any]:
        """Compute capabilities that engines can be built ahead for, such as "sm89"."""
        if not self.builds_ahead:
            return {}
        known = self.trt.ComputeCapability.__members__
        return {name.lower(): one for name, one in known.items() if name.startswith("SM")}

    def checked_targets(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """The targets, without repetition.

        Raises:
            BackendUnavailable: the library has no such target.
        """
        unknown = [name for name in wanted if name not in self.targets]
        if unknown:
            there = f"it has: {', '.join(self.targets)}" if self.targets else _NOT_AHEAD
            raise BackendUnavailable(f"{self} has no target {', '.join(unknown)}; {there}")
        return tuple(dict.fromkeys(wanted))


_NOT_AHEAD = (
    "it builds on the GPU itself, and for that GPU alone: leave --target out, or install "
    f"TensorRT for RTX: {RTX_INSTALL}"
)


def installed_libraries() -> tuple[str, ...]:
    """Names of the libraries whose packages are there; nothing is loaded."""
    return tuple(name for name, module in _MODULES.items() if importlib.util.find_spec(module))


def require_installed() -> tuple[str, ...]:
    """Names of the libraries that are installed.

    Raises:
        BackendUnavailable: none is, with the line that installs one.
    """
    found = installed_libraries()
    if not found:
        raise NotProvidedError(
            f"TensorRT is not installed: {RTX_INSTALL} (RTX cards; builds engines on any machine), "
            f"or for a data-centre GPU {FULL_INSTALL}"
        )
    return found


def library_for(capability: str | None) -> Library:
    """Load the library that fits a card, or the one that needs none.

    Args:
        capability: of the card, e.g. "sm89"; None for a machine without a GPU.

    Raises:
        BackendUnavailable: none is installed, none fits, or it does not load.
    """
    found = require_installed()
    if RTX not in found:
        if capability is None:
            raise BackendUnavailable(
                "TensorRT builds engines only on a machine with the GPU they are for; TensorRT for "
                f"RTX builds them on any machine: {RTX_INSTALL}"
            )
        return _loaded(FULL)
    rtx = _loaded(RTX)
    if FULL in found and capability is not None and capability not in rtx.targets:
        return _loaded(FULL)
    return rtx


def _loaded(name: str) -> Library:
    try:
        if name == RTX:
            _preload_rtx()
        return Library(name, importlib.import_module(_MODULES[name]))
    except (ImportError, OSError, RuntimeError) as error:
        install = RTX_INSTALL if name == RTX else FULL_INSTALL
        raise BackendUnavailable(
            f"{name} is installed but does not load: {error}; install it anew: {install}"
        ) from error


def _preload_rtx() -> None:
    """Load the shared libraries in order: the bindings look for them on the loader's path only."""
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    if spec is None or spec.origin is None:
        return
    for name in _RTX_LIBRARIES:
        path = Path(spec.origin).parent / name
        if path.exists():
            ctypes.CDLL(str(path))


def new_log(library: Library) -> Any:
    """A logger of the library that keeps its complaints; `told()` gives the last ones."""
    trt = library.trt

    class Complaints(trt.ILogger):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.lines.append(msg)

        def told(self) -> str:
            return "; ".join(self.lines[-3:]) or "it gave no reason"

    return Complaints()
