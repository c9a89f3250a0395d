"""The linear filter beside the network, fitted in closed form to the labelled seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.signal import lfilter

from calibration.adaptation.batched_fits import Start, WindowDecoder
from calibration.adaptation.calibration_data import CalibrationData
from calibration.adaptation.search import Found, checkpoint_weights, held_out_bins
from calibration.ridge import ridge_weights
from decoders.streaming.decoder import StreamingDecoder
from decoders.streaming.linear_filter import decays
from decoders.streaming.tuning import QUIET_COUNT, counts_matrix
from decoders.training.outputs import OutputColumns
from streams.messages import Float64s

RIDGE = 300.0
"""Ridge, in bins: squared slopes count as the squared errors in so many bins."""
SHARES = np.arange(0.0, 0.41, 0.05)
HISTORY_S = 2.0
WINDOW_S = 10.0
WINDOWS_AT_ONCE = 8


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


def fit_filter(decoder: StreamingDecoder, data: CalibrationData, found: Found) -> Filter:
    """Fit the filter, and choose its weight by held-out trials.

    The fit is a ridge regression from every unit's leaky sums to behaviour. Network and filter
    decode the trials that each fold of `search` left out, which neither has seen. Each candidate
    weight counts by how likely it makes those trials, output by output. Without held-out trials all
    candidates count alike.

    Args:
        decoder: the network, its shape with a filter.
        data: the session.
        found: the network's search result.
    """
    fitter = _Fitter(decoder, data)
    folds = fitter.folds(found)
    slopes, rest = fitter.fit(fitter.labelled)
    share = np.zeros(len(rest))
    for out in data.outputs:
        if not out.classes:
            share[out.answer] = fitter.share(out, folds)
    rows = fitter.per_spike(slopes) * (share * data.scale)
    blend = np.stack([share, rest * data.scale + data.offset])
    return Filter(rows.reshape(len(rows), -1).astype(np.float32), blend.astype(np.float32))


@dataclass(frozen=True, slots=True)
class _Fold:
    """Held-out trials, (n_bins, n_dims) decoded by network and filter without having seen them."""

    left_out: np.ndarray
    by_network: Float64s
    by_filter: Float64s


class _Fitter:
    """Regress the labelled part's normalised behaviour on leaky sums over its spikes."""

    def __init__(self, decoder: StreamingDecoder, data: CalibrationData) -> None:
        self.data = data
        self.decoder = WindowDecoder(decoder, data)
        recording, part = data.recording, data.recording.train
        self.labelled = data.labelled[part.first : part.last]
        self.targets = _normalised(data)[part.first : part.last]
        n_before = min(part.first, round(HISTORY_S / data.hop_s))
        counts = counts_matrix(recording.tokens, len(recording.unit_keys))
        away = counts[part.first - n_before : part.last] - recording.spikes_per_bin
        decay = np.array(decays(decoder.config.taps_s, decoder.config.bin_s))
        sums = np.stack([lfilter([1.0 - d], [1.0, -d], away, axis=0) for d in decay], axis=-1)
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

    def folds(self, found: Found) -> list[_Fold]:
        """Decode the trials that each fold left out."""
        part = self.data.recording.train
        held_out = held_out_bins(self.data)[:, part.first : part.last]
        folds = []
        for end, left_out in zip(found.without, held_out, strict=False):
            slopes, rest = self.fit(self.labelled & ~left_out)
            folds.append(_Fold(left_out, self._decoded(end), self.sums[:, :-1] @ slopes + rest))
        return folds

    def share(self, out: OutputColumns, folds: Sequence[_Fold]) -> float:
        """The filter's weight in an output."""
        if not folds:
            return float(SHARES.mean())
        losses = np.zeros(len(SHARES))
        for fold in folds:
            wanted, network, filtered = (
                values[fold.left_out][:, out.answer]
                for values in (self.targets, fold.by_network, fold.by_filter)
            )
            answers = network + SHARES[:, None, None] * (filtered - network)
            losses += np.square(answers - wanted).sum(axis=2).mean(axis=1) / len(folds)
        held_out_s = sum(np.count_nonzero(fold.left_out) for fold in folds) * self.data.hop_s
        return float(checkpoint_weights(list(losses), held_out_s) @ SHARES)

    @torch.no_grad()
    def _decoded(self, end: Start) -> Float64s:
        """Decode the labelled part by the network, in windows with a run-up: (n_bins, n_dims)."""
        part, hop_s = self.data.recording.train, self.data.hop_s
        n_run_up, n_new = round(HISTORY_S / hop_s), round(WINDOW_S / hop_s)
        n_bins = min(n_run_up + n_new, part.last)
        begins = torch.arange(part.first - n_run_up, part.last - n_run_up, n_new)
        begins = begins.clamp(min=0, max=part.last - n_bins)
        decoded = np.zeros((part.last, len(self.data.scale)))
        for some in torch.split(begins, WINDOWS_AT_ONCE):
            answers = self.decoder(end.embedding[None], end.session[None], some, n_bins)[0].numpy()
            for begin, answer in zip(some.tolist(), answers, strict=True):
                n_skipped = n_run_up if begin else 0
                decoded[begin + n_skipped : begin + n_bins] = answer[n_skipped:]
        return decoded[part.first :]


def _normalised(data: CalibrationData) -> Float64s:
    """(n_bins, n_dims) targets on the decoder's scale; zero for classes."""
    targets, values = data.targets, np.zeros((data.recording.n_bins, len(data.scale)))
    for out in data.outputs:
        if not out.classes:
            away = targets[:, out.target] - data.offset[out.answer]
            values[:, out.answer] = away / data.scale[out.answer]
    return values
