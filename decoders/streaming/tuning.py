"""What relates a unit to behaviour: its tuning profile, fitted in closed form.

Counts are regressed on behaviour shortly before, at and after each bin (cosine tuning, Georgopoulos
et al. 1982, with a speed term as in Moran and Schwartz 1999). The profile is what a decoder needs
to know of a neuron that it has never seen; see the per-unit association profiles of APST
(arXiv 2609.39080).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from decoders.learning.loss import Scored
from streams.messages import Float64s
from streams.spikes.tokenizer import TokenBins

LAGS_S = (-0.15, 0.0, 0.15)
RIDGE_BINS = 20.0
QUIET_COUNT = 0.02


@dataclass(frozen=True, slots=True)
class Evidence:
    """What some bins say about how units follow behaviour; sums, so that parts can be left out.

    Attributes:
        n_bins: how many bins.
        gram: (P, P) sum of the products of the centred regressors.
        cross: (P, U) sum of regressor times centred and scaled count.
        power: (U,) sum of the squares of the centred and scaled counts.
        mean_count: (U,) spikes per bin.
    """

    n_bins: int
    gram: Float64s
    cross: Float64s
    power: Float64s
    mean_count: Float64s


def counts_matrix(tokens: TokenBins, n_units: int) -> Float64s:
    """Spikes per bin and unit, (n_bins, n_units)."""
    n_bins = len(tokens)
    cell = np.repeat(np.arange(n_bins), np.diff(tokens.offsets)) * n_units + tokens.unit
    counts = np.bincount(cell, weights=tokens.count, minlength=n_bins * n_units)
    return np.asarray(counts.reshape(n_bins, n_units), np.float64)


def regressors(
    targets: Float64s, outputs: Sequence[Scored], offset: Float64s, scale: Float64s, hop_s: float
) -> Float64s:
    """Behaviour around each bin, on the scale that the decoder normalises to.

    Args:
        targets: (n_bins, n_columns) physical units, NaN where unknown.
        outputs: which columns are what.
        offset: (n_dims,) of the decoder's normalisation.
        scale: (n_dims,).
        hop_s: seconds between bins.

    Returns:
        (n_bins, P): per output its values at each lag, then the length of the vector; for classes
        one column each; NaN where any is unknown.
    """
    columns = [
        _classes(targets[:, out.target], out.answer.stop - out.answer.start)
        if out.classes
        else _vector((targets[:, out.target] - offset[out.answer]) / scale[out.answer], hop_s)
        for out in outputs
    ]
    return np.concatenate(columns, axis=1)


def _classes(labels: Float64s, n_classes: int) -> Float64s:
    one_hot: Float64s = (labels == np.arange(n_classes)).astype(np.float64)
    one_hot[np.isnan(labels[:, 0])] = np.nan
    return one_hot


def _vector(values: Float64s, hop_s: float) -> Float64s:
    lagged = [_shifted(values, round(lag_s / hop_s)) for lag_s in LAGS_S]
    return np.concatenate([*lagged, np.linalg.norm(values, axis=1, keepdims=True)], axis=1)


def _shifted(values: Float64s, n_bins: int) -> Float64s:
    """Row i is row i + n_bins of `values`, NaN where there is none."""
    out = np.full_like(values, np.nan)
    if abs(n_bins) < len(values):
        target = slice(max(0, -n_bins), len(values) - max(0, n_bins))
        out[target] = values[max(0, n_bins) : len(values) + min(0, n_bins)]
    return out


def evidence(counts: Float64s, behavior: Float64s) -> Evidence:
    """Sum up some bins.

    Args:
        counts: (n, U) spikes.
        behavior: (n, P) from `regressors`; bins with NaN are left out.
    """
    known = np.isfinite(behavior).all(axis=1)
    counts, behavior = counts[known], behavior[known]
    n_bins = len(counts)
    mean_count = counts.sum(axis=0) / max(1, n_bins)
    scaled = (counts - mean_count) / np.sqrt(mean_count + QUIET_COUNT)
    centred = behavior - behavior.sum(axis=0) / max(1, n_bins)
    return Evidence(
        n_bins, centred.T @ centred, centred.T @ scaled, np.square(scaled).sum(axis=0), mean_count
    )


def profiles(found: Evidence) -> Float64s:
    """Profiles from plenty of data.

    Returns:
        (U, P + 1): by how many standard deviations of a Poisson count each regressor moves the
        count, then the log of the spikes per bin.
    """
    gram = found.gram + RIDGE_BINS * np.eye(len(found.gram))
    slopes = np.linalg.solve(gram, found.cross).T
    return np.concatenate([slopes, log_rate(found)[:, None]], axis=1)


def log_rate(found: Evidence) -> Float64s:
    """(U,) log of the spikes per bin."""
    rate: Float64s = np.log(found.mean_count + QUIET_COUNT)
    return rate


def profiles_given(found: Evidence, usual: Float64s, spread: Float64s, caution: float) -> Float64s:
    """Profiles from little data: the most probable ones, given what units are like.

    Bayesian linear regression with a normal prior on the slopes; the rate is taken as it is.

    Args:
        found: what the data say.
        usual: (U, P) or (P,) mean of the prior.
        spread: (P, P) its covariance.
        caution: by how much neighbouring bins, being alike, make the noise count for more.

    Returns:
        (U, P + 1) as `profiles`.
    """
    usual = np.broadcast_to(usual, found.cross.T.shape)
    residual = _residual_variance(found, usual)
    precision = np.linalg.pinv(spread, hermitian=True)
    scale = caution * residual[:, None, None]
    matrix = found.gram + scale * precision
    right = found.cross.T[..., None] + scale * (precision @ usual[..., None])
    slopes = np.linalg.solve(matrix, right)[..., 0]
    return np.concatenate([slopes, log_rate(found)[:, None]], axis=1)


def _residual_variance(found: Evidence, slopes: Float64s) -> Float64s:
    """(U,) of the scaled counts about what the slopes say, at least half a Poisson count's."""
    explained = 2.0 * np.einsum("pu,up->u", found.cross, slopes)
    explained -= np.einsum("up,pq,uq->u", slopes, found.gram, slopes)
    variance: Float64s = np.clip((found.power - explained) / max(1, found.n_bins), 0.5, None)
    return variance
