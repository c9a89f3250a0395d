"""A decoder over windows of one session, for several embeddings of its units at once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from calibration.adaptation.material import Material
from decoders.streaming.decoder import StreamingDecoder
from decoders.streaming.tuning import counts_matrix

BINS_AT_ONCE = 500


class WindowDecoder:
    """Decodes windows of a session from any embeddings.

    Args:
        decoder: the network; what of it is learnt is said by its parameters.
        material: the session.
    """

    def __init__(self, decoder: StreamingDecoder, material: Material) -> None:
        self.decoder = decoder
        tokens = material.recording.tokens
        self.n_units = len(material.recording.unit_keys)
        self.offsets = torch.from_numpy(tokens.offsets)
        self.unit = torch.from_numpy(tokens.unit.astype(np.int64))
        self.t_rel = torch.from_numpy(tokens.t_rel)
        self.count = torch.from_numpy(tokens.count)
        self.spikes_per_bin = torch.from_numpy(material.recording.spikes_per_bin).float()
        self.dense: Tensor | None = None
        if decoder.config.n_frequencies == 0:
            self.dense = torch.from_numpy(counts_matrix(tokens, self.n_units)).float()

    def __call__(
        self,
        embedding: Tensor,
        session: Tensor,
        starts: Tensor,
        n_bins: int,
        kept: Tensor | None = None,
    ) -> Tensor:
        """Normalised outputs of windows, each from zero memory.

        Args:
            embedding: (A, U, d_unit), of A attempts.
            session: (A, d_readout).
            starts: (B,) the bin at which each window begins.
            n_bins: T, the length of a window.
            kept: (B, U) of 0 and 1, which units are heard in which window; all if None.

        Returns:
            (A, B, T, n_dims).
        """
        decoder, n_attempts = self.decoder, len(embedding)
        tables = decoder.encoder.fold(embedding)
        kept = torch.ones(len(starts), self.n_units) if kept is None else kept
        sums = self._sums(tables, starts, n_bins, kept)
        centre = decoder.encoder.centre(tables.unsqueeze(1), kept * self.spikes_per_bin)
        mixed = decoder.mixed(sums.flatten(0, 1), centre.flatten(0, 1).unsqueeze(1))
        path, _ = decoder.gru(mixed)
        by_attempt = path.unflatten(0, (n_attempts, len(starts)))
        lead_s = torch.zeros(1, 1, 1, 1)
        return decoder.read(by_attempt, session[:, None, None], lead_s)

    @torch.no_grad()
    def tables(self, embedding: Tensor, session: Tensor) -> dict[str, np.ndarray]:
        """The graph's tables for (U, d_unit) embeddings and a (d_readout,) session vector."""
        table = self.decoder.encoder.fold(embedding)
        centre = self.decoder.encoder.centre(table, self.spikes_per_bin)
        tables = {"table": table, "session": session, "centre": centre}
        return {name: value.numpy() for name, value in tables.items()}

    @torch.no_grad()
    def usual_latents(self, embedding: Tensor, first: int, last: int) -> np.ndarray:
        """(n_pooled,) mean of the latents of bins `first .. last`."""
        tables = self.decoder.encoder.fold(embedding[None])
        total = torch.zeros(self.decoder.config.n_pooled)
        for start in range(first, last, BINS_AT_ONCE):
            n_bins = min(BINS_AT_ONCE, last - start)
            sums = self._sums(tables, torch.tensor([start]), n_bins, torch.ones(1, self.n_units))
            total += self.decoder.encoder.pool(sums)[0, 0].sum(dim=0)
        mean: np.ndarray = (total / (last - first)).numpy()
        return mean

    def _sums(self, tables: Tensor, starts: Tensor, n_bins: int, kept: Tensor) -> Tensor:
        """(A, B, T, n_latents, d_value + 1)."""
        if self.dense is not None:
            return self._sums_of_counts(tables, self.dense, starts, n_bins, kept)
        return self._sums_of_tokens(tables, starts, n_bins, kept)

    def _sums_of_counts(
        self, tables: Tensor, dense: Tensor, starts: Tensor, n_bins: int, kept: Tensor
    ) -> Tensor:
        """(A, B, T, n_latents, d_value + 1): without time in the bin, linear in the counts."""
        d_value, n_latents = self.decoder.config.d_value, self.decoder.config.n_latents
        weights, values = torch.exp(tables[..., d_value + 1 :]), tables[..., : d_value + 1]
        mixed = (weights.unsqueeze(-1) * values.unsqueeze(-2)).permute(1, 0, 2, 3).flatten(1)
        counts = dense[starts[:, None] + torch.arange(n_bins)] * kept.unsqueeze(1)
        sums = (counts.flatten(0, 1) @ mixed).view(len(starts), n_bins, len(tables), n_latents, -1)
        return sums.permute(2, 0, 1, 3, 4)

    def _sums_of_tokens(self, tables: Tensor, starts: Tensor, n_bins: int, kept: Tensor) -> Tensor:
        """(A, B, T, n_latents, d_value + 1), token by token."""
        config, encoder = self.decoder.config, self.decoder.encoder
        token, cell = self._tokens_of(starts, n_bins)
        unit, t_rel = self.unit[token], self.t_rel[token]
        count = self.count[token] * kept[cell // n_bins, unit]
        n_cells, n_latents = len(starts) * n_bins, config.n_latents
        slot = (cell * n_latents * self.n_units + unit).unsqueeze(-1)
        slot = (slot + torch.arange(n_latents) * self.n_units).flatten()
        per_attempt = []
        for table in tables:
            coefficients = table[:, config.d_value + 1 :][unit]
            weights = encoder.weights(coefficients, t_rel, count).flatten()
            dense = torch.zeros(n_cells * n_latents * self.n_units).index_add(0, slot, weights)
            per_attempt.append(dense.view(-1, self.n_units) @ table[:, : config.d_value + 1])
        return torch.stack(per_attempt).view(len(tables), len(starts), n_bins, n_latents, -1)

    def _tokens_of(self, starts: Tensor, n_bins: int) -> tuple[Tensor, Tensor]:
        """Index of each token of the windows, and the cell (window, bin) that it lies in."""
        bins = (starts[:, None] + torch.arange(n_bins)).flatten()
        n_each = self.offsets[bins + 1] - self.offsets[bins]
        cell = torch.repeat_interleave(torch.arange(len(bins)), n_each)
        before = torch.cumsum(n_each, 0) - n_each
        return torch.arange(len(cell)) + (self.offsets[bins] - before)[cell], cell
