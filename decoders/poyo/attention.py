"""Rotary time, attention with it, and the feed-forward network, named as in torch_brain."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


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

    def __init__(self, dim_head: int, t_min_s: float, t_max_s: float) -> None:
        super().__init__()
        n_moving = dim_head // 4
        logs = torch.linspace(math.log(t_min_s), math.log(t_max_s), n_moving)
        still = torch.zeros(dim_head // 2 - n_moving)
        self.omega = nn.Buffer(torch.cat([2 * math.pi / torch.exp(logs), still]))

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


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """(..., N, n_heads * dim_head) -> (..., n_heads, N, dim_head)."""
    return x.view(*x.shape[:-1], n_heads, -1).transpose(-3, -2)


def join_heads(x: Tensor) -> Tensor:
    """(..., n_heads, N, dim_head) -> (..., N, n_heads * dim_head)."""
    return x.transpose(-3, -2).flatten(-2)


class CrossAttention(nn.Module):
    """Queries attend to a context.

    Args:
        dim: query and context width.
        n_heads: how many heads.
        dim_head: head width.
        dropout: chance that an attention weight is dropped in training.
        rotate_values: whether values are carried between the times, as keys and queries are.
    """

    def __init__(
        self, dim: int, n_heads: int, dim_head: int, dropout: float, *, rotate_values: bool
    ) -> None:
        super().__init__()
        self.n_heads, self.dropout, self.rotate_values = n_heads, dropout, rotate_values
        width = n_heads * dim_head
        self.norm = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, width, bias=False)
        self.to_kv = nn.Linear(dim, 2 * width, bias=False)
        self.to_out = nn.Linear(width, dim)

    def fold(self, context: Tensor) -> Tensor:
        """Keys, then values, for context tokens: (..., dim) -> (..., 2 * width)."""
        folded: Tensor = self.to_kv(self.norm_context(context))
        return folded

    def forward(
        self,
        query: Tensor,
        folded: Tensor,
        q_rotation: Rotation,
        k_rotation: Rotation,
        bias: Tensor | None = None,
    ) -> Tensor:
        """(B, N_q, dim) queries and (B, N_k, 2 * width) folded context -> (B, N_q, dim).

        `bias`, (B, N_k), is added to each key's logits.
        """
        q_rotation, k_rotation = q_rotation.over_heads(), k_rotation.over_heads()
        queries = q_rotation.apply(split_heads(self.to_q(self.norm(query)), self.n_heads))
        context = split_heads(folded, 2 * self.n_heads)
        if self.rotate_values:
            keys, values = k_rotation.apply(context).chunk(2, dim=1)
        else:
            keys, values = context.chunk(2, dim=1)
            keys = k_rotation.apply(keys)
        mask = None if bias is None else bias[:, None, None, :].to(queries.dtype)
        dropout = self.dropout if self.training else 0.0
        out = functional.scaled_dot_product_attention(queries, keys, values, mask, dropout)
        out = q_rotation.back().apply(out) if self.rotate_values else out
        answer: Tensor = self.to_out(join_heads(out))
        return answer


class SelfAttention(nn.Module):
    """Tokens attend to each other; values are carried between their times.

    Args:
        dim: token width.
        n_heads: how many heads.
        dim_head: head width.
        dropout: chance that an attention weight is dropped in training.
    """

    def __init__(self, dim: int, n_heads: int, dim_head: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * n_heads * dim_head, bias=False)
        self.to_out = nn.Linear(n_heads * dim_head, dim)

    def forward(self, x: Tensor, turn: Rotation) -> Tensor:
        """(B, N, dim) at the times of `turn` -> (B, N, dim)."""
        turn = turn.over_heads()
        heads = turn.apply(split_heads(self.to_qkv(self.norm(x)), 3 * self.n_heads))
        dropout = self.dropout if self.training else 0.0
        queries, keys, values = heads.chunk(3, dim=1)
        out = functional.scaled_dot_product_attention(queries, keys, values, None, dropout)
        answer: Tensor = self.to_out(join_heads(turn.back().apply(out)))
        return answer


class GatedGelu(nn.Module):
    """`a * gelu(b)` from the halves a, b (arXiv 2002.05202)."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., 2 d) -> (..., d)."""
        value, gate = x.chunk(2, dim=-1)
        return value * functional.gelu(gate)


class FeedForward(nn.Module):
    """Widen by 4, gate, narrow.

    Args:
        dim: token width.
        dropout: on the gated values.
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(dim, 8 * dim), GatedGelu(), nn.Dropout(dropout), nn.Linear(4 * dim, dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        answer: Tensor = self.net(x)
        return answer


def normed_feed_forward(dim: int, dropout: float) -> nn.Sequential:
    """LayerNorm, then the feed-forward network."""
    return nn.Sequential(nn.LayerNorm(dim), FeedForward(dim, dropout))
