"""From profiles to a day's tables, in numpy, by the weights that a bundle holds.

It repeats the algebra of `profile_encoder.ProfileEncoder` and `decoder.SpikeEncoder`, so that a new
day needs no torch. A test holds it against both.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from decoders.streaming.shape import N_MOMENTS, StreamingConfig
from decoders.streaming.tuning import CAUTION, TuningSums, profiles_given
from streams.messages import Float32s, Float64s
from streams.spikes.tokenizer import TokenBins

BINS_AT_ONCE = 500
EPSILON = 1e-5
NEEDED = (
    "identity.to_embedding.weight", "identity.to_embedding.bias", "identity.mean", "identity.gain",
    "identity.spread", "decoder.encoder.norm.weight", "decoder.encoder.norm.bias",
    "decoder.encoder.to_value.weight", "decoder.encoder.to_value.bias",
    "decoder.encoder.to_logit.weight", "decoder.encoder.to_logit.bias", "decoder.encoder.log_sink",
    "decoder.encoder.frequencies", "decoder.encoder.shifts", "decoder.encoder.caps",
    "units.embedding", "units.profile", "units.session",
)  # fmt: skip
"""Names in a bundle's weights; a bundle that lacks one knows no units."""


class UnitTables:
    """The part of the network that maps profiles to tables.

    Args:
        weights: a bundle's, with the names in `NEEDED`.
        shape: the decoder's.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], shape: StreamingConfig) -> None:
        self.shape = shape
        self._w = {name: np.asarray(weights[name], np.float32) for name in NEEDED}
        self._sink = np.exp(self._w["decoder.encoder.log_sink"])

    @property
    def usual_slopes(self) -> Float64s:
        """(P - 1,) mean slopes of the training's units."""
        return self._w["identity.mean"][:-1].astype(np.float64)

    @property
    def spread(self) -> Float64s:
        """(P - 1, P - 1) covariance of the slopes over the training's units."""
        return self._w["identity.spread"].astype(np.float64)

    @property
    def directions(self) -> Float32s:
        """(d_unit, P) change of an embedding with each entry of its profile."""
        return self._w["identity.to_embedding.weight"] * self._w["identity.gain"]

    def profiles_from(self, sums: TuningSums) -> Float64s:
        """(U, P) most probable profiles of unseen units."""
        return profiles_given(sums, self.usual_slopes, self.spread, CAUTION)

    def embeddings(self, profile: Float64s) -> Float32s:
        """(U, P) profiles -> (U, d_unit)."""
        away = (profile.astype(np.float32) - self._w["identity.mean"]) * self._w["identity.gain"]
        return self._linear("identity.to_embedding", away)

    def rows(self, embedding: Float32s) -> Float32s:
        """(U, d_unit) embeddings -> (U, table_width) rows."""
        centred = embedding - embedding.mean(axis=1, keepdims=True)
        hat = centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + EPSILON)
        normed = hat * self._w["decoder.encoder.norm.weight"] + self._w["decoder.encoder.norm.bias"]
        caps = self._w["decoder.encoder.caps"]
        coefficients = caps * np.tanh(self._linear("decoder.encoder.to_logit", normed) / caps)
        values = self._linear("decoder.encoder.to_value", normed)
        ones = np.ones((len(embedding), 1), np.float32)
        return np.concatenate([values, ones, coefficients], axis=1).astype(np.float32)

    def usual_weights(self, rows: Float32s) -> Float32s:
        """(U, n_latents) weight of a spike in each latent, its mean over the bin."""
        n_moments = N_MOMENTS if self.shape.n_frequencies else 1
        at_s = (np.arange(n_moments) + 0.5) * (self.shape.bin_s / n_moments)
        unit = np.tile(np.arange(len(rows)), n_moments)
        t_rel = np.repeat(at_s, len(rows)).astype(np.float32)
        weights = self._token_weights(rows, unit, t_rel).reshape(n_moments, len(rows), -1)
        usual: Float32s = weights.mean(axis=0)
        return usual

    def centre(self, rows: Float32s, spikes_per_bin: Float64s) -> Float32s:
        """(n_pooled,) latents of a bin in which every unit fires its mean, evenly over the bin."""
        weights = self.usual_weights(rows) * spikes_per_bin[:, None]
        return self._pooled(weights.T @ self._values(rows))

    def usual_latents(self, rows: Float32s, tokens: TokenBins, first: int, last: int) -> Float32s:
        """(n_pooled,) latents' mean over bins `first .. last`."""
        total = np.zeros(self.shape.n_pooled)
        for start in range(first, last, BINS_AT_ONCE):
            stop = min(start + BINS_AT_ONCE, last)
            total += self._pooled(self._sums(rows, tokens, start, stop)).sum(axis=0)
        return np.asarray(total / (last - first), np.float32)

    def _sums(self, rows: Float32s, tokens: TokenBins, first: int, last: int) -> Float32s:
        """(T, n_latents, d_value + 1) over each bin's tokens."""
        offsets = tokens.offsets[first : last + 1]
        held, n_bins, n_units = slice(int(offsets[0]), int(offsets[-1])), last - first, len(rows)
        unit = tokens.unit[held]
        weights = self._token_weights(rows, unit, tokens.t_rel[held]) * tokens.count[held, None]
        cell = np.repeat(np.arange(n_bins), np.diff(offsets)) * n_units + unit
        values = self._values(rows)
        per_latent = [
            np.bincount(cell, weight, n_bins * n_units).reshape(n_bins, n_units) @ values
            for weight in weights.T
        ]
        return np.stack(per_latent, axis=1).astype(np.float32)

    def _token_weights(self, rows: Float32s, unit: np.ndarray, t_rel: Float32s) -> Float32s:
        """(N, n_latents) weight of one spike of each token."""
        shape = self.shape
        coefficients = rows[:, shape.d_value + 1 :].reshape(len(rows), shape.n_basis, -1)
        turns = t_rel[:, None] * self._w["decoder.encoder.frequencies"]
        basis = np.cos(turns + self._w["decoder.encoder.shifts"])
        logit = np.zeros((len(unit), shape.n_latents), np.float32)
        for i in range(shape.n_basis):
            logit += coefficients[unit, i] * basis[:, i : i + 1]
        return np.exp(logit)

    def _values(self, rows: Float32s) -> Float32s:
        return rows[:, : self.shape.d_value + 1]

    def _pooled(self, sums: np.ndarray) -> Float32s:
        """(..., n_latents, d_value + 1) sums -> (..., n_pooled) latents."""
        latents = sums / (sums[..., -1:] + self._sink[:, None])
        pooled: Float32s = latents.reshape(*sums.shape[:-2], -1).astype(np.float32)
        return pooled

    def _linear(self, name: str, x: np.ndarray) -> Float32s:
        out: Float32s = x @ self._w[f"{name}.weight"].T + self._w[f"{name}.bias"]
        return out.astype(np.float32)
