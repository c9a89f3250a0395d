"""LSL streams of the page's own: looked for and measured in a thread, pulled by the page's loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from streams.clock import ClockOffset
from streams.errors import StreamsError
from streams.lsl.inlets import Inlet
from streams.messages import Float64s

AGAIN_S, MEASURED_EVERY_S, MEASURED_WITHIN_S = 1.0, 5.0, 2.0


class Stream:
    """One stream: found again whenever it was lost.

    Args:
        find: looks for it and opens nothing; raises while it is not there.

    Attributes:
        inlet: the open stream; None while it is looked for.
        trouble: why there is none; "" where there is.
    """

    def __init__(self, find: Callable[[], Inlet]) -> None:
        self._find = find
        self.inlet: Inlet | None = None
        self.trouble = "not looked for yet"
        self._offset = ClockOffset(same_host=True)
        self._stopping = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lsl", daemon=True)
        self._thread.start()

    def pull(self) -> tuple[np.ndarray, Float64s] | None:
        """Return values and stamps (seconds on our clock) that came; None where there is none."""
        if self.inlet is None:
            return None
        try:
            values, stamps = self.inlet.pull(0.0)
        except StreamsError as err:
            self.inlet, self.trouble = None, str(err)
            self._lost.set()
            return None
        return values, stamps + self._offset.current.offset_s

    def close(self) -> None:
        """Stop the transmission and end the thread."""
        self._stopping.set()
        self._lost.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self.inlet is None:
                self._open()
            elif (estimate := self.inlet.clock_offset(MEASURED_WITHIN_S)) is not None:
                self._offset.add(estimate)
            waited_s = AGAIN_S if self.inlet is None else MEASURED_EVERY_S
            self._lost.wait(waited_s)
            self._lost.clear()
        if self.inlet is not None:
            self.inlet.close()

    def _open(self) -> None:
        try:
            inlet = self._find()
            offset = ClockOffset(same_host=inlet.same_host)
            if (estimate := inlet.clock_offset(MEASURED_WITHIN_S)) is not None:
                offset.add(estimate)
            inlet.open()
        except StreamsError as err:
            self.trouble = str(err)
            return
        self._offset, self.trouble, self.inlet = offset, "", inlet


def texts(values: np.ndarray) -> list[Any]:
    """Return the first channel of (n, n_channels) values, as Python values."""
    first: list[Any] = values[:, 0].tolist() if values.ndim == 2 else values.tolist()
    return first
