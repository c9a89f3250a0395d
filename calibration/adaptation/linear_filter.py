"""The linear filter beside the network, fitted in closed form to the labelled seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibration.adaptation.calibration_data import CalibrationData
from calibration.adaptation.held_out import likelihood_weights
from calibration.ridge import ridge_weights
from decoders.streaming.linear_filter import decays
from decoders.streaming.shape import StreamingConfig
from decoders.streaming.tuning import QUIET_COUNT, counts_matrix
from decoders.training.output_columns import OutputColumns
from streams.messages import Float64s

RIDGE = 300.0
"""Ridge, in bins: squared slopes count as the squared errors in so many bins."""
SHARES = np.arange(0.0, 0.41, 0.05)
HISTORY_S = 2.0


@dataclass(frozen=True, slots=True)
class Filter:
    """A fitted filter; see `decoders.streaming.linear_filter`.

    Attributes:
        rows: (U, n_sums) float32, added by each unit's spike.
        blend: (2, n_dims) float32, the filter's weight, and its answer at rest.
    """

    rows: np.ndarray
    blend: np.ndarray

    def tables(self, spikes_per_bin: Float64s) -> dict[str, np.ndarray]:
        """Graph tables for the filter; spikes_per_bin: (U,) usual means."""
        return {
            "filter_rows": self.rows,
            "filter_centre": np.asarray(spikes_per_bin @ self.rows, np.float32),
            "blend": self.blend,
        }

    def shares(self, outputs: Sequence[OutputColumns]) -> dict[str, float]:
        """The filter's weight in each continuous output."""
        continuous = [out for out in outputs if not out.classes]
        return {out.name: round(float(self.blend[0, out.answer.start]), 3) for out in continuous}


@dataclass(frozen=True, slots=True)
class FoldDecodes:
    """Trials that a fold left out, decoded by a network that has not seen them.

    Attributes:
        left_out: (n_bins,) bool, of the labelled part.
        by_network: (n_bins, n_dims), on the decoder's scale; NaN where it was not asked.
    """

    left_out: np.ndarray
    by_network: Float64s


def fit_filter(
    shape: StreamingConfig, data: CalibrationData, folds: Sequence[FoldDecodes]
) -> Filter:
    """Fit the filter, and choose its weight by held-out trials.

    The fit is a ridge regression from every unit's leaky sums to behaviour. Network and filter
    decode the trials that each fold left out, which neither has seen. Each candidate weight counts
    by how likely it makes those trials, output by output. Without held-out trials all candidates
    count alike.

    Args:
        shape: the decoder's, with a filter.
        data: the session.
        folds: the network's decodes; none where nothing was held out.
    """
    fitter = _Fitter(shape, data)
    slopes, rest = fitter.fit(fitter.labelled)
    both = fitter.beside(folds)
    share = np.zeros(len(rest))
    for out in data.outputs:
        if not out.classes:
            share[out.answer] = fitter.share(out, both)
    rows = fitter.per_spike(slopes) * (share * data.scale)
    blend = np.stack([share, rest * data.scale + data.offset])
    return Filter(rows.reshape(len(rows), -1).astype(np.float32), blend.astype(np.float32))


class _Fitter:
    """Regress the labelled part's normalised behaviour on leaky sums over its spikes."""

    def __init__(self, shape: StreamingConfig, data: CalibrationData) -> None:
        self.data = data
        recording, part = data.recording, data.recording.train
        self.labelled = data.labelled[part.first : part.last]
        self.targets = normalised_targets(data)[part.first : part.last]
        n_before = min(part.first, round(HISTORY_S / data.hop_s))
        counts = counts_matrix(recording.tokens, len(recording.unit_keys))
        away = counts[part.first - n_before : part.last] - recording.spikes_per_bin
        decay = np.array(decays(shape.taps_s, shape.bin_s))
        sums = np.stack([_leaky(away, d) for d in decay], axis=-1)
        # So that sums of a Poisson unit's spikes vary by 1 about its mean, however long they last.
        deviation = np.sqrt(recording.spikes_per_bin + QUIET_COUNT)[:, None]
        self.gain = np.sqrt((1.0 + decay) / (1.0 - decay)) / deviation
        sums = (sums[n_before:] * self.gain).reshape(len(self.labelled), -1)
        self.sums = np.concatenate([sums, np.ones((len(sums), 1))], axis=1)

    def fit(self, fitted: np.ndarray) -> tuple[Float64s, Float64s]:
        """(U * n_taps, n_dims) slopes from these bins, and (n_dims,) the answer at rest."""
        (weights,) = ridge_weights(self.sums[fitted], self.targets[fitted], (RIDGE,))
        return weights[:-1], weights[-1]

    def per_spike(self, slopes: Float64s) -> Float64s:
        """(U, n_taps, n_dims), added by a spike."""
        shaped: Float64s = slopes.reshape(*self.gain.shape, -1) * self.gain[..., None]
        return shaped

    def beside(self, folds: Sequence[FoldDecodes]) -> list[tuple[FoldDecodes, Float64s]]:
        """Each fold with the (n_bins, n_dims) decodes of a filter that has not seen its trials."""
        both = []
        for fold in folds:
            slopes, rest = self.fit(self.labelled & ~fold.left_out)
            both.append((fold, self.sums[:, :-1] @ slopes + rest))
        return both

    def share(self, out: OutputColumns, folds: Sequence[tuple[FoldDecodes, Float64s]]) -> float:
        """The filter's weight in an output."""
        if not folds:
            return float(SHARES.mean())
        losses = np.zeros(len(SHARES))
        for fold, by_filter in folds:
            asked = fold.left_out & np.isfinite(fold.by_network).all(axis=1)
            wanted, network, filtered = (
                values[asked][:, out.answer]
                for values in (self.targets, fold.by_network, by_filter)
            )
            answers = network + SHARES[:, None, None] * (filtered - network)
            losses += np.square(answers - wanted).sum(axis=2).mean(axis=1) / len(folds)
        held_out_s = sum(np.count_nonzero(fold.left_out) for fold, _ in folds) * self.data.hop_s
        return float(likelihood_weights(list(losses), held_out_s) @ SHARES)


def _leaky(x: Float64s, decay: float) -> Float64s:
    """Leaky sums over (n, U) rows."""
    sums, last = np.empty_like(x), np.zeros(x.shape[1])
    for i, row in enumerate((1.0 - decay) * x):
        last = decay * last + row
        sums[i] = last
    return sums


def normalised_targets(data: CalibrationData) -> Float64s:
    """(n_bins, n_dims) targets on the decoder's scale; zero for classes."""
    targets, values = data.targets, np.zeros((data.recording.n_bins, len(data.scale)))
    for out in data.outputs:
        if not out.classes:
            away = targets[:, out.target] - data.offset[out.answer]
            values[:, out.answer] = away / data.scale[out.answer]
    return values
