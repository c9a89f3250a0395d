"""The streaming spike transformer: one short bin in, one estimate out, memory carried between.

The shape starts from POSSM (arXiv 2506.05320): spikes of a bin cross-attend into latents, a GRU
carries the past, a query with the session's vector reads out. Three things differ:

- A spike's contribution depends only on its unit and its time inside the bin. So LayerNorm, keys,
  values and the latents' queries fold into one row of a table per unit.
- Logits are bounded when they are folded. So a latent is a ratio of plain sums over spikes.
- A sink in the denominator keeps the rate visible and gives the empty bin a value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from decoders.streaming.lead import LEAD_SCALE_S
from decoders.streaming.shape import N_MOMENTS, StreamingConfig


class Geglu(nn.Module):
    """`W2 (a * gelu(b))` with `a, b = W1 x` (arXiv 2002.05202)."""

    def __init__(self, d_in: int, d_hidden: int, d_out: int) -> None:
        super().__init__()
        self.widen = nn.Linear(d_in, 2 * d_hidden)
        self.narrow = nn.Linear(d_hidden, d_out)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_in) -> (..., d_out)."""
        value, gate = self.widen(x).chunk(2, dim=-1)
        narrowed: Tensor = self.narrow(value * functional.gelu(gate))
        return narrowed


@dataclass(frozen=True, slots=True)
class LaneTokens:
    """Tokens for lanes that run side by side over many bins.

    Attributes:
        lane: (N,) int64.
        bin: (N,) int64, within the lane.
        unit: (N,) int64, within the lane's session.
        t_rel: (N,) float32 seconds since the bin's start.
        count: (N,) float32 spikes that the token stands for.
        shape: counts for lanes and bins.
    """

    lane: Tensor
    bin: Tensor
    unit: Tensor
    t_rel: Tensor
    count: Tensor
    shape: tuple[int, int]


