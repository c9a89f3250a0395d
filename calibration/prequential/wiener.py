"""A small Wiener filter, fitted anew whenever a decoder is made: the baseline on the same data."""

from __future__ import annotations

import numpy as np

from calibration.ridge import HISTORY_S, wiener_weights
from streams.messages import Float64s

TAP_S = 0.1
"""Taps of a hop would be five times as many, and take seconds to fit."""


def fit_and_decode(
    counts: Float64s, target: Float64s, learnt: np.ndarray, decoded: np.ndarray, hop_s: float
) -> Float64s:
    """Fit a causal ridge filter on one second of counts, and decode with it.

    Args:
        counts: (n_bins, n_units) spikes.
        target: (n_bins, dims), NaN where unknown.
        learnt: (n_bins,) bool, bins that it may learn from.
        decoded: (m,) bins to decode.
        hop_s: seconds between bins.

    Returns:
        (m, dims); zero where nothing could be learnt.
    """
    n_each = max(1, round(TAP_S / hop_s))
    fitted = np.flatnonzero(learnt & np.isfinite(target).all(axis=1))
    # Bins within a tap hardly differ.
    fitted = fitted[::n_each]
    summed = np.concatenate([np.zeros((1, counts.shape[1])), np.cumsum(counts, axis=0)])
    summed = summed[:, counts.any(axis=0)]
    if len(fitted) < 2 or not summed.shape[1]:
        return np.zeros((len(decoded), target.shape[1]))
    weights = wiener_weights(_taps(summed, fitted, n_each), target[fitted])
    answer: Float64s = _taps(summed, decoded, n_each) @ weights
    return answer


def _taps(summed: Float64s, bins: np.ndarray, n_each: int) -> Float64s:
    """(m, n_taps * n_units + 1): spikes in each tap before each bin's end, and a one."""
    edges = bins[:, None] + 1 - n_each * np.arange(round(HISTORY_S / TAP_S) + 1)
    held = summed[np.maximum(edges, 0)]
    taps = (held[:, :-1] - held[:, 1:]).reshape(len(bins), -1)
    return np.concatenate([taps, np.ones((len(bins), 1))], axis=1)
