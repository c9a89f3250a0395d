"""One bin of the streaming decoder as plain algebra: what is exported, with its linear filter."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from decoders.streaming.decoder import StreamingConfig, StreamingDecoder
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
        memory_filter: Tensor | None = None,
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
            filter_rows: (R, n_sums), with the three that follow where the shape has a filter.
            filter_centre: (n_sums,).
            blend: (2, n_dims), see `LinearFilter`.
            memory_filter: (1, n_sums), zeros after a reset.

        Returns:
            One (dims,) tensor per output in physical units, then memory_h_out (1, d_memory), and
            memory_filter_out (1, n_sums) where there is a filter.
        """
        decoder = self.decoder
        config, rows = decoder.config, torch.index_select(table, 0, unit)
        n_coefficients = config.n_latents * config.n_basis
        values, coefficients = torch.split(rows, [config.d_value + 1, n_coefficients], dim=1)
        sums = decoder.encoder.weights(coefficients, t_rel, count).t() @ values
        x = decoder.mixed(sums.unsqueeze(0), centre)
        memory = gru_cell(decoder.gru, x, memory_h)
        answer = decoder.read_physical(memory, session, lead_s.unsqueeze(0))
        memories = [memory]
        if filter_rows is not None:
            assert filter_centre is not None
            assert blend is not None
            assert memory_filter is not None
            chosen = torch.index_select(filter_rows, 0, unit)
            told = self.filter.remember(chosen, count, filter_centre, memory_filter)
            answer = self.filter.blended(answer, told, blend, lead_s, decoder.scale)
            memories.append(told)
        return (*(output[0] for output in decoder.outputs_of(answer)), *memories)


def no_filter(n_rows: int, config: StreamingConfig) -> dict[str, Tensor]:
    """The tables of a linear filter that does not count, as a decoder just trained has them.

    None where the shape has no filter.
    """
    if not config.taps_s:
        return {}
    return {
        "filter_rows": torch.zeros(n_rows, config.n_sums),
        "filter_centre": torch.zeros(config.n_sums),
        "blend": torch.zeros(2, config.n_dims),
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
