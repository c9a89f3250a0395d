"""Rotary time: pairs in a head's dimensions rotate with time (arXiv 2104.09864)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Rotation:
    """Rotation for each pair in a head's dimensions at some times.

    Attributes:
        cos: (..., dim_head // 2).
        sin: the same shape.
    """

    cos: Tensor
    sin: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Rotate pairs (x[2i], x[2i + 1]) in (..., dim_head), broadcast against cos and sin."""
        turn = torch.complex(self.cos.to(x.dtype), self.sin.to(x.dtype))
        pairs = torch.view_as_complex(x.view(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * turn).flatten(-2)

    def back(self) -> Rotation:
        """The opposite rotation."""
        return Rotation(self.cos, -self.sin)

    def over_heads(self) -> Rotation:
        """From (B, N, dim_head // 2) to rotate x with shape (B, H, N, dim_head)."""
        return Rotation(self.cos.unsqueeze(1), self.sin.unsqueeze(1))


class RotaryTime(nn.Module):
    """Angular frequencies, rad/s; a head's second half stands still.

    The periods are spaced evenly in the logarithm, both ends included. They are kept in the
    weights and loaded with them: computed afresh they may differ by 1e-5, 0.03 rad after a second.

    Args:
        dim_head: head width.
        t_min_s: shortest period.
        t_max_s: longest period.
    """

    omega: Tensor

    def __init__(self, dim_head: int, t_min_s: float, t_max_s: float) -> None:
        super().__init__()
        n_moving = dim_head // 4
        logs = torch.linspace(math.log(t_min_s), math.log(t_max_s), n_moving)
        still = torch.zeros(dim_head // 2 - n_moving)
        self.register_buffer("omega", torch.cat([2 * math.pi / torch.exp(logs), still]))

    @torch.no_grad()
    def forward(self, t_s: Tensor) -> Rotation:
        """Rotation at (...,) times; float64 times give angles, cosines and sines in float64."""
        angle = t_s.unsqueeze(-1) * self.omega
        return Rotation(torch.cos(angle), torch.sin(angle))


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
