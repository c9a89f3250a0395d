"""The Wiener filter: ridge regression on a history of binned counts, without torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import linalg

from streams.messages import Float64s
from streams.sessions.session import Session

HISTORY_S = 1.0
RIDGES = (1e0, 1e1, 1e2, 1e3, 1e4, 1e5)
# Share of the training part, its last, that chooses the ridge.
HELD_BACK = 0.2


def binned_counts(session: Session, bin_s: float, n_bins: int) -> Float64s:
    """Count each unit's spikes in bins (i, i + 1] * bin_s; (n_bins, n_units)."""
    spikes, n_units = session.spikes, len(session.unit_keys)
    i_bin = np.ceil(spikes.t_us / (bin_s * 1e6)).astype(np.int64) - 1
    inside = (i_bin >= 0) & (i_bin < n_bins)
    cell = i_bin[inside] * n_units + spikes.unit[inside]
    counts = np.bincount(cell, spikes.count[inside], n_bins * n_units)
    return np.asarray(counts.reshape(n_bins, n_units), np.float64)


def with_history(counts: np.ndarray, n_lags: int) -> np.ndarray:
    """(n_bins, n_lags * n_units + 1) float32: each bin with those before it, and a one."""
    n_bins, n_units = counts.shape
    padded = np.concatenate([np.zeros((n_lags - 1, n_units)), counts]).astype(np.float32)
    views = np.lib.stride_tricks.sliding_window_view(padded, n_lags, axis=0)
    flat = views.reshape(n_bins, n_lags * n_units)
    return np.concatenate([flat, np.ones((n_bins, 1), np.float32)], axis=1)


def ridge_weights(
    features: np.ndarray, target: np.ndarray, ridges: Sequence[float]
) -> list[np.ndarray]:
    """Ridge regression for several ridges; the last feature, a one, is not penalised.

    Solved in as many unknowns as there are rows where these are fewer than features.

    Args:
        features: (n, p + 1).
        target: (n, dims).
        ridges: above 0.

    Returns:
        Per ridge (p + 1, dims) float64.
    """
    mean_x, mean_y = features[:, :-1].mean(axis=0), target.mean(axis=0)
    x, y = features[:, :-1] - mean_x, target - mean_y
    # The dual problem has a row per bin, which is cheaper for short recordings.
    few_rows = len(x) < x.shape[1]
    gram = (x @ x.T if few_rows else x.T @ x).astype(np.float64)
    moment = y if few_rows else x.T @ y
    weights = []
    for ridge in ridges:
        factor = linalg.cho_factor(gram + ridge * np.eye(len(gram)), check_finite=False)
        solved = linalg.cho_solve(factor, moment, check_finite=False)
        slopes = x.T @ solved if few_rows else solved
        weights.append(np.concatenate([slopes, (mean_y - mean_x @ slopes)[None]]))
    return weights


def wiener_weights(history: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Fit a Wiener filter; the last fifth of the rows chooses the ridge.

    Args:
        history: (n, p + 1) of `with_history`, by time.
        target: (n, dims), all known.

    Returns:
        (p + 1, dims) float64, fitted to all rows.
    """
    n_fitted = max(1, round(len(history) * (1.0 - HELD_BACK)))
    fits = ridge_weights(history[:n_fitted], target[:n_fitted], RIDGES)
    # Dimensions count alike, whatever their units.
    scale = target.std(axis=0) + 1e-12
    errors = [np.square((history[n_fitted:] @ w - target[n_fitted:]) / scale).mean() for w in fits]
    return ridge_weights(history, target, (RIDGES[int(np.argmin(errors))],))[0]
