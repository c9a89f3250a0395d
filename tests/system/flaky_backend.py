"""A backend that a test breaks while it serves: ONNX Runtime, handed rows that no table has.

Imported before `spikeloop` starts, it stands in the backend table beside the others. It runs the
bundle's graph as `onnxruntime-cpu` does, until the file that `SPIKELOOP_BREAK` names exists: from
then on every step asks for a row beyond the table, and ONNX Runtime refuses for real.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from export.backends.onnxruntime_cpu import OnnxruntimeBackend
from export.backends.table import BACKENDS, Backend
from export.bundle import DecoderBundle
from streams.messages import TokenWindow

NAME, SWITCH = "flaky", "SPIKELOOP_BREAK"


class FlakyBackend(OnnxruntimeBackend):
    name = NAME

    def step(self, window: TokenWindow, lead_s: float) -> Mapping[str, Any]:
        return super().step(_broken(window), lead_s)

    def predecode(self, window: TokenWindow, lead_s: float) -> Mapping[str, Any]:
        return super().predecode(_broken(window), lead_s)


def _broken(window: TokenWindow) -> TokenWindow:
    if not Path(os.environ[SWITCH]).exists():
        return window
    zero = np.zeros(1, np.float32)
    return TokenWindow(np.full(1, 10**6, np.int32), zero, zero, window.t_window)


def _open(bundle: DecoderBundle, precision: str) -> Backend:
    outputs = [output.name for output in bundle.manifest.outputs]
    graph = bundle.graph_path.read_bytes()
    return FlakyBackend(graph, bundle.manifest.graph, bundle.tables, outputs)


if SWITCH in os.environ:  # not in the tests' own process, where it would stay
    cast(dict[str, Any], BACKENDS)[NAME] = _open
