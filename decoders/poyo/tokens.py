"""Tokens in whole windows for the torch network: every unit's START and END, then spikes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from streams.messages import Float32s, Float64s

SPIKE, START, END = 0, 1, 2
MICROSECOND_S = 1e-6

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PoyoWindow:
    """One window's spikes.

    Attributes:
        units: (U,) int64, every unit's vocabulary row, silent ones too.
        unit: (N,) int64, each spike's index into `units`.
        t_s: (N,) float64, seconds since the window's start.
        count: (N,) float64, spikes that the token stands for.
        session: the session's vocabulary row.
    """

    units: Int64s
    unit: Int64s
    t_s: Float64s
    count: Float64s
    session: int


@dataclass(frozen=True, slots=True)
class PoyoBatch:
    """B windows padded to the longest, M tokens each, with Q queries each.

    Attributes:
        unit: (B, M) int64 vocabulary rows.
        kind: (B, M) int64, `SPIKE`, `START` or `END`.
        t_s: (B, M) float64, seconds since the window's start.
        count: (B, M) float64, 0 where padded.
        session: (B,) int64 vocabulary rows.
        query_s: (B, Q) float64, seconds since the window's start.
    """

    unit: Tensor
    kind: Tensor
    t_s: Tensor
    count: Tensor
    session: Tensor
    query_s: Tensor

    def to(self, device: torch.device) -> PoyoBatch:
        """Copy to a device."""
        return PoyoBatch(*(getattr(self, name).to(device) for name in self.__slots__))


def exact_s(t_rel: Float32s) -> Float64s:
    """Undo the rounding to float32: token times are whole microseconds."""
    return np.round(t_rel.astype(np.float64) / MICROSECOND_S) * MICROSECOND_S


def batch_of(windows: Sequence[PoyoWindow], query_s: Float64s, sequence_s: float) -> PoyoBatch:
    """Pad windows to one length.

    Args:
        windows: B windows.
        query_s: (B, Q) seconds since the window's start.
        sequence_s: window length, where END stands.
    """
    n_tokens = max(2 * len(window.units) + len(window.unit) for window in windows)
    shape = (len(windows), n_tokens)
    unit, kind = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    t_s, count = np.zeros(shape), np.zeros(shape)
    for i, window in enumerate(windows):
        n_units, n = len(window.units), 2 * len(window.units) + len(window.unit)
        unit[i, :n] = np.concatenate([window.units, window.units, window.units[window.unit]])
        kind[i, : 2 * n_units] = np.repeat([START, END], n_units)
        t_s[i, n_units : 2 * n_units] = sequence_s
        t_s[i, 2 * n_units : n] = window.t_s
        count[i, : 2 * n_units] = 1.0
        count[i, 2 * n_units : n] = window.count
    return PoyoBatch(
        unit=torch.from_numpy(unit),
        kind=torch.from_numpy(kind),
        t_s=torch.from_numpy(t_s),
        count=torch.from_numpy(count),
        session=torch.tensor([window.session for window in windows]),
        query_s=torch.from_numpy(query_s),
    )
