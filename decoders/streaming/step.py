"""One bin of the streaming decoder as plain algebra: what is exported, and adapted to a day."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from decoders.streaming.decoder import StreamingConfig, StreamingDecoder
from decoders.streaming.drift import bounded
from decoders.streaming.linear_filter import LinearFilter


class StepModule(nn.Module):
    """One bin: what is exported, and what the torch backend runs.

    Args:
        config: the shape.
    """

    def __init__(self, config: StreamingConfig) -> None:
        super().__init__()
        self.decoder = StreamingDecoder(config)
        self.filter = LinearFilter(config.taps_s, config.bin_s, config.n_dims)

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
        filter_rows: Tensor | None = None,
        filter_centre: Tensor | None = None,
        blend: Tensor | None = None,
        usual: Tensor | None = None,
        follow: Tensor | None = None,
        memory_filter: Tensor | None = None,
        memory_drift: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Run one bin.

        Args:
            unit: (N,) int32 rows of the table.
            t_rel: (N,) seconds since the start of the bin.
            count: (N,) spikes per token, 0 where padded.
            table: (R, table_width) folded rows.
            session: (d_readout,).
            centre: (n_pooled,).
            lead_s: (1,) seconds.
            memory_h: (1, d_memory), zeros after a reset.
            filter_rows: (R, n_sums) what a spike adds, with those that follow where the shape has a
                filter.
            filter_centre: (n_sums,) what a bin adds in which every unit fires its mean.
            blend: (2, n_dims), see `LinearFilter`.
            usual: (n_pooled,) mean of the latents beyond `centre` in the labelled seconds.
            follow: (1,) by how much one bin counts in the mean that drift is followed by; 0: it is
                not.
            memory_filter: (1, n_sums), zeros after a reset.
            memory_drift: (1, n_pooled + n_sums), zeros after a reset.

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
        if filter_rows is None:
            memory = gru_cell(decoder.gru, decoder.mixed_away(away), memory_h)
            answer = decoder.read_physical(memory, session, lead_s.unsqueeze(0))
            return (*(output[0] for output in decoder.outputs_of(answer)), memory)
        assert filter_centre is not None
        assert blend is not None
        assert usual is not None
        assert follow is not None
        assert memory_filter is not None
        assert memory_drift is not None
        added = count.unsqueeze(0) @ torch.index_select(filter_rows, 0, unit) - filter_centre
        seen = torch.cat((away - usual, added), dim=1)
        drift, added_drift = torch.split(memory_drift, [config.n_pooled, config.n_sums], dim=1)
        followed = memory_drift + follow * (seen - memory_drift)
        x = decoder.mixed_away(away - bounded(drift, decoder.pooled_gain))
        memory = gru_cell(decoder.gru, x, memory_h)
        told = self.filter.remember(added - added_drift, memory_filter)
        answer = decoder.read_physical(memory, session, lead_s.unsqueeze(0))
        answer = self.filter.blended(answer, told, blend, lead_s, decoder.scale)
        outputs = (output[0] for output in decoder.outputs_of(answer))
        return (*outputs, memory, told, followed)


def unadapted(n_rows: int, config: StreamingConfig) -> dict[str, Tensor]:
    """The tables that adaptation fills: no filter that counts, and no drift followed.

    None where the shape has no filter.
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
