"""A backend that a measurement breaks while it serves: numba's, handed rows that no table has.

Imported before `spikeloop` starts, it takes the place of `numba-cpu` in the backend table. It
computes what that does, until the file that `SPIKELOOP_BREAK` names exists: then every step fails.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from export.backends.numba_cpu import NumbaBackend, open_cpu
from export.backends.table import BACKENDS, Backend
from export.bundle import DecoderBundle
from streams.messages import Float32s, TokenWindow
from streams.spikes.kernels.choose import numba_kernels

NAME, SWITCH = "numba-cpu", "SPIKELOOP_BREAK"
_BEYOND = np.full(1, 10**6, np.int32)


class BreakableBackend:
    """Runs one bin per step, as the backend within does.

    Args:
        within: does the work.
        switch: a file; while it exists, steps fail.
    """

    def __init__(self, within: NumbaBackend, switch: Path) -> None:
        self._within, self._switch = within, switch
        self.name, self.library, self.precision = within.name, within.library, within.precision
        self.n_most_tokens = within.n_most_tokens
        self.accept, self.reset, self.set_tables = within.accept, within.reset, within.set_tables
        self.memory, self.set_memory = within.memory, within.set_memory

    def step(self, window: TokenWindow, lead_s: float) -> Mapping[str, Float32s]:
        """Run one bin and advance the memory."""
        return self._within.step(self._given(window), lead_s)

    def predecode(self, window: TokenWindow, lead_s: float) -> Mapping[str, Float32s]:
        """Run a bin without consequence, unless `accept` follows."""
        return self._within.predecode(self._given(window), lead_s)

    def _given(self, window: TokenWindow) -> TokenWindow:
        if not self._switch.exists():
            return window
        return TokenWindow(_BEYOND, window.t_rel[:1], window.count[:1], window.t_window)


def _open(bundle: DecoderBundle, precision: str) -> Backend:
    numba_kernels()
    return BreakableBackend(open_cpu(bundle, precision), Path(os.environ[SWITCH]))


if SWITCH in os.environ:
    cast(dict[str, Any], BACKENDS)[NAME] = _open
