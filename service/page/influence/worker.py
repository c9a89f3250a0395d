"""Influence in a thread of its own, so that no picture waits for it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from export.bundle import DecoderBundle
from export.errors import ExportError
from service.page.influence.live import Influence, LiveInfluence
from streams.messages import Float64s

EVERY_S = 0.25
WAITING_AT_MOST = 1000


class _Spikes(NamedTuple):
    t_s: Float64s
    keys: Sequence[str]
    unit: np.ndarray
    n: np.ndarray | None


class InfluenceWorker(threading.Thread):
    """Works through spikes that are handed over; the thread owns the computation.

    Args:
        bundle: the decoder in service.
        lead_s: how far ahead the daemon decodes.

    Attributes:
        influences: what is known of each output; replaced as a whole.
        trouble: why it ended by itself; "" while all is well.
    """

    def __init__(self, bundle: DecoderBundle, lead_s: float) -> None:
        super().__init__(name="influence", daemon=True)
        self.influences: Mapping[str, Influence] = {}
        self.trouble = ""
        self._live = LiveInfluence(bundle, lead_s)
        # What a worker that is held up does not take is forgotten, the oldest first.
        self._waiting: deque[_Spikes] = deque(maxlen=WAITING_AT_MOST)
        self._until_s = float("-inf")
        self._stopping = threading.Event()

    def add(
        self, t_s: Float64s, keys: Sequence[str], unit: np.ndarray, count: np.ndarray | None = None
    ) -> None:
        """Hand spikes over; see `LiveInfluence.add`. The arrays are not changed any more."""
        self._waiting.append(_Spikes(t_s, keys, unit, count))

    def go_on(self, until_s: float) -> None:
        """Say up to which moment all spikes were handed over; seconds on the spikes' clock."""
        self._until_s = until_s

    def stop(self) -> None:
        """End the thread, after the work that it is at."""
        self._stopping.set()

    def run(self) -> None:
        """Work four times a second until told to stop, or until no backend can be opened."""
        done_s = float("-inf")
        while not self._stopping.wait(EVERY_S):
            until_s = self._until_s
            if until_s <= done_s:
                continue
            while self._waiting:
                self._live.add(*self._waiting.popleft())
            try:
                self._live.update(until_s)
            except ExportError as err:
                self.trouble = str(err)
                return
            done_s, self.influences = until_s, self._live.influences()
