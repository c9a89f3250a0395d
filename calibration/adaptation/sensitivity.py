"""Sensitivity of a decoder's answers to its units' profiles.

The gradient runs back through the network to the latents of the last bins, once for all units, and
from there to each unit by its spikes. The numpy network is the one that influence is found with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from calibration.adaptation.calibration_data import CalibrationData
from decoders.streaming.unit_tables import UnitTables
from decoders.training.split import Part
from export.bundle import decoder_weights
from export.influence.spike_train import Bins
from export.influence.streaming_network import StreamingNetwork, Trace
from streams.messages import Float32s, Int64s

BACK_S = 0.4
"""A spike's effect is followed for so long; most of it has faded by then."""
EVERY_S, MOST_MOMENTS, MOST_STEPS = 0.1, 250, 3000
"""Moments, and moments times bins that are followed back, bound the time. On M1 and S1 300 moments
in a minute tell .010 of R2 more than 150, on days of a simulated array .001 (2026-11-29)."""
RUN_UP_S = 2.0
LONGEST_S = 180.0
"""Bounds time and memory: moments in the last minutes tell as much as over an hour."""
STEP = 1e-2


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Answers at some moments of the labelled part, and their slopes in the profiles.

    Attributes:
        at: (B,) bins, counted from the begin of the labelled part.
        answer: (B, n_dims) on the decoder's scale.
        slopes: (B, n_dims, U, P - 1), without the rate, which is known well.
    """

    at: Int64s
    answer: Float32s
    slopes: Float32s


def newest(data: CalibrationData) -> Part:
    """The labelled bins that are looked at, the last `LONGEST_S`."""
    part = data.recording.train
    return Part(max(part.first, part.last - round(LONGEST_S / data.hop_s)), part.last)


def sensitivity(
    weights: Mapping[str, np.ndarray],
    units: UnitTables,
    tables: Mapping[str, np.ndarray],
    embedding: Float32s,
    data: CalibrationData,
) -> Sensitivity:
    """Find the slopes at some moments.

    Args:
        weights: the bundle's.
        units: maps profiles to tables.
        tables: today's.
        embedding: (U, d_unit) from which the tables were made.
        data: the session.
    """
    network = network_of(weights, units, tables)
    part, hop_s = newest(data), data.hop_s
    first = max(0, part.first - round(RUN_UP_S / hop_s))
    bins = bins_between(data, first, part.last)
    token_weights = network.token_weights(bins)
    memory = np.zeros(network.d_memory, np.float32)
    trace = network.run(bins, token_weights, memory, np.zeros(network.n_pooled, np.float32))
    n_back = max(1, round(BACK_S / hop_s))
    begin = max(part.first - first, n_back - 1)
    most = min(MOST_MOMENTS, MOST_STEPS // n_back)
    every = max(round(EVERY_S / hop_s), -(-(len(trace) - begin) // most), 1)
    at = np.arange(begin, len(trace), every)
    known = np.isfinite(data.targets[first + at]).all(axis=1)
    at = at[known]
    slopes = _Slopes(network, units, tables, bins, token_weights, trace, data)
    answer = (network.read(trace.memory[at + 1])[0] - data.offset) / data.scale
    found = slopes.at(at, n_back, _row_slopes(units, embedding))
    found /= np.asarray(data.scale, np.float32)[None, :, None, None]
    return Sensitivity(at + first - data.recording.train.first, answer.astype(np.float32), found)


def network_of(
    weights: Mapping[str, np.ndarray], units: UnitTables, tables: Mapping[str, np.ndarray]
) -> StreamingNetwork:
    """The decoder in numpy; arguments as of `sensitivity`."""
    return StreamingNetwork(decoder_weights(weights), tables, units.shape.to_dict())


def bins_between(data: CalibrationData, first: int, last: int) -> Bins:
    """Bins `first .. last` of a session."""
    tokens = data.recording.tokens
    offsets = tokens.offsets[first : last + 1]
    held = slice(int(offsets[0]), int(offsets[-1]))
    unit, t_rel, count = tokens.unit[held], tokens.t_rel[held], tokens.count[held]
    return Bins(unit, t_rel, count, offsets - offsets[0])


def _row_slopes(units: UnitTables, embedding: Float32s) -> Float32s:
    """(U, table_width, P - 1) slopes of the table's rows in the profiles, by differences."""
    ways = units.directions[:, :-1]
    size = STEP / np.maximum(np.linalg.norm(ways, axis=0), 1e-12)
    columns = [
        (units.rows(embedding + step * way) - units.rows(embedding - step * way)) / (2.0 * step)
        for way, step in zip(ways.T, size.astype(np.float32), strict=True)
    ]
    return np.stack(columns, axis=2)


