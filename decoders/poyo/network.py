"""POYO: a whole window's spikes cross-attend into latents, which are queried at any time.

Parameters bear torch_brain's names, so that state dicts load in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from decoders.poyo.attention import CrossAttention, SelfAttention, normed_feed_forward
from decoders.poyo.config import PoyoConfig
from decoders.poyo.rotary import RotaryTime
from decoders.poyo.tokens import PoyoBatch
from decoders.poyo.vocabulary import Vocabulary

N_TOKEN_TYPES = 4


class Poyo(nn.Module):
    """The network.

    Args:
        config: its shape.
        units: words for all sessions' units, ordered by row.
        sessions: words for the sessions.
    """

    def __init__(self, config: PoyoConfig, units: Sequence[str], sessions: Sequence[str]) -> None:
        super().__init__()
        self.config = config
        dim, spread = config.dim, config.emb_init_scale
        self.unit_emb = Vocabulary(units, dim, spread)
        self.session_emb = Vocabulary(sessions, dim, spread)
        self.token_type_emb = nn.Embedding(N_TOKEN_TYPES, dim)
        self.latent_emb = nn.Embedding(config.n_latents_per_step, dim)
        nn.init.normal_(self.token_type_emb.weight, std=spread)
        nn.init.normal_(self.latent_emb.weight, std=spread)
        self.rotary_emb = RotaryTime(config.dim_head, config.t_min_s, config.t_max_s)
        self.dropout = nn.Dropout(config.lin_dropout)
        self.enc_atn = self._cross_attention(rotate_values=True)
        self.enc_ffn = normed_feed_forward(dim, config.ffn_dropout)
        self.proc_layers = nn.ModuleList(self._layer() for _ in range(config.depth))
        self.dec_atn = self._cross_attention(rotate_values=False)
        self.dec_ffn = normed_feed_forward(dim, config.ffn_dropout)
        self.readout = nn.Linear(dim, config.dim_out)

    def _cross_attention(self, *, rotate_values: bool) -> CrossAttention:
        c = self.config
        return CrossAttention(
            c.dim, c.cross_heads, c.dim_head, c.atn_dropout, rotate_values=rotate_values
        )

    def _layer(self) -> nn.Sequential:
        c = self.config
        attention = SelfAttention(c.dim, c.self_heads, c.dim_head, c.atn_dropout)
        return nn.Sequential(attention, normed_feed_forward(c.dim, c.ffn_dropout))

    def layers(self) -> Iterator[tuple[SelfAttention, nn.Module]]:
        """Self-attention and feed-forward network, layer by layer."""
        for layer in self.proc_layers:
            attention, feed_forward = layer.children()
            yield cast(SelfAttention, attention), feed_forward

    def latent_times_s(self) -> Tensor:
        """(n_steps,) float64, seconds since the window's start."""
        c = self.config
        steps = torch.arange(0, c.sequence_s, c.latent_step_s, dtype=torch.float64)
        return (steps + c.latent_step_s / 2).to(self.latent_emb.weight.device)

    def forward(self, batch: PoyoBatch) -> Tensor:
        """Decode windows.

        Args:
            batch: B windows, Q queries each.

        Returns:
            (B, Q, dim_out), normalised as in training.
        """
        return self.answer(batch, self.unit_emb.weight, self.session_emb.weight)

    def answer(self, batch: PoyoBatch, units: Tensor, sessions: Tensor) -> Tensor:
        """Decode windows with other embeddings than the network's own.

        Args:
            batch: B windows, Q queries each; rows index the two tables.
            units: (R, dim).
            sessions: (S, dim).

        Returns:
            (B, Q, dim_out), normalised as in training.
        """
        n_windows, c = len(batch.unit), self.config
        times_s = self.latent_times_s().repeat_interleave(c.n_latents_per_step)
        latent_rotation = self.rotary_emb(times_s.expand(n_windows, -1))
        latents = self.latent_emb.weight.repeat(len(times_s) // c.n_latents_per_step, 1)
        latents = latents.expand(n_windows, -1, -1)
        latents = latents + self.enc_atn(
            latents,
            self._folded(batch.unit, batch.kind, units),
            latent_rotation,
            self.rotary_emb(batch.t_s),
            torch.log(batch.count),
        )
        latents = latents + self.enc_ffn(latents)
        for attention, feed_forward in self.layers():
            latents = latents + self.dropout(attention(latents, latent_rotation))
            latents = latents + self.dropout(feed_forward(latents))
        queries = functional.embedding(batch.session, sessions).unsqueeze(1)
        queries = queries.expand(-1, batch.query_s.shape[1], -1)
        query_rotation = self.rotary_emb(batch.query_s)
        context = self.dec_atn.fold(latents)
        queries = queries + self.dec_atn(queries, context, query_rotation, latent_rotation)
        answer: Tensor = self.readout(queries + self.dec_ffn(queries))
        return answer

    def _folded(self, unit: Tensor, kind: Tensor, units: Tensor) -> Tensor:
        """Keys and values for tokens (B, M) -> (B, M, 2 * width), each distinct one made once."""
        distinct, which = torch.unique(unit * N_TOKEN_TYPES + kind, return_inverse=True)
        unit, kind = distinct // N_TOKEN_TYPES, distinct % N_TOKEN_TYPES
        embedded = functional.embedding(unit, units, padding_idx=0) + self.token_type_emb(kind)
        return functional.embedding(which, self.enc_atn.fold(embedded))
