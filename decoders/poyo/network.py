"""POYO: a whole window's spikes cross-attend into latents, which are queried at any time.

Parameters bear torch_brain's names, so that state dicts load in both.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from decoders.errors import DecodersError
from decoders.poyo.attention import CrossAttention, RotaryTime, SelfAttention, normed_feed_forward
from decoders.poyo.config import PoyoConfig
from decoders.poyo.tokens import PoyoBatch

N_TOKEN_TYPES = 4
PADDING = "NA"
"""Word of row 0; words are stored with the weights, as in torch_brain."""


class VocabularyError(DecodersError):
    """A word is not in a network's vocabulary, or stands there twice."""


class Vocabulary(nn.Module):
    """One embedding per word; row 0 belongs to padding, is zero and stays zero.

    Args:
        words: ordered by row, from row 1 on.
        dim: embedding width.
        spread: the random start's standard deviation.

    Raises:
        VocabularyError: a word comes twice.
    """

    def __init__(self, words: Sequence[str], dim: int, spread: float) -> None:
        super().__init__()
        self.vocab = OrderedDict((word, i) for i, word in enumerate((PADDING, *words)))
        if len(self.vocab) != len(words) + 1:
            raise VocabularyError(f"of {len(words)} words some stand twice, or one is {PADDING!r}")
        weight = torch.randn(len(self.vocab), dim) * spread
        weight[0] = 0.0
        self.weight = nn.Parameter(weight)

    @property
    def words(self) -> list[str]:
        """All words but the padding, ordered by row."""
        return list(self.vocab)[1:]

    def forward(self, index: Tensor) -> Tensor:
        """(...,) int64 -> (..., dim)."""
        return functional.embedding(index, self.weight, padding_idx=0)

    def index(self, words: Sequence[str]) -> Tensor:
        """Rows for the words, (n,) int64.

        Raises:
            VocabularyError: a word is unknown; the text names some that are known.
        """
        unknown = [word for word in words if word not in self.vocab]
        if unknown:
            raise VocabularyError(
                f"the vocabulary has no {', '.join(unknown[:3])}; "
                f"it has {len(self.words)} words: {', '.join(self.words[:3])} ..."
            )
        return torch.tensor([self.vocab[word] for word in words], dtype=torch.int64)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "vocab"] = self.vocab.copy()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *further: Any) -> None:
        """Words that come with the weights must be the module's own, each at its row."""
        vocab = state_dict.pop(prefix + "vocab", self.vocab)
        if vocab != self.vocab:
            raise VocabularyError(f"{prefix}vocab holds other words, or in another order")
        super()._load_from_state_dict(state_dict, prefix, *further)


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
