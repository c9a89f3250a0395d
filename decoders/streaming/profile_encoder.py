"""Encode a unit's tuning profile as its embedding, for units never seen before.

The encoder is trained with the network. In some lanes a unit's embedding comes from its profile
alone, fitted on a stretch of the session as short as a morning's calibration. So the decoder is
trained on unseen units before it meets any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from decoders.streaming.tuning import (
    TuningSums,
    counts_matrix,
    profiles,
    profiles_given,
    regressors,
    tuning_sums,
)
from decoders.training.outputs import OutputColumns
from decoders.training.recordings import Recording
from streams.messages import Float64s

N_VARIANTS = 32
SHORTEST_S = 15.0
LONGEST_S = 900.0
CAUTION = 3.0
SHRINKAGE = 0.1
LEAST_SPREAD = 1e-3


@dataclass(frozen=True, slots=True)
class UnitProfiles:
    """Profiles for all units that a network is trained on.

    Attributes:
        best: (n_rows, P) from the whole train part.
        variants: (n_variants, n_rows, P) from parts of it.
        session_of_row: (n_rows,) int64.
        spread: (P - 1, P - 1) slope covariance over units.
    """

    best: Float64s
    variants: Float64s
    session_of_row: np.ndarray
    spread: Float64s


class ProfileEncoder(nn.Module):
    """Linear map from profile to embedding, with profile statistics.

    Args:
        n_profile: profile length.
        d_unit: embedding width.
        embedding_spread: the embeddings' standard deviation before training.
    """

    mean: Tensor
    gain: Tensor
    spread: Tensor

    def __init__(self, n_profile: int, d_unit: int, embedding_spread: float) -> None:
        super().__init__()
        self.to_embedding = nn.Linear(n_profile, d_unit)
        nn.init.normal_(self.to_embedding.weight, std=embedding_spread / n_profile**0.5)
        self.register_buffer("mean", torch.zeros(n_profile))
        self.register_buffer("gain", torch.ones(n_profile))
        self.register_buffer("spread", torch.eye(n_profile - 1))

    @torch.no_grad()
    def fit_statistics(self, profiles: UnitProfiles) -> None:
        """Set the profiles' mean, gain and covariance from the training units."""
        deviation = np.maximum(profiles.best.std(axis=0), LEAST_SPREAD)
        self.mean.copy_(torch.from_numpy(profiles.best.mean(axis=0)))
        self.gain.copy_(torch.from_numpy(1.0 / deviation))
        self.spread.copy_(torch.from_numpy(profiles.spread))

    def forward(self, profile: Tensor) -> Tensor:
        """(..., P) profiles -> (..., d_unit)."""
        embedding: Tensor = self.to_embedding((profile - self.mean) * self.gain)
        return embedding

    def profiles_from(self, sums: TuningSums) -> Float64s:
        """(U, P) most probable profiles, given the sums and the profile statistics."""
        mean, spread = (v.cpu().double().numpy() for v in (self.mean[:-1], self.spread))
        return profiles_given(sums, mean, spread, CAUTION)


def fit_unit_profiles(
    recordings: Sequence[Recording],
    outputs: Sequence[OutputColumns],
    offset: Float64s,
    scale: Float64s,
    i_present: int,
    hop_s: float,
    seed: int,
) -> UnitProfiles:
    """Fit profiles to every session's train part, and to stretches in it.

    Args:
        recordings: ordered as the network's rows.
        outputs: target columns.
        offset: (n_dims,), normalisation.
        scale: (n_dims,).
        i_present: lead 0's index in the recordings' targets.
        hop_s: seconds between bins.
        seed: for the stretches' places.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for recording in recordings:
        part = slice(recording.train.first, recording.train.last)
        counts = counts_matrix(recording.tokens, len(recording.unit_keys))[part]
        targets = recording.targets[i_present, part].astype(np.float64)
        parts.append((counts, regressors(targets, outputs, offset, scale, hop_s)))
    best = np.concatenate([profiles(tuning_sums(*part)) for part in parts])
    mean, spread = best[:, :-1].mean(axis=0), shrunk_covariance(best[:, :-1])
    variants = [
        np.concatenate(
            [
                profiles_given(_stretch(counts, behavior, hop_s, rng), mean, spread, CAUTION)
                for counts, behavior in parts
            ]
        )
        for _ in range(N_VARIANTS)
    ]
    session_of_row = np.repeat(np.arange(len(parts)), [part[0].shape[1] for part in parts])
    return UnitProfiles(best, np.stack(variants), session_of_row, spread)


def _stretch(
    counts: Float64s, behavior: Float64s, hop_s: float, rng: np.random.Generator
) -> TuningSums:
    length_s = float(np.exp(rng.uniform(np.log(SHORTEST_S), np.log(LONGEST_S))))
    n_bins = min(len(counts), max(1, round(length_s / hop_s)))
    first = int(rng.integers(0, len(counts) - n_bins + 1))
    return tuning_sums(counts[first : first + n_bins], behavior[first : first + n_bins])


def shrunk_covariance(rows: Float64s) -> Float64s:
    """Covariance over (n, P) rows, shrunk towards its diagonal; never singular."""
    covariance = np.atleast_2d(np.cov(rows.T)) if len(rows) > 1 else np.eye(rows.shape[1])
    diagonal = np.diag(np.maximum(np.diag(covariance), LEAST_SPREAD**2))
    mixed: Float64s = (1.0 - SHRINKAGE) * covariance + SHRINKAGE * diagonal
    return mixed
