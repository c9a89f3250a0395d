"""Who a neuron is: from how it follows behaviour to its embedding, for neurons never seen before.

The map is trained with the network: in some lanes every unit has no embedding but the one that its
profile tells, fitted on a stretch of the session that is as short as a morning's calibration. A
decoder is thus used to newcomers before it meets any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from decoders.learning.loss import Scored
from decoders.learning.recordings import Recording
from decoders.streaming.tuning import (
    Evidence,
    counts_matrix,
    evidence,
    profiles,
    profiles_given,
    regressors,
)
from streams.messages import Float64s

N_VARIANTS = 32
SHORTEST_S = 15.0
LONGEST_S = 900.0
CAUTION = 3.0
SHRINKAGE = 0.1
LEAST_SPREAD = 1e-3


@dataclass(frozen=True, slots=True)
class Census:
    """The profiles of all units that a network is trained on.

    Attributes:
        best: (n_rows, P) from the whole train part.
        variants: (n_variants, n_rows, P) from stretches of it.
        session_of_row: (n_rows,) int64.
        spread: (P - 1, P - 1) covariance of the slopes over units.
    """

    best: Float64s
    variants: Float64s
    session_of_row: np.ndarray
    spread: Float64s


class Identity(nn.Module):
    """Profile -> embedding, with what units are usually like.

    Args:
        n_profile: length of a profile.
        d_unit: width of an embedding.
        embedding_spread: standard deviation of the embeddings before training.
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
    def learn_usual(self, census: Census) -> None:
        """Fix mean, gain and covariance of profiles from the units trained on."""
        deviation = np.maximum(census.best.std(axis=0), LEAST_SPREAD)
        self.mean.copy_(torch.from_numpy(census.best.mean(axis=0)))
        self.gain.copy_(torch.from_numpy(1.0 / deviation))
        self.spread.copy_(torch.from_numpy(census.spread))

    def forward(self, profile: Tensor) -> Tensor:
        """(..., P) profiles -> (..., d_unit)."""
        embedding: Tensor = self.to_embedding((profile - self.mean) * self.gain)
        return embedding

    def profiles_from(self, found: Evidence) -> Float64s:
        """(U, P) the most probable profiles, given the evidence and what units are like."""
        usual, spread = (v.cpu().double().numpy() for v in (self.mean[:-1], self.spread))
        return profiles_given(found, usual, spread, CAUTION)


def take_census(
    recordings: Sequence[Recording],
    outputs: Sequence[Scored],
    offset: Float64s,
    scale: Float64s,
    i_present: int,
    hop_s: float,
    seed: int,
) -> Census:
    """Fit profiles to every session's train part, and to stretches of it.

    Args:
        recordings: in the order of the network's rows.
        outputs: which columns are what.
        offset: (n_dims,) of the normalisation.
        scale: (n_dims,).
        i_present: index of lead 0 in the recordings' targets.
        hop_s: seconds between bins.
        seed: of where the stretches lie.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for recording in recordings:
        part = slice(recording.train.first, recording.train.last)
        counts = counts_matrix(recording.tokens, len(recording.unit_keys))[part]
        targets = recording.targets[i_present, part].astype(np.float64)
        parts.append((counts, regressors(targets, outputs, offset, scale, hop_s)))
    best = np.concatenate([profiles(evidence(*part)) for part in parts])
    usual, spread = best[:, :-1].mean(axis=0), shrunk_covariance(best[:, :-1])
    variants = [
        np.concatenate(
            [
                profiles_given(_stretch(counts, behavior, hop_s, rng), usual, spread, CAUTION)
                for counts, behavior in parts
            ]
        )
        for _ in range(N_VARIANTS)
    ]
    session_of_row = np.repeat(np.arange(len(parts)), [part[0].shape[1] for part in parts])
    return Census(best, np.stack(variants), session_of_row, spread)


def _stretch(
    counts: Float64s, behavior: Float64s, hop_s: float, rng: np.random.Generator
) -> Evidence:
    length_s = float(np.exp(rng.uniform(np.log(SHORTEST_S), np.log(LONGEST_S))))
    n_bins = min(len(counts), max(1, round(length_s / hop_s)))
    first = int(rng.integers(0, len(counts) - n_bins + 1))
    return evidence(counts[first : first + n_bins], behavior[first : first + n_bins])


def shrunk_covariance(rows: Float64s) -> Float64s:
    """Covariance of (n, P), drawn a little towards its diagonal; never singular."""
    covariance = np.atleast_2d(np.cov(rows.T)) if len(rows) > 1 else np.eye(rows.shape[1])
    diagonal = np.diag(np.maximum(np.diag(covariance), LEAST_SPREAD**2))
    mixed: Float64s = (1.0 - SHRINKAGE) * covariance + SHRINKAGE * diagonal
    return mixed
