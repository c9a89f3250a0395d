"""Attention with rotary time, and the feed-forward network; parameters named as torch_brain's."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from decoders.poyo.rotary import Rotation


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """(..., N, n_heads * dim_head) -> (..., n_heads, N, dim_head)."""
    return x.view(*x.shape[:-1], n_heads, -1).transpose(-3, -2)


def join_heads(x: Tensor) -> Tensor:
    """(..., n_heads, N, dim_head) -> (..., N, n_heads * dim_head)."""
    return x.transpose(-3, -2).flatten(-2)


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    dropout: float,
    bias: Tensor | None = None,
) -> Tensor:
    """Scaled dot-product attention per head.

    Args:
        queries: (B, H, N_q, dim_head).
        keys: (B, H, N_k, dim_head).
        values: (B, H, N_k, dim_head).
        dropout: chance that a weight is dropped.
        bias: (B, N_k) added to a key's logits; None for none.

    Returns:
        (B, H, N_q, dim_head).
    """
    mask = None if bias is None else bias[:, None, None, :].to(queries.dtype)
    return functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask, dropout_p=dropout
    )


class CrossAttention(nn.Module):
    """Queries attend to a context.

    Args:
        dim: query and context width.
        n_heads: how many heads.
        dim_head: head width.
        dropout: chance that an attention weight is dropped in training.
        rotate_values: see `attend`.
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
        """(B, N_q, dim) queries and (B, N_k, 2 * width) folded context -> (B, N_q, dim)."""
        q_rotation, k_rotation = q_rotation.over_heads(), k_rotation.over_heads()
        queries = q_rotation.apply(split_heads(self.to_q(self.norm(query)), self.n_heads))
        context = split_heads(folded, 2 * self.n_heads)
        if self.rotate_values:
            keys, values = k_rotation.apply(context).chunk(2, dim=1)
        else:
            keys, values = context.chunk(2, dim=1)
            keys = k_rotation.apply(keys)
        dropout = self.dropout if self.training else 0.0
        out = attend(queries, keys, values, dropout=dropout, bias=bias)
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
        out = turn.back().apply(attend(*heads.chunk(3, dim=1), dropout=dropout))
        answer: Tensor = self.to_out(join_heads(out))
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
