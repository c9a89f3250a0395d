"""The plain baseline: a GRU on one session's binned counts, trained by the same recipe."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from decoders.streaming.network import LaneDropout, LaneNetwork
from decoders.streaming.stateful_sampler import Window

LEAST_SPREAD = 0.05


class GruOnBins(LaneNetwork):
    """Standardised counts -> linear -> GRU -> linear; takes and gives the same as `SessionNetwork`.

    Args:
        counts: (n_bins, n_units) in the train part, for each unit's mean and gain.
        offset: (n_dims,), the outputs'.
        scale: (n_dims,), the outputs'.
        d_model: width before the GRU.
        d_memory: GRU width.
    """

    offset: Tensor
    scale: Tensor
    count_mean: Tensor
    count_gain: Tensor

    def __init__(
        self,
        counts: Tensor,
        offset: Tensor,
        scale: Tensor,
        d_model: int,
        d_memory: int,
    ) -> None:
        super().__init__()
        self.d_memory = d_memory
        self.widen = nn.Linear(counts.shape[1], d_model)
        self.gru = nn.GRU(d_model, d_memory, batch_first=True)
        self.readout = nn.Linear(d_memory, len(offset))
        self.register_buffer("offset", offset)
        self.register_buffer("scale", scale)
        self.register_buffer("count_mean", counts.mean(dim=0))
        self.register_buffer("count_gain", 1.0 / counts.std(dim=0).clamp(min=LEAST_SPREAD))

    @property
    def normalisation(self) -> tuple[Tensor, Tensor]:
        """(n_dims,) offset and scale of the outputs."""
        return self.offset, self.scale

    @property
    def shape(self) -> dict[str, Any]:
        """Sizes, as plain JSON types."""
        return {"n_units": self.widen.in_features, "n_dims": self.readout.out_features}

    def forward(
        self, window: Window, memory: Tensor, dropout: LaneDropout | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run a window; see `SessionNetwork.forward` for arguments and result."""
        memory = memory * (~window.fresh).unsqueeze(-1)
        counts = (self._counts(window) - self.count_mean) * self.count_gain
        if dropout is not None:
            counts = counts * dropout.kept_units(counts.shape[-1]).to(counts.device).unsqueeze(1)
        x = torch.relu(self.widen(counts))
        x = x if dropout is None else dropout.drop(x)
        path, last = self.gru(x, memory.unsqueeze(0))
        path = path if dropout is None else dropout.drop(path)
        return self.readout(path), last.squeeze(0)

    def _counts(self, window: Window) -> Tensor:
        """(B, T, n_units) spikes."""
        n_lanes, n_units = len(window.session), self.widen.in_features
        cell = (window.lane * window.n_bins + window.bin) * n_units + window.unit
        dense = torch.zeros(n_lanes * window.n_bins * n_units, device=window.count.device)
        return dense.index_add(0, cell, window.count).view(n_lanes, window.n_bins, n_units)
