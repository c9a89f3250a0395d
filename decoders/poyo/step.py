"""POYO as the loop runs it: one whole window a step, the units folded into tables.

A token's keys and values depend on its unit and kind alone, but for the rotation by its time: they
are folded into one row per unit. Time comes as float32, but tokens stand at whole microseconds:
their rotation is taken exactly from two small tables (of 1024 microseconds, and within them), so
that the graph needs neither float64 nor a cosine of 60,000 rad.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from decoders.poyo.attention import CrossAttention, SelfAttention, join_heads
from decoders.poyo.config import PoyoConfig
from decoders.poyo.network import Poyo
from decoders.poyo.tokens import END, MICROSECOND_S, SPIKE, START
from decoders.streaming import OutputSpec

FINE_US = 1024
LONGEST_S = 4.0
"""Longer windows have token times that float32 does not hold to the microsecond."""
ROW_KINDS = (SPIKE, START, END)


def to_halves(dim_head: int) -> Tensor:
    """Order of a head's dimensions in which turning pairs lie in two halves, the still ones last.

    Returns:
        (dim_head,) int64.
    """
    n_turning = dim_head // 2
    first, second = torch.arange(0, n_turning, 2), torch.arange(1, n_turning, 2)
    return torch.cat([first, second, torch.arange(n_turning, dim_head)])


def of_all_heads(order: Tensor, n_heads: int) -> Tensor:
    """The same order in each of the heads that lie side by side: (n_heads * dim_head,)."""
    return (torch.arange(n_heads).unsqueeze(1) * len(order) + order).flatten()


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate (..., dim_head) in the order of `to_halves` by (..., n_pairs) angles."""
    n = cos.shape[-1]
    first, second = x[..., :n], x[..., n : 2 * n]
    halves = first * cos - second * sin, second * cos + first * sin
    return torch.cat([*halves, x[..., 2 * n :]], dim=-1)