class _Slopes:
    """From gradients in the latents to slopes in each unit's profile; B moments, T bins."""

    def __init__(
        self,
        network: StreamingNetwork,
        units: UnitTables,
        tables: Mapping[str, np.ndarray],
        bins: Bins,
        token_weights: Float32s,
        trace: Trace,
        data: CalibrationData,
    ) -> None:
        self.network, self.trace = network, trace
        n_bins, n_units = len(trace), len(tables["table"])
        cell = np.repeat(np.arange(n_bins), np.diff(bins.offsets)) * n_units + bins.unit
        per_latent = [np.bincount(cell, w, n_bins * n_units) for w in token_weights.T]
        mass = np.stack(per_latent, axis=1).astype(np.float32)
        self.mass_of_unit = mass.reshape(n_bins, n_units, -1)
        usual = units.usual_weights(tables["table"]) * data.recording.spikes_per_bin[:, None]
        self.usual = usual.astype(np.float32)
        sums = self.usual.T @ network.values
        self.usual_mass = sums[:, -1] + network.sink
        self.usual_latents = sums / self.usual_mass[:, None]

    def at(self, moments: Int64s, n_back: int, row_slopes: Float32s) -> Float32s:
        """(B, n_dims, U, P - 1) slopes of the answers, in physical units."""
        bins = moments[None] - np.arange(n_back)[:, None]
        gradient = self.network.gradient(self.trace, moments.tolist(), n_back)
        # The centre moves with the tables, and is subtracted in every bin.
        of_centre = gradient.sum(axis=0) / self.usual_mass[None, None, :, None]
        gradient /= self.trace.mass[bins][:, :, None, :, None]
        of_values, of_weights = self._per_unit(gradient, bins)
        usual = np.broadcast_to(self.usual, (1, len(moments), *self.usual.shape))
        centre = self._of(of_centre[None], usual, self.usual_latents)
        n_values = self.network.values.shape[1]
        static = row_slopes[:, n_values : n_values + self.network.n_latents]
        of_values -= centre[0]
        of_weights -= centre[1]
        found: Float32s = np.einsum(
            "budj,ujp->bdup", of_values, row_slopes[:, :n_values], optimize=True
        )
        found += np.einsum("budl,ulp->bdup", of_weights, static, optimize=True)
        return found

    def _per_unit(self, gradient: Float32s, bins: Int64s) -> tuple[Float32s, Float32s]:
        return self._of(gradient, self.mass_of_unit[bins], self.trace.latents[bins])

    def _of(
        self, gradient: Float32s, mass: Float32s, latents: Float32s
    ) -> tuple[Float32s, Float32s]:
        """Slopes in each unit's values, and in the part of its logits that time does not turn.

        Args:
            gradient: (K, B, n_dims, n_latents, n_values) per mass, K bins back.
            mass: (K, B, U, n_latents) each unit's.
            latents: (..., n_latents, n_values).

        Returns:
            (B, U, n_dims, n_values) and (B, U, n_dims, n_latents).
        """
        n_back, n_moments, n_dims, n_latents, n_values = gradient.shape
        by_unit = mass.transpose(1, 2, 0, 3).reshape(n_moments, -1, n_back * n_latents)
        flat = gradient.transpose(1, 0, 3, 2, 4).reshape(n_moments, n_back * n_latents, -1)
        of_values = np.matmul(by_unit, flat).reshape(n_moments, -1, n_dims, n_values)
        told = gradient.reshape(-1, n_values) @ self.network.values.T
        told = told.reshape(n_back, n_moments, n_dims, n_latents, -1)
        latents = np.broadcast_to(latents, (n_back, n_moments, n_latents, n_values))
        told -= np.einsum("kbdlj,kblj->kbdl", gradient, latents, optimize=True)[..., None]
        of_weights = np.zeros((n_moments, n_dims, n_latents, mass.shape[2]), np.float32)
        for mass_then, told_then in zip(mass.swapaxes(2, 3), told, strict=True):
            of_weights += mass_then[:, None] * told_then
        return of_values, of_weights.transpose(0, 3, 1, 2)