class SpikeEncoder(nn.Module):
    """Fold unit embeddings into table rows, and pool a bin's spikes into latents."""

    def __init__(self, config: StreamingConfig) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(config.d_unit)
        self.to_value = nn.Linear(config.d_unit, config.d_value)
        self.to_logit = nn.Linear(config.d_unit, config.n_latents * config.n_basis)
        self.log_sink = nn.Parameter(torch.full((config.n_latents,), math.log(config.sink)))
        turns = torch.arange(1, config.n_frequencies + 1) * (math.pi / config.bin_s)
        self.frequencies = nn.Buffer(torch.cat([torch.zeros(1), turns, turns]))
        caps = [config.logit_cap] + [config.time_cap] * (config.n_basis - 1)
        self.caps = nn.Buffer(torch.tensor(caps).repeat_interleave(config.n_latents))
        every_basis, every_latent = torch.eye(config.n_basis), torch.eye(config.n_latents)
        spread = every_basis.repeat_interleave(config.n_latents, dim=1)
        self.spread = nn.Buffer(spread, persistent=False)
        self.gather = nn.Buffer(every_latent.repeat(config.n_basis, 1), persistent=False)
        quarter = torch.full((config.n_frequencies,), math.pi / 2)
        self.shifts = nn.Buffer(torch.cat([torch.zeros(1 + config.n_frequencies), -quarter]))

    def fold(self, embedding: Tensor) -> Tensor:
        """Fold embeddings into table rows.

        Args:
            embedding: (..., d_unit).

        Returns:
            (..., table_width): value, 1, and per basis function one coefficient per latent.
        """
        normed = self.norm(embedding)
        coefficients = self.caps * torch.tanh(self.to_logit(normed) / self.caps)
        ones = torch.ones_like(embedding[..., :1])
        return torch.cat([self.to_value(normed), ones, coefficients], dim=-1)

    def centre(self, rows: Tensor, spikes_per_bin: Tensor) -> Tensor:
        """Latents for a bin in which every unit fires its mean, evenly over the bin.

        The decode depends on a bin's latents minus this centre. So a lost unit, or a session whose
        units fire more, moves the centre and not the decode.

        Args:
            rows: (..., U, table_width), one session's units.
            spikes_per_bin: (..., U) mean spikes.

        Returns:
            (..., n_pooled).
        """
        config = self.config
        coefficients = rows[..., config.d_value + 1 :]
        shape = (*coefficients.shape[:-1], config.n_basis, config.n_latents)
        shaped = coefficients.view(shape)
        # The mean over the bin has no closed form with rotary time.
        n_moments = N_MOMENTS if config.n_frequencies else 1
        moments = (torch.arange(n_moments, device=rows.device) + 0.5) * (config.bin_s / n_moments)
        basis = torch.cos(moments.unsqueeze(-1) * self.frequencies + self.shifts)
        mean_weight = torch.exp(torch.einsum("...kp,mk->...mp", shaped, basis)).mean(dim=-2)
        weights = (mean_weight * spikes_per_bin.unsqueeze(-1)).transpose(-1, -2)
        return self.pool(weights @ rows[..., : config.d_value + 1])

    def weights(self, coefficients: Tensor, t_rel: Tensor, count: Tensor) -> Tensor:
        """Weight for each token in each latent.

        Args:
            coefficients: (N, n_basis * n_latents), last columns in the tokens' rows.
            t_rel: (N,) seconds since the bin's start.
            count: (N,) spikes that the token stands for; 0 is padding.

        Returns:
            (N, n_latents).
        """
        if self.config.n_frequencies == 0:
            return torch.exp(coefficients) * count.unsqueeze(-1)
        turns = functional.linear(t_rel.unsqueeze(-1), self.frequencies.unsqueeze(-1), self.shifts)
        # Multiplied by ones and zeros, which is faster than by broadcast and sum.
        logit = (coefficients * (torch.cos(turns) @ self.spread)) @ self.gather
        return torch.exp(logit) * count.unsqueeze(-1)

    def sums(self, rows: Tensor, tokens: LaneTokens) -> Tensor:
        """Sum each bin's tokens, differentiable in the rows.

        Args:
            rows: (B, U, table_width) per lane, or (U, table_width) for all lanes.
            tokens: B lanes, T bins each.

        Returns:
            (B, T, n_latents, d_value + 1) as `pool` takes them.
        """
        config, n_units = self.config, rows.shape[-2]
        n_lanes, n_bins = tokens.shape
        values, coefficients = rows[..., : config.d_value + 1], rows[..., config.d_value + 1 :]
        cell = tokens.lane * n_bins + tokens.bin
        if config.n_frequencies == 0:
            dense = torch.zeros(n_lanes * n_bins * n_units, device=rows.device)
            dense = dense.index_add(0, cell * n_units + tokens.unit, tokens.count)
            # Without time in the bin, weights belong to units: one product serves all bins.
            mixed = (torch.exp(coefficients).unsqueeze(-1) * values.unsqueeze(-2)).flatten(-2)
            sums = dense.view(n_lanes, n_bins, n_units) @ mixed
            return sums.view(n_lanes, n_bins, config.n_latents, -1)
        at = tokens.unit if rows.ndim == 2 else (tokens.lane, tokens.unit)
        weights = self.weights(coefficients[at], tokens.t_rel, tokens.count)
        latent = torch.arange(config.n_latents, device=rows.device) * n_units
        slot = (cell * config.n_latents * n_units + tokens.unit).unsqueeze(-1) + latent
        dense = torch.zeros(n_lanes * n_bins * config.n_latents * n_units, device=rows.device)
        dense = dense.index_add(0, slot.flatten(), weights.flatten())
        sums = dense.view(n_lanes, -1, n_units) @ values
        return sums.view(n_lanes, n_bins, config.n_latents, -1)

    def pool(self, sums: Tensor) -> Tensor:
        """Turn the sums over a bin's tokens into latents.

        Args:
            sums: (..., n_latents, d_value + 1): summed weight x value, and summed weight.

        Returns:
            (..., n_pooled).
        """
        mass = sums[..., -1:] + torch.exp(self.log_sink).unsqueeze(-1)
        return (sums / mass).flatten(-2)


