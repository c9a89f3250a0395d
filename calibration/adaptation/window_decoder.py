"""Decode one session's windows with several embedding sets at once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from calibration.adaptation.calibration_data import CalibrationData
from decoders.streaming.decoder import LaneTokens, StreamingDecoder

BINS_AT_ONCE = 500


class WindowDecoder:
    """Decode a session's windows with any embeddings.

    Args:
        decoder: the network.
        data: the session.
    """

    def __init__(self, decoder: StreamingDecoder, data: CalibrationData) -> None:
        self.decoder = decoder
        tokens = data.recording.tokens
        self.n_units = len(data.recording.unit_keys)
        self.offsets = torch.from_numpy(tokens.offsets)
        self.unit = torch.from_numpy(tokens.unit.astype(np.int64))
        self.t_rel = torch.from_numpy(tokens.t_rel)
        self.count = torch.from_numpy(tokens.count)
        self.spikes_per_bin = torch.from_numpy(data.recording.spikes_per_bin).float()

    def __call__(
        self,
        embedding: Tensor,
        session: Tensor,
        starts: Tensor,
        n_bins: int,
        kept: Tensor | None = None,
    ) -> Tensor:
        """Normalised outputs per window, each from zero memory.

        Args:
            embedding: (A, U, d_unit), A fits.
            session: (A, d_readout).
            starts: (B,) each window's first bin.
            n_bins: T, window length.
            kept: (B, U) 1 where a unit is used in a window, else 0; all if None.

        Returns:
            (A, B, T, n_dims).
        """
        encoder = self.decoder.encoder
        tables = encoder.fold(embedding)
        kept = torch.ones(len(starts), self.n_units) if kept is None else kept
        tokens = self._tokens(starts, n_bins, kept)
        sums = torch.cat([encoder.sums(table, tokens) for table in tables])
        centre = encoder.centre(tables.unsqueeze(1), kept * self.spikes_per_bin).flatten(0, 1)
        sessions = session.repeat_interleave(len(starts), 0)
        answer, _ = self.decoder(sums, centre, sessions, torch.zeros(len(sessions)))
        by_fit: Tensor = answer.unflatten(0, (len(embedding), len(starts)))
        return by_fit

    @torch.no_grad()
    def tables(self, embedding: Tensor, session: Tensor) -> dict[str, np.ndarray]:
        """Graph tables for (U, d_unit) embeddings and a (d_readout,) session vector."""
        table = self.decoder.encoder.fold(embedding)
        centre = self.decoder.encoder.centre(table, self.spikes_per_bin)
        tables = {"table": table, "session": session, "centre": centre}
        return {name: value.numpy() for name, value in tables.items()}

    @torch.no_grad()
    def usual_latents(self, embedding: Tensor, first: int, last: int) -> np.ndarray:
        """(n_pooled,) latents' mean over bins `first .. last`."""
        table, every_unit = self.decoder.encoder.fold(embedding), torch.ones(1, self.n_units)
        total = torch.zeros(self.decoder.config.n_pooled)
        for start in range(first, last, BINS_AT_ONCE):
            n_bins = min(BINS_AT_ONCE, last - start)
            tokens = self._tokens(torch.tensor([start]), n_bins, every_unit)
            sums = self.decoder.encoder.sums(table, tokens)
            total += self.decoder.encoder.pool(sums)[0].sum(dim=0)
        mean: np.ndarray = (total / (last - first)).numpy()
        return mean

    def _tokens(self, starts: Tensor, n_bins: int, kept: Tensor) -> LaneTokens:
        """Tokens in (B,) windows, without the units that are not kept."""
        bins = (starts[:, None] + torch.arange(n_bins)).flatten()
        n_each = self.offsets[bins + 1] - self.offsets[bins]
        cell = torch.repeat_interleave(torch.arange(len(bins)), n_each)
        before = torch.cumsum(n_each, 0) - n_each
        token = torch.arange(len(cell)) + (self.offsets[bins] - before)[cell]
        lane, unit = cell // n_bins, self.unit[token]
        count = self.count[token] * kept[lane, unit]
        shape = (len(starts), n_bins)
        return LaneTokens(lane, cell % n_bins, unit, self.t_rel[token], count, shape)
