"""A backend that a test lets hang: native code that never returns.

Imported before `spikeloop` starts, it stands in the backend table beside the others. It runs as
`onnxruntime-cpu` does, until the file that `SPIKELOOP_HANG` names exists. Its content says where
it hangs (`open` or `step`) and how: `gil` keeps the interpreter's lock, so that no Python thread
of the process runs on; `free` lets it go. `crash` does not hang, but reads where no memory is.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from export.backends.onnxruntime_cpu import OnnxruntimeBackend
from export.backends.table import BACKENDS, Backend
from export.bundle import DecoderBundle
from streams.messages import TokenWindow

NAME, SWITCH = "hanging", "SPIKELOOP_HANG"


def hang_if_told(where: str) -> None:
    try:
        told, _, how = Path(os.environ[SWITCH]).read_text().partition(" ")
    except (KeyError, FileNotFoundError):
        return
    if told != where:
        return
    if how == "crash":
        ctypes.string_at(0)
    library = ctypes.PyDLL(None) if how == "gil" else ctypes.CDLL(None)
    mutex = ctypes.create_string_buffer(64)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)  # waits for itself, and no signal ends it


class HangingBackend(OnnxruntimeBackend):
    name = NAME

    def step(self, window: TokenWindow, lead_s: float) -> Mapping[str, Any]:
        hang_if_told("step")
        return super().step(window, lead_s)

    def predecode(self, window: TokenWindow, lead_s: float) -> Mapping[str, Any]:
        hang_if_told("step")
        return super().predecode(window, lead_s)


def _open(bundle: DecoderBundle, precision: str) -> Backend:
    hang_if_told("open")
    outputs = [output.name for output in bundle.manifest.outputs]
    graph = bundle.graph_path.read_bytes()
    return HangingBackend(graph, bundle.manifest.graph, bundle.tables, outputs)


if SWITCH in os.environ:  # not in the tests' own process, where it would stay
    cast(dict[str, Any], BACKENDS)[NAME] = _open