class StreamingDecoder(nn.Module):
    """Whole network: `forward` runs many lanes over many bins, `step.StepModule` one bin.

    Args:
        config: the shape.
    """

    def __init__(self, config: StreamingConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = SpikeEncoder(config)
        self.pooled_gain = nn.Buffer(torch.ones(config.n_pooled))
        self.mix = nn.Linear(config.n_pooled, config.d_model)
        self.mix_norm = nn.LayerNorm(config.d_model)
        self.mix_geglu = Geglu(config.d_model, config.d_model, config.d_model)
        self.gru = nn.GRU(config.d_model, config.d_memory, batch_first=True)
        self.memory_norm = nn.LayerNorm(config.d_memory)
        self.query = nn.Linear(config.d_memory, config.d_readout)
        self.lead_widen = nn.Linear(1, 32)
        self.lead_narrow = nn.Linear(32, config.d_readout)
        self.readout_geglu = Geglu(config.d_readout, config.d_readout, config.d_readout)
        self.readout = nn.Linear(config.d_readout, config.n_dims)
        self.offset = nn.Buffer(torch.zeros(config.n_dims))
        self.scale = nn.Buffer(torch.ones(config.n_dims))

    @torch.no_grad()
    def standardise(self, sums: Tensor, centre: Tensor) -> None:
        """Fix the latents' gain so that they vary by 1 about their centre in these bins.

        A latent averages over many spikes. Without the gain its changes from bin to bin are a
        hundredth of its mean, and training hardly sees them.
        """
        away = (self.encoder.pool(sums) - centre).flatten(0, -2)
        self.pooled_gain.copy_(1.0 / away.square().mean(dim=0).sqrt().clamp(min=1e-4))

    def forward(
        self,
        sums: Tensor,
        centre: Tensor,
        session: Tensor,
        lead_s: Tensor,
        memory: Tensor | None = None,
        dropout: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode many bins on many lanes, for training and adaptation.

        Args:
            sums: (B, T, n_latents, d_value + 1) from `SpikeEncoder.sums`.
            centre: (B, n_pooled), each lane's session.
            session: (B, d_readout).
            lead_s: (B,) seconds.
            memory: (B, d_memory) before the first bin; zeros if None.
            dropout: applied before and after the GRU; None when not training.

        Returns:
            (B, T, n_dims) normalised outputs, and (B, d_memory) the memory after the last bin.
        """
        x = self.mixed(sums, centre.unsqueeze(1))
        x = x if dropout is None else dropout(x)
        path, last = self.gru(x, None if memory is None else memory.unsqueeze(0))
        path = path if dropout is None else dropout(path)
        return self.read(path, session.unsqueeze(1), lead_s[:, None, None]), last.squeeze(0)

    def mixed(self, sums: Tensor, centre: Tensor) -> Tensor:
        """Input for the GRU.

        Args:
            sums: (..., n_latents, d_value + 1) over a bin's tokens.
            centre: (..., n_pooled), the session's, broadcast against the latents.

        Returns:
            (..., d_model).
        """
        return self.mixed_away(self.encoder.pool(sums) - centre)

    def mixed_away(self, away: Tensor) -> Tensor:
        """Input for the GRU from (..., n_pooled) latents without their centre."""
        x = functional.linear(away, self.mix.weight * self.pooled_gain, self.mix.bias)
        mixed: Tensor = x + self.mix_geglu(self.mix_norm(x))
        return mixed

    def read(self, memory: Tensor, session: Tensor, lead_s: Tensor) -> Tensor:
        """Read out normalised outputs.

        Args:
            memory: (..., d_memory).
            session: (..., d_readout), broadcast against memory.
            lead_s: (..., 1) seconds, broadcast against memory.

        Returns:
            (..., n_dims); for classes, logits.
        """
        answer: Tensor = self.readout(self._answering(memory, session, lead_s))
        return answer

    def read_physical(self, memory: Tensor, session: Tensor, lead_s: Tensor) -> Tensor:
        """Read out in physical units; see `read` for the arguments."""
        weight = self.readout.weight * self.scale.unsqueeze(-1)
        bias = self.readout.bias * self.scale + self.offset
        return functional.linear(self._answering(memory, session, lead_s), weight, bias)

    def outputs_of(self, answer: Tensor) -> list[Tensor]:
        """Split (..., n_dims) answers into outputs, class logits into probabilities."""
        parts = torch.split(answer, [output.dims for output in self.config.outputs], dim=-1)
        return [
            torch.softmax(part, dim=-1) if output.classes else part
            for part, output in zip(parts, self.config.outputs, strict=True)
        ]

    def _answering(self, memory: Tensor, session: Tensor, lead_s: Tensor) -> Tensor:
        """Input for the readout, (..., d_readout)."""
        lead = self.lead_narrow(torch.tanh(self.lead_widen(lead_s / LEAD_SCALE_S)))
        query = self.query(self.memory_norm(memory)) + (session + lead)
        answering: Tensor = query + self.readout_geglu(query)
        return answering
