"""One bin in plain algebra, as it is exported and adapted to a day."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from decoders.streaming import drift, linear_filter
from decoders.streaming.decoder import StreamingDecoder
from decoders.streaming.shape import StreamingConfig


class StepModule(nn.Module):
    """One bin: what is exported, and what the torch backend runs.

    Args:
        config: the shape.
    """

    def __init__(self, config: StreamingConfig) -> None:
        super().__init__()
        self.decoder = StreamingDecoder(config)
        self.filter = LinearFilter(config)

    def forward(
        self,
        unit: Tensor,
        t_rel: Tensor,
        count: Tensor,
        table: Tensor,
        session: Tensor,
        centre: Tensor,
        lead_s: Tensor,
        memory_h: Tensor,
        *adapted: Tensor,
    ) -> tuple[Tensor, ...]:
        """Run one bin.

        Args:
            unit: (N,) int32 table rows.
            t_rel: (N,) seconds since the bin's start.
            count: (N,) spikes per token, 0 where padded.
            table: (R, table_width) folded rows.
            session: (d_readout,).
            centre: (n_pooled,).
            lead_s: (1,) seconds.
            memory_h: (1, d_memory), zeros after a reset.
            *adapted: tables and memories of `_adapted`, where the shape has a filter.

        Returns:
            One (dims,) tensor per output in physical units, then the memories after the bin, in the
            order of the arguments.
        """
        decoder = self.decoder
        config, rows = decoder.config, torch.index_select(table, 0, unit)
        n_coefficients = config.n_latents * config.n_basis
        values, coefficients = torch.split(rows, [config.d_value + 1, n_coefficients], dim=1)
        sums = decoder.encoder.weights(coefficients, t_rel, count).t() @ values
        away = decoder.encoder.pool(sums.unsqueeze(0)) - centre
        memories: list[Tensor] = []
        if adapted:
            away, *memories = self._adapted(away, unit, count, *adapted)
        memory = gru_cell(decoder.gru, decoder.mixed_away(away), memory_h)
        answer = decoder.read_physical(memory, session, lead_s.unsqueeze(0))
        if adapted:
            answer = self.filter.blended(answer, memories[0], adapted[2], lead_s, decoder.scale)
        return (*(output[0] for output in decoder.outputs_of(answer)), memory, *memories)

    def _adapted(
        self,
        away: Tensor,
        unit: Tensor,
        count: Tensor,
        filter_rows: Tensor,
        filter_centre: Tensor,
        blend: Tensor,
        usual: Tensor,
        follow: Tensor,
        memory_filter: Tensor,
        memory_drift: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Subtract the drift, and move the filter's sums and the drift on by a bin.

        Args:
            away: (1, n_pooled) latents beyond their centre.
            unit: (N,) rows.
            count: (N,) spikes per token.
            filter_rows: (R, n_sums), added to the filter's sums by each spike.
            filter_centre: (n_sums,), added by a bin in which every unit fires its mean.
            blend: (2, n_dims), see `LinearFilter`; it is for the answer.
            usual: (n_pooled,) the latents' mean beyond `centre` in the labelled seconds.
            follow: (1,) weight of one bin in the mean that is followed; 0 follows no drift.
            memory_filter: (1, n_sums), zeros after a reset.
            memory_drift: (1, n_pooled + n_sums), zeros after a reset.

        Returns:
            The latents without the drift, and both memories after the bin.
        """
        config = self.decoder.config
        added = count.unsqueeze(0) @ torch.index_select(filter_rows, 0, unit) - filter_centre
        seen = torch.cat((away - usual, added), dim=1)
        of_latents, of_sums = torch.split(memory_drift, [config.n_pooled, config.n_sums], dim=1)
        followed = memory_drift + follow * (seen - memory_drift)
        # A bound, so that a unit that goes wild cannot pull the latents far away.
        bound = drift.LARGEST / self.decoder.pooled_gain
        sums = self.filter.remember(added - of_sums, memory_filter)
        return away - within(of_latents, bound), sums, followed


class LinearFilter(nn.Module):
    """Leaky sums over spikes, which add to the network's answer.

    Args:
        config: the shape; each time constant has a sum for every dimension.
    """

    def __init__(self, config: StreamingConfig) -> None:
        super().__init__()
        self.config = config
        decay = torch.tensor(linear_filter.decays(config.taps_s, config.bin_s))
        self.decay = nn.Buffer(decay.repeat_interleave(config.n_dims), persistent=False)

    def remember(self, away: Tensor, memory: Tensor) -> Tensor:
        """Sums after a bin.

        Args:
            away: (1, n_sums) added by its spikes beyond the usual, in the outputs' units.
            memory: (1, n_sums) the sums before.

        Returns:
            (1, n_sums).
        """
        return away + self.decay * (memory - away)

    def blended(
        self, answer: Tensor, memory: Tensor, blend: Tensor, lead_s: Tensor, scale: Tensor
    ) -> Tensor:
        """Mix the network's answer and the filter's.

        Args:
            answer: (1, n_dims) the network's, in the outputs' units.
            memory: (1, n_sums).
            blend: (2, n_dims) the filter's weight, 0 to 1, and its answer at rest.
            lead_s: (1,) seconds ahead.
            scale: (n_dims,) the outputs' standard deviations; a spike burst moves the answer
                by at most `LARGEST`.

        Returns:
            (1, n_dims).
        """
        told, *more = torch.split(memory, self.config.n_dims, dim=1)
        for part in more:
            told = told + part
        told = within(told, linear_filter.LARGEST * scale)
        share, rest = torch.split(blend, 1, dim=0)
        left_s = self.config.serves_to_s + linear_filter.FADES_OVER_S - torch.abs(lead_s)
        counts = torch.clamp(left_s / linear_filter.FADES_OVER_S, 0.0, 1.0)
        return answer + counts * (share * (rest - answer) + told)


def within(x: Tensor, bound: Tensor) -> Tensor:
    """Clip `x` to at most `bound` from zero."""
    return torch.minimum(torch.maximum(x, -bound), bound)


def unadapted(n_rows: int, config: StreamingConfig) -> dict[str, Tensor]:
    """Tables that adaptation fills, with weight 0 for the filter and the drift.

    Empty where the shape has no filter.
    """
    if not config.taps_s:
        return {}
    return {
        "filter_rows": torch.zeros(n_rows, config.n_sums),
        "filter_centre": torch.zeros(config.n_sums),
        "blend": torch.zeros(2, config.n_dims),
        "usual": torch.zeros(config.n_pooled),
        "follow": torch.zeros(1),
    }


def gru_cell(gru: nn.GRU, x: Tensor, memory: Tensor) -> Tensor:
    """One GRU step as plain algebra, with torch's weights and gate order (reset, update, new)."""
    of_x, of_memory, bias_x, bias_memory = gru.all_weights[0]
    both, new = slice(0, 2 * gru.hidden_size), slice(2 * gru.hidden_size, None)
    weight = torch.cat((of_x[both], of_memory[both]), dim=1)
    bias = bias_x[both] + bias_memory[both]
    gates = torch.sigmoid(functional.linear(torch.cat((x, memory), dim=1), weight, bias))
    reset, update = gates.chunk(2, dim=1)
    from_memory = functional.linear(memory, of_memory[new], bias_memory[new])
    fresh = torch.tanh(functional.linear(x, of_x[new], bias_x[new]) + reset * from_memory)
    return fresh + update * (memory - fresh)
