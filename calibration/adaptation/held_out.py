"""Trials held out from the labelled seconds, and how much their losses tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibration.adaptation.calibration_data import CalibrationData
from streams.messages import Float64s

N_FOLDS = 2
EVERY = 4
"""Each fold leaves out every fourth block; up to four folds do not overlap."""
FEWEST_BLOCKS = 4
INDEPENDENT_S = 0.5
"""Errors of a velocity are alike over 0.3 s, those of a position over 1.4 to 5 s (measured)."""


def held_out_bins(data: CalibrationData, n_folds: int = N_FOLDS) -> np.ndarray:
    """(n_folds, n_bins) bool, labelled bins that each fold leaves out: whole blocks in turn.

    (0, n_bins) where the blocks are too few.
    """
    labelled, block = data.labelled, data.block
    blocks = np.unique(block[labelled])
    if len(blocks) < FEWEST_BLOCKS:
        return np.zeros((0, len(labelled)), np.bool_)
    place = np.searchsorted(blocks, block)
    shift = EVERY // n_folds
    return np.stack([labelled & (place % EVERY == i * shift) for i in range(n_folds)])


def likelihood_weights(losses: Sequence[float], held_out_s: float) -> Float64s:
    """Weight each candidate by its likelihood on the held-out trials; weights sum to 1.

    Args:
        losses: per candidate and bin; for continuous outputs the square error in variances.
        held_out_s: the trials' seconds; errors are independent every `INDEPENDENT_S`.
    """
    worse = np.asarray(losses) - min(losses)
    likely = np.exp(-0.5 * worse * held_out_s / INDEPENDENT_S)
    return np.asarray(likely / likely.sum(), np.float64)
