"""Tuning profiles: how units relate to behaviour, fitted in closed form.

Counts are regressed on behaviour shortly before, at and after each bin (cosine tuning, Georgopoulos
et al. 1982, with a speed term as in Moran and Schwartz 1999). A decoder needs
the profile of a unit that it has never seen; see the per-unit association profiles of APST
(arXiv 2609.39080).

This module does not import torch, because adaptation without torch reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from decoders.training.output_columns import OutputColumns
from decoders.training.recordings import Recording
from streams.messages import Float64s
from streams.spikes.tokenizer import TokenBins

LAGS_S = (-0.15, 0.0, 0.15)
RIDGE_BINS = 20.0
QUIET_COUNT = 0.02
N_VARIANTS = 32
SHORTEST_S = 15.0
LONGEST_S = 900.0
CAUTION = 3.0
SHRINKAGE = 0.1
LEAST_SPREAD = 1e-3
DRIFT = 0.1
"""Variance of a unit's slopes from day to day, as a share of their variance between units."""


@dataclass(frozen=True, slots=True)
class TuningSums:
    """Sums that regress counts on behaviour, over some bins.

    Attributes:
        n_bins: how many bins.
        gram: (P, P) summed products between centred regressors.
        cross: (P, U) summed regressor times centred and scaled count.
        power: (U,) summed squares, centred and scaled counts.
        mean_count: (U,) spikes per bin.
    """

    n_bins: int
    gram: Float64s
    cross: Float64s
    power: Float64s
    mean_count: Float64s

    def of_units(self, chosen: np.ndarray) -> TuningSums:
        """Sums for some units alone."""
        cross, power = self.cross[:, chosen], self.power[chosen]
        return TuningSums(self.n_bins, self.gram, cross, power, self.mean_count[chosen])


def counts_matrix(tokens: TokenBins, n_units: int) -> Float64s:
    """Spikes per bin and unit, (n_bins, n_units)."""
    n_bins = len(tokens)
    cell = np.repeat(np.arange(n_bins), np.diff(tokens.offsets)) * n_units + tokens.unit
    counts = np.bincount(cell, weights=tokens.count, minlength=n_bins * n_units)
    return np.asarray(counts.reshape(n_bins, n_units), np.float64)


def regressors(
    targets: Float64s,
    outputs: Sequence[OutputColumns],
    offset: Float64s,
    scale: Float64s,
    hop_s: float,
) -> Float64s:
    """Regressors for each bin: normalised behaviour around it.

    Args:
        targets: (n_bins, n_columns) physical units, NaN where unknown.
        outputs: target columns.
        offset: (n_dims,), the decoder's normalisation.
        scale: (n_dims,).
        hop_s: seconds between bins.

    Returns:
        (n_bins, P): per output its values at each lag, then the vector's length; for classes
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
    """Shift rows so that row i + n_bins becomes row i, NaN where there is none."""
    out = np.full_like(values, np.nan)
    if abs(n_bins) < len(values):
        target = slice(max(0, -n_bins), len(values) - max(0, n_bins))
        out[target] = values[max(0, n_bins) : len(values) + min(0, n_bins)]
    return out


def tuning_sums(counts: Float64s, behavior: Float64s) -> TuningSums:
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
    return TuningSums(
        n_bins, centred.T @ centred, centred.T @ scaled, np.square(scaled).sum(axis=0), mean_count
    )


def profiles(sums: TuningSums) -> Float64s:
    """Fit profiles to plenty of data.

    Returns:
        (U, P + 1): count change per regressor, in a Poisson count's standard deviations;
        then log spikes per bin.
    """
    gram = sums.gram + RIDGE_BINS * np.eye(len(sums.gram))
    slopes = np.linalg.solve(gram, sums.cross).T
    return np.concatenate([slopes, log_rate(sums)[:, None]], axis=1)


def log_rate(sums: TuningSums) -> Float64s:
    """(U,) log spikes per bin."""
    rate: Float64s = np.log(sums.mean_count + QUIET_COUNT)
    return rate


def profiles_given(sums: TuningSums, usual: Float64s, spread: Float64s, caution: float) -> Float64s:
    """Fit profiles to little data, with a prior from other units.

    Bayesian linear regression with a normal prior on the slopes; the rate is taken as it is.

    Args:
        sums: over the data.
        usual: (U, P) or (P,), prior mean.
        spread: (P, P), prior covariance.
        caution: factor on the noise, because neighbouring bins are alike.

    Returns:
        (U, P + 1) as `profiles`.
    """
    usual = np.broadcast_to(usual, sums.cross.T.shape)
    residual = residual_variance(sums, usual)
    precision = np.linalg.pinv(spread, hermitian=True)
    scale = caution * residual[:, None, None]
    matrix = sums.gram + scale * precision
    right = sums.cross.T[..., None] + scale * (precision @ usual[..., None])
    slopes = np.linalg.solve(matrix, right)[..., 0]
    return np.concatenate([slopes, log_rate(sums)[:, None]], axis=1)


def slope_covariance(sums: TuningSums, spread: Float64s, noise: Float64s) -> Float64s:
    """(U, P, P) covariance of the slopes that is left after the data.

    Args:
        sums: over the data.
        spread: (U, P, P) or (P, P), prior covariance.
        noise: (U,) variance of a scaled count, with the caution for neighbouring bins in it.
    """
    precision = np.linalg.pinv(spread, hermitian=True)
    left = np.linalg.inv(sums.gram / noise[:, None, None] + precision)
    covariance: Float64s = 0.5 * (left + left.swapaxes(1, 2))
    return covariance


def log_evidence(sums: TuningSums, usual: Float64s, spread: Float64s, noise: Float64s) -> Float64s:
    """(U,) log probability of the counts with the slopes integrated out, up to a constant.

    The constant is the same for all priors, so that differences tell which prior a unit fits.

    Args:
        sums: over the data.
        usual: (U, P) or (P,), prior mean.
        spread: (P, P), prior covariance.
        noise: (U,) variance of a scaled count, with the caution for neighbouring bins in it.
    """
    usual = np.broadcast_to(usual, sums.cross.T.shape)
    left = sums.cross.T - usual @ sums.gram
    power = sums.power - np.einsum("pu,up->u", sums.cross, usual) - (left * usual).sum(axis=1)
    precision = np.linalg.pinv(spread, hermitian=True)
    matrix = sums.gram + noise[:, None, None] * precision
    explained = (left * np.linalg.solve(matrix, left[..., None])[..., 0]).sum(axis=1)
    whole = np.eye(len(spread)) + spread @ (sums.gram / noise[:, None, None])
    evidence: Float64s = -0.5 * ((power - explained) / noise + np.linalg.slogdet(whole)[1])
    return evidence


def residual_variance(sums: TuningSums, slopes: Float64s) -> Float64s:
    """(U,) scaled counts' residual variance, at least half a Poisson count's."""
    explained = 2.0 * np.einsum("pu,up->u", sums.cross, slopes)
    explained -= np.einsum("up,pq,uq->u", slopes, sums.gram, slopes)
    variance: Float64s = np.clip((sums.power - explained) / max(1, sums.n_bins), 0.5, None)
    return variance


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
