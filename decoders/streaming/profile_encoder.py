"""Embeddings from tuning profiles, learnt with the network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from decoders.streaming.tuning import (
    CAUTION,
    LEAST_SPREAD,
    TuningSums,
    UnitProfiles,
    profiles_given,
)
from streams.messages import Float64s


class ProfileEncoder(nn.Module):
    """Linear map from profile to embedding, with profile statistics, for units never seen before.

    It is trained with the network. In some lanes a unit's embedding comes from its profile alone,
    fitted on a stretch of the session as short as a morning's calibration. So the decoder is
    trained on unseen units before it meets any.

    Args:
        n_profile: profile length.
        d_unit: embedding width.
        embedding_spread: the embeddings' standard deviation before training.
    """

    def __init__(self, n_profile: int, d_unit: int, embedding_spread: float) -> None:
        super().__init__()
        self.to_embedding = nn.Linear(n_profile, d_unit)
        nn.init.normal_(self.to_embedding.weight, std=embedding_spread / n_profile**0.5)
        self.mean = nn.Buffer(torch.zeros(n_profile))
        self.gain = nn.Buffer(torch.ones(n_profile))
        self.spread = nn.Buffer(torch.eye(n_profile - 1))

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
