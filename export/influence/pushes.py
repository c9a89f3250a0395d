"""Units' pushes on the decode: running mean and spread, and one number a unit for each output."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from streams.messages import Float64s


@dataclass(frozen=True, slots=True)
class Pushes:
    """Push of each unit on each dimension of the decode, in the outputs' units.

    Attributes:
        now: (n_rows, n_dims) what the unit's recent spikes add to the newest decode.
        mean: (n_rows, n_dims) over the last seconds.
        spread: (n_rows, n_dims) standard deviation over the last seconds.
        per_spike: (n_rows, n_dims) what one more spike of the unit adds, silent units included;
            the sum over all decodes that it reaches.
        n: samples behind mean and spread.
    """

    now: Float64s
    mean: Float64s
    spread: Float64s
    per_spike: Float64s
    n: int


class RunningMoments:
    """Mean and variance with weights that fade.

    Args:
        shape: of what is averaged.
        fade_s: time after which a sample counts 1/e.
    """

    def __init__(self, shape: tuple[int, ...], fade_s: float) -> None:
        self.n = 0
        self.mean: Float64s = np.zeros(shape)
        self._squares: Float64s = np.zeros(shape)
        self._weight, self._fade_s, self._t_s = 0.0, fade_s, -math.inf

    def add(self, t_s: float, value: np.ndarray) -> None:
        """Take a sample in; samples come in time order."""
        self._weight = 1.0 + self._weight * math.exp(-(t_s - self._t_s) / self._fade_s)
        self._t_s, self.n = t_s, self.n + 1
        share = 1.0 / self._weight
        away = value - self.mean
        self.mean = self.mean + share * away
        # West (1979), with weights that fade.
        self._squares = (1.0 - share) * (self._squares + share * np.square(away))

    @property
    def spread(self) -> Float64s:
        """Standard deviation."""
        spread: Float64s = np.sqrt(np.maximum(self._squares, 0.0))
        return spread
