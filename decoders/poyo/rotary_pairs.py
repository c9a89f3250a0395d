"""Rotary time without copies: the members of a rotating pair are stored apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RotaryPairs:
    """Head vectors, split by how time rotates them, so that rotation needs no copy.

    Attributes:
        first: (H, N, n_pairs) first members of the rotating pairs.
        second: (H, N, n_pairs) second members.
        still: (H, N, dim_head - 2 n_pairs).
    """

    first: Tensor
    second: Tensor
    still: Tensor

    def by(self, cos: Tensor, sin: Tensor) -> RotaryPairs:
        """Rotated by angles whose cosines and sines are (N, n_pairs)."""
        first = self.first * cos - self.second * sin
        return RotaryPairs(first, self.second * cos + self.first * sin, self.still)

    def joined(self, *further: Tensor) -> Tensor:
        """(H, N, dim_head), and further columns."""
        return torch.cat([self.first, self.second, self.still, *further], dim=-1)


def rotary_order(dim_head: int) -> Tensor:
    """Order for a head's dimensions: first members of the rotating pairs, second ones, the rest.

    Returns:
        (dim_head,) int64.
    """
    n_turning = dim_head // 2
    first, second = torch.arange(0, n_turning, 2), torch.arange(1, n_turning, 2)
    return torch.cat([first, second, torch.arange(n_turning, dim_head)])
