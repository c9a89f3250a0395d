"""Pulling from an LSL inlet: one sample is waited for, and what else is there is taken with it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pylsl

from streams.messages import Float64s

Pull = Callable[[float], tuple[np.ndarray, Float64s]]


def puller(inlet: pylsl.StreamInlet, n_samples: int) -> Pull:
    """Choose a way to pull at most `n_samples`; see `streams.lsl.inlets.Inlet.pull`."""
    if inlet.channel_format != pylsl.cf_string:
        return PullBuffer(inlet, n_samples).pull

    def pull_text(timeout_s: float) -> tuple[np.ndarray, Float64s]:
        text, stamps = inlet.pull_chunk(
            timeout=timeout_s, max_samples=n_samples, min_samples=1, as_numpy=True
        )
        return np.asarray(text), np.asarray(stamps, dtype=np.float64)

    return pull_text


class PullBuffer:
    """Arrays for the numbers that liblsl pulls: kept, so that a pull costs little.

    Args:
        inlet: sends numbers.
        n_samples: pulled at most at a time.
    """

    def __init__(self, inlet: pylsl.StreamInlet, n_samples: int) -> None:
        self._inlet = inlet
        self._take = pylsl.lib.fmt2pull_chunk[inlet.channel_format]
        dtype = pylsl.lib.fmt2npdtype[inlet.channel_format]
        self._n_channels = inlet.channel_count
        self._values = np.zeros((n_samples, self._n_channels), dtype)
        self._stamps = np.zeros(n_samples)
        self._error = ctypes.c_int()
        self._error_at = ctypes.byref(self._error)
        # In two: a pull of many waits for all of them.
        self._first, self._rest = self._room(0, 1), self._room(1, n_samples)

    def _room(self, i_from: int, i_to: int) -> tuple[Any, ...]:
        n = i_to - i_from
        at = [ctypes.c_void_p(part[i_from:].ctypes.data) for part in (self._values, self._stamps)]
        return (*at, ctypes.c_size_t(n * self._n_channels), ctypes.c_size_t(n))

    def pull(self, timeout_s: float) -> tuple[np.ndarray, Float64s]:
        """Copy what came; see `streams.lsl.inlets.Inlet.pull`.

        Raises:
            pylsl.util.LostError: the source ended for good.
        """
        n = self._fill(self._first, timeout_s)
        if n:
            n += self._fill(self._rest, 0.0)
        return self._values[:n].copy(), self._stamps[:n].copy()

    def _fill(self, room: tuple[Any, ...], timeout_s: float) -> int:
        self._error.value = 0
        n_values = self._take(self._inlet.obj, *room, ctypes.c_double(timeout_s), self._error_at)
        pylsl.util.handle_error(self._error)
        n: int = n_values // self._n_channels
        return n