def attended(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax attention of (H, N_q, d) to (H, N_k, d); `bias` (N_k,) is added to the logits."""
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return torch.softmax(logits if bias is None else logits + bias, dim=-1) @ v


class PoyoStep(nn.Module):
    """One window of one session: what is exported, and what the torch backend runs.

    Args:
        config: shape of the network.
        outputs: what its readout is split into, in this order.
        n_units: rows of the table.

    Raises:
        ValueError: the window is too long, or the outputs are not as many as the readout's.
    """

    order: Tensor
    coarse: Tensor
    fine: Tensor
    latent_turn: Tensor
    offset: Tensor
    scale: Tensor

    def __init__(self, config: PoyoConfig, outputs: Sequence[OutputSpec], n_units: int) -> None:
        super().__init__()
        if config.sequence_s > LONGEST_S:
            raise ValueError(f"a window of {config.sequence_s:g} s; at most {LONGEST_S:g} s")
        if sum(output.dims for output in outputs) != config.dim_out:
            raise ValueError(f"the outputs have not {config.dim_out} dimensions together")
        self.config, self.outputs = config, tuple(outputs)
        self.decoder = Poyo(config, [str(row) for row in range(n_units)], ["session"])
        self.sequence_us = round(config.sequence_s / MICROSECOND_S)
        self.register_buffer("order", to_halves(config.dim_head), persistent=False)
        width = 2 * config.n_rotated_pairs
        n_coarse = 2 * self.sequence_us // FINE_US + 1
        self.register_buffer("coarse", torch.zeros(n_coarse, width))
        self.register_buffer("fine", torch.zeros(FINE_US, width))
        n_latents = len(self.decoder.latent_times_s()) * config.n_latents_per_step
        self.register_buffer("latent_turn", torch.zeros(n_latents, width))
        self.register_buffer("offset", torch.zeros(config.dim_out))
        self.register_buffer("scale", torch.ones(config.dim_out))

    @property
    def table_width(self) -> int:
        """Columns of a row: keys and values of the unit's spikes, of its START and of its END."""
        return len(ROW_KINDS) * 2 * self.config.cross_width

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
        """Rows of the table.

        Args:
            embedding: (R, dim) of the units.

        Returns:
            (R, table_width).
        """
        c, attention = self.config, self.decoder.enc_atn
        kinds = self.decoder.token_type_emb(torch.tensor(ROW_KINDS))
        folded = attention.fold(embedding.unsqueeze(1) + kinds)
        rows = folded.view(len(embedding), len(ROW_KINDS), -1, c.dim_head)[..., self.order]
        end = self._rotation(torch.tensor(c.sequence_s, dtype=torch.float64))
        cos, sin = end.to(rows.dtype).chunk(2, dim=-1)
        ends = turned(rows[:, END : END + 1], cos, sin)
        return torch.cat([rows[:, :END], ends], dim=1).flatten(1)

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
            unit: (N,) int32 rows of the table.
            t_rel: (N,) seconds since the start of the window.
            count: (N,) spikes per token, 0 where padded.
            table: (R, table_width) folded rows.
            session: (dim,).
            lead_s: (1,) seconds from the window's end to the time that is decoded.

        Returns:
            One (dims,) tensor per output, physical units.
        """
        latents = self._encoded(unit, t_rel, count, table)
        for layer in self.decoder.proc_layers:
            latents = latents + self._mixed(layer.get_submodule("0"), latents)
            latents = latents + layer.get_submodule("1")(latents)
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
        """Latents (L, dim) from the tokens of a window."""
        c, attention = self.config, self.decoder.enc_atn
        n_kinds, width = len(ROW_KINDS), 2 * c.cross_width
        spikes = torch.index_select(table.reshape(-1, width), 0, unit * n_kinds).view(
            -1, 2 * c.cross_heads, c.dim_head
        )
        cos, sin = self._turn_at(torch.round(t_rel / MICROSECOND_S))
        spikes = turned(spikes, cos.unsqueeze(1), sin.unsqueeze(1))
        ends = table.view(-1, n_kinds, width)[:, 1:].reshape(-1, 2 * c.cross_heads, c.dim_head)
        k, v = torch.cat([ends, spikes]).transpose(0, 1).chunk(2)
        bias = torch.cat([torch.zeros_like(ends[:, 0, 0]), torch.log(count)])
        start = self._latents_at_start()
        latents = start + self._carried(attention, attended(self._questions(start), k, v, bias))
        encoded: Tensor = latents + self.decoder.enc_ffn(latents)
        return encoded

    def _latents_at_start(self) -> Tensor:
        weight = self.decoder.latent_emb.weight
        return weight.repeat(len(self.latent_turn) // len(weight), 1)

    def _questions(self, latents: Tensor) -> Tensor:
        """Queries of the encoder (H, L, dim_head): they depend on no input."""
        c, attention = self.config, self.decoder.enc_atn
        order = of_all_heads(self.order, c.cross_heads)
        q = functional.linear(attention.norm(latents), attention.to_q.weight.index_select(0, order))
        cos, sin = self.latent_turn.chunk(2, dim=-1)
        return turned(q.view(len(q), c.cross_heads, c.dim_head).transpose(0, 1), cos, sin)

    def _carried(self, attention: CrossAttention | SelfAttention, out: Tensor) -> Tensor:
        """Carry values (H, L, dim_head) back from the latents' times, join the heads, project."""
        cos, sin = self.latent_turn.chunk(2, dim=-1)
        order = of_all_heads(self.order, attention.n_heads)
        joined = join_heads(turned(out, cos, -sin))
        to_out = attention.to_out
        return functional.linear(joined, to_out.weight.index_select(1, order), to_out.bias)

    def _mixed(self, attention: nn.Module, latents: Tensor) -> Tensor:
        """What a self-attention adds to the latents (L, dim)."""
        if not isinstance(attention, SelfAttention):
            raise TypeError(f"{type(attention).__name__} is no self-attention")
        n, cos_sin = attention.n_heads, self.latent_turn
        order = of_all_heads(self.order, 3 * n)
        qkv = functional.linear(
            attention.norm(latents), attention.to_qkv.weight.index_select(0, order)
        )
        heads = qkv.view(len(latents), 3 * n, self.config.dim_head).transpose(0, 1)
        q, k, v = turned(heads, *cos_sin.chunk(2, dim=-1)).chunk(3)
        return self._carried(attention, attended(q, k, v))

    def _read(self, latents: Tensor, session: Tensor, lead_s: Tensor) -> Tensor:
        """(dim_out,) at `lead_s` after the window's end, normalised."""
        c, attention = self.config, self.decoder.dec_atn
        order = of_all_heads(self.order, c.cross_heads)
        k, v = attention.fold(latents).chunk(2, dim=-1)
        k = k.index_select(1, order).view(-1, c.cross_heads, c.dim_head).transpose(0, 1)
        v = v.view(-1, c.cross_heads, c.dim_head).transpose(0, 1)
        query = session.unsqueeze(0)
        q = functional.linear(attention.norm(query), attention.to_q.weight.index_select(0, order))
        cos, sin = self._turn_at(torch.round(lead_s / MICROSECOND_S) + self.sequence_us)
        q = turned(q.view(1, c.cross_heads, c.dim_head).transpose(0, 1), cos, sin)
        k = turned(k, *self.latent_turn.chunk(2, dim=-1))
        query = query + attention.to_out(join_heads(attended(q, k, v)))
        answer: Tensor = self.decoder.readout(query + self.decoder.dec_ffn(query))
        return answer[0]


def step_config(config: PoyoConfig, outputs: Sequence[OutputSpec], n_units: int) -> dict[str, Any]:
    """What `step_from_config` needs, as plain JSON types."""
    told = [{"name": output.name, "dims": output.dims} for output in outputs]
    return {"network": config.to_dict(), "outputs": told, "n_units": n_units}


def step_from_config(config: Mapping[str, Any]) -> PoyoStep:
    """The inverse of `step_config`; its weights are still to be loaded."""
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
    """The step of one session.

    Args:
        network: trained on it.
        session: its word in the vocabulary.
        units: words of its units, in the order of the table's rows.
        outputs: what is read out.
        offset: (dim_out,) physical value of a normalised 0.
        scale: (dim_out,) physical size of a normalised 1.

    Raises:
        VocabularyError: a word is unknown.
        ValueError: the outputs are not those of the readout.
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
