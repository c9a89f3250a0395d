"""POYO as the loop runs it: one whole window a step, the units folded into a table.

But for the rotation by its time, a token's keys and values depend on its unit and kind alone. They
are folded into one row per unit. Times come as float32 and mean whole microseconds. So the rotation
is an exact product: one factor for the block of 1024 microseconds, one for the time inside it. The
graph needs neither float64 nor the cosine of 60,000 rad.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from decoders.poyo.attention import (
    CrossAttention,
    RotaryPairs,
    SelfAttention,
    join_heads,
    rotary_order,
)
from decoders.poyo.config import PoyoConfig
from decoders.poyo.network import Poyo
from decoders.poyo.tokens import END, MICROSECOND_S, SPIKE, START
from decoders.streaming.shape import OutputSpec

FINE_US = 1024
LONGEST_S = 4.0
"""Longer windows have token times that float32 does not hold to the microsecond."""
ROW_KINDS = (SPIKE, START, END)
PADDING_LOGIT = -1e4
"""Weighs nothing, and is finite in every precision."""


class PoyoStep(nn.Module):
    """One session's window, as it is exported and as the torch backend runs it.

    Args:
        config: network shape.
        outputs: what its readout is split into, in this order.
        n_units: table rows.

    Raises:
        ValueError: the window is too long, or the outputs are not as many as the readout's.
    """

    def __init__(self, config: PoyoConfig, outputs: Sequence[OutputSpec], n_units: int) -> None:
        super().__init__()
        n_dims = sum(output.dims for output in outputs)
        if config.sequence_s > LONGEST_S:
            raise ValueError(f"its window is {config.sequence_s:g} s; at most {LONGEST_S:g} s run")
        if n_dims != config.dim_out:
            raise ValueError(f"it reads out {config.dim_out} numbers, the outputs have {n_dims}")
        self.config, self.outputs = config, tuple(outputs)
        self.decoder = Poyo(config, [str(row) for row in range(n_units)], ["session"])
        self.sequence_us = round(config.sequence_s / MICROSECOND_S)
        self.order = nn.Buffer(rotary_order(config.dim_head), persistent=False)
        width = 2 * config.n_rotated_pairs
        n_coarse = 2 * self.sequence_us // FINE_US + 1
        self.coarse = nn.Buffer(torch.zeros(n_coarse, width))
        self.fine = nn.Buffer(torch.zeros(FINE_US, width))
        n_latents = len(self.decoder.latent_times_s()) * config.n_latents_per_step
        self.latent_turn = nn.Buffer(torch.zeros(n_latents, width))
        self.offset = nn.Buffer(torch.zeros(config.dim_out))
        self.scale = nn.Buffer(torch.ones(config.dim_out))

    @property
    def table_width(self) -> int:
        """Columns per row: keys and values for the unit's spikes, START and END."""
        return len(ROW_KINDS) * 2 * self.config.cross_heads * self.config.dim_head

    @torch.no_grad()
    def tabulate(self) -> None:
        """Set the rotations that belong to the decoder's frequencies."""
        us = torch.arange(len(self.coarse), dtype=torch.float64) * FINE_US
        self.coarse.copy_(self._rotation(us * MICROSECOND_S))
        us = torch.arange(FINE_US, dtype=torch.float64)
        self.fine.copy_(self._rotation(us * MICROSECOND_S))
        times_s = self.decoder.latent_times_s()
        times_s = times_s.repeat_interleave(self.config.n_latents_per_step)
        self.latent_turn.copy_(self._rotation(times_s))

    def _rotation(self, t_s: Tensor) -> Tensor:
        """(N,) float64 seconds -> (N, 2 n_pairs): cosines, then sines."""
        turn = self.decoder.rotary_emb(t_s)
        n = self.config.n_rotated_pairs
        return torch.cat([turn.cos[..., :n], turn.sin[..., :n]], dim=-1)

    def fold(self, embedding: Tensor) -> Tensor:
        """Make table rows.

        Args:
            embedding: (R, dim), the units'.

        Returns:
            (R, table_width).
        """
        kinds = self.decoder.token_type_emb(torch.tensor(ROW_KINDS))
        folded = self.decoder.enc_atn.fold(embedding.unsqueeze(1) + kinds)
        rows = folded.view(len(embedding), -1, self.config.dim_head)
        return rows.index_select(2, self.order).flatten(1)

    def tables(self) -> dict[str, Tensor]:
        """The graph inputs that belong to the session: `table` (R, width), `session` (dim,)."""
        table = self.fold(self.decoder.unit_emb.weight[1:])
        return {"table": table, "session": self.decoder.session_emb.weight[1]}

    def forward(
        self,
        unit: Tensor,
        t_rel: Tensor,
        count: Tensor,
        table: Tensor,
        session: Tensor,
        lead_s: Tensor,
    ) -> tuple[Tensor, ...]:
        """Decode one window.

        Args:
            unit: (N,) int32 table rows.
            t_rel: (N,) seconds since the window's start.
            count: (N,) spikes per token, 0 where padded.
            table: (R, table_width) folded rows.
            session: (dim,).
            lead_s: (1,) seconds from the window's end to the time that is decoded.

        Returns:
            One (dims,) tensor per output, physical units.
        """
        latents = self._encoded(unit, t_rel, count, table)
        for attention, feed_forward in self.decoder.layers():
            latents = latents + self._mixed(attention, latents)
            latents = latents + feed_forward(latents)
        answer = self._read(latents, session, lead_s) * self.scale + self.offset
        return torch.split(answer, [output.dims for output in self.outputs])

    def _turn_at(self, t_us: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, each (N, n_pairs), at (N,) whole microseconds."""
        t_us = t_us.clamp(0, 2 * self.sequence_us)
        block = torch.floor(t_us / FINE_US)
        within = t_us - block * FINE_US
        cos_a, sin_a = torch.index_select(self.coarse, 0, block.int()).chunk(2, dim=-1)
        cos_b, sin_b = torch.index_select(self.fine, 0, within.int()).chunk(2, dim=-1)
        return cos_a * cos_b - sin_a * sin_b, sin_a * cos_b + cos_a * sin_b

    def _encoded(self, unit: Tensor, t_rel: Tensor, count: Tensor, table: Tensor) -> Tensor:
        """Latents (L, dim) from a window's tokens: each unit's START and END, and spikes."""
        n_kinds, n_rows = len(ROW_KINDS), table.shape[0]
        rows = torch.arange(n_rows, dtype=torch.int32) * n_kinds
        row = torch.cat([rows + START, rows + END, unit * n_kinds + SPIKE])
        zero = torch.zeros(n_rows)
        t_us = torch.cat([zero, zero + self.sequence_us, torch.round(t_rel / MICROSECOND_S)])
        weight = torch.cat([zero, zero, torch.log(count).clamp(min=PADDING_LOGIT)])
        cos, sin = self._turn_at(t_us)
        attention, n_heads = self.decoder.enc_atn, self.config.cross_heads
        k = self._gathered(table, row, 0).by(cos, sin)
        v = self._gathered(table, row, n_heads).by(cos, sin)
        keys = k.joined(weight.unsqueeze(-1).expand(n_heads, -1, 1))
        start = self._latents_at_start()
        q = self._turned(self._projected(attention.norm(start), attention.to_q.weight))
        q = q * self.config.dim_head**-0.5
        queries = torch.cat([q, torch.ones_like(q[..., :1])], dim=-1)
        share = torch.softmax(queries @ keys.transpose(1, 2), dim=-1)
        latents = start + self._carried(attention, share, v)
        encoded: Tensor = latents + self.decoder.enc_ffn(latents)
        return encoded

    def _gathered(self, table: Tensor, row: Tensor, first_head: int) -> RotaryPairs:
        """Keys or values for tokens from (R, kinds * 2 * heads * dim_head) rows."""
        c, n = self.config, self.config.n_rotated_pairs
        n_heads = 2 * c.cross_heads
        heads = torch.arange(first_head, first_head + c.cross_heads, dtype=torch.int32)
        index = row * n_heads + heads.unsqueeze(1)
        pairs = table.reshape(-1, n)
        return RotaryPairs(
            functional.embedding(index * 4, pairs),
            functional.embedding(index * 4 + 1, pairs),
            functional.embedding(index * 2 + 1, table.reshape(-1, 2 * n)),
        )

    def _projected(self, x: Tensor, weight: Tensor) -> RotaryPairs:
        """(N, dim) through (H * dim_head, dim)."""
        n = self.config.n_rotated_pairs
        heads = weight.view(-1, self.config.dim_head, weight.shape[1]).transpose(1, 2)
        heads = heads.index_select(2, self.order)
        return RotaryPairs(x @ heads[..., :n], x @ heads[..., n : 2 * n], x @ heads[..., 2 * n :])

    def _turned(self, x: RotaryPairs) -> Tensor:
        """(H, L, dim_head) at the latents' times."""
        return x.by(*self.latent_turn.chunk(2, dim=-1)).joined()

    def _latents_at_start(self) -> Tensor:
        weight = self.decoder.latent_emb.weight
        return weight.repeat(len(self.latent_turn) // len(weight), 1)

    def _carried(
        self, attention: CrossAttention | SelfAttention, share: Tensor, v: RotaryPairs
    ) -> Tensor:
        """Values gathered by shares (H, L, N), carried to the latents' times, projected."""
        cos, sin = self.latent_turn.chunk(2, dim=-1)
        out = RotaryPairs(share @ v.first, share @ v.second, share @ v.still).by(cos, -sin)
        to_out = attention.to_out
        weight = to_out.weight.view(self.config.dim, attention.n_heads, -1)
        weight = weight.index_select(2, self.order).flatten(1)
        return functional.linear(join_heads(out.joined()), weight, to_out.bias)

    def _mixed(self, attention: SelfAttention, latents: Tensor) -> Tensor:
        """Self-attention's addition to the latents (L, dim)."""
        x = attention.norm(latents)
        cos, sin = self.latent_turn.chunk(2, dim=-1)
        q, k, v = (self._projected(x, w).by(cos, sin) for w in attention.to_qkv.weight.chunk(3))
        logits = (q.joined() * self.config.dim_head**-0.5) @ k.joined().transpose(1, 2)
        return self._carried(attention, torch.softmax(logits, dim=-1), v)

    def _read(self, latents: Tensor, session: Tensor, lead_s: Tensor) -> Tensor:
        """(dim_out,) at `lead_s` after the window's end, normalised."""
        c, attention = self.config, self.decoder.dec_atn
        query, context = session.unsqueeze(0), attention.norm_context(latents)
        to_k, to_v = attention.to_kv.weight.chunk(2)
        k = self._turned(self._projected(context, to_k))
        v = (context @ to_v.t()).view(-1, c.cross_heads, c.dim_head).transpose(0, 1)
        turn = self._turn_at(torch.round(lead_s / MICROSECOND_S) + self.sequence_us)
        q = self._projected(attention.norm(query), attention.to_q.weight).by(*turn).joined()
        share = torch.softmax((q * c.dim_head**-0.5) @ k.transpose(1, 2), dim=-1)
        query = query + attention.to_out(join_heads(share @ v))
        answer: Tensor = self.decoder.readout(query + self.decoder.dec_ffn(query))
        return answer[0]


def step_config(config: PoyoConfig, outputs: Sequence[OutputSpec], n_units: int) -> dict[str, Any]:
    """Arguments for `step_from_config`, as plain JSON types."""
    told = [{"name": output.name, "dims": output.dims} for output in outputs]
    return {"network": config.to_dict(), "outputs": told, "n_units": n_units}


def step_from_config(config: Mapping[str, Any]) -> PoyoStep:
    """Make the step that `step_config` describes; its weights are still to be loaded."""
    outputs = [OutputSpec(**output) for output in config["outputs"]]
    return PoyoStep(PoyoConfig(**config["network"]), outputs, config["n_units"])


@torch.no_grad()
def step_of_session(
    network: Poyo,
    session: str,
    units: Sequence[str],
    outputs: Sequence[OutputSpec],
    offset: Sequence[float],
    scale: Sequence[float],
) -> PoyoStep:
    """Make one session's step.

    Args:
        network: trained on it.
        session: its word in the vocabulary.
        units: words for its units, ordered as the table's rows.
        outputs: what is read out.
        offset: (dim_out,) physical value for a normalised 0.
        scale: (dim_out,) physical size for a normalised 1.

    Raises:
        VocabularyError: a word is unknown.
        ValueError: the outputs are not the readout's.
    """
    step = PoyoStep(network.config, outputs, len(units))
    rows = torch.cat([torch.zeros(1, dtype=torch.int64), network.unit_emb.index(units)])
    session_rows = torch.cat([rows[:1], network.session_emb.index([session])])
    weights = network.state_dict()
    weights["unit_emb.weight"] = network.unit_emb.weight[rows]
    weights["session_emb.weight"] = network.session_emb.weight[session_rows]
    del weights["unit_emb.vocab"], weights["session_emb.vocab"]
    step.decoder.load_state_dict(weights)
    step.tabulate()
    step.offset.copy_(torch.tensor(offset))
    step.scale.copy_(torch.tensor(scale))
    return step.eval()
