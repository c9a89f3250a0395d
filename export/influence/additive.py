"""Units' pushes on a streaming decoder's answer, from its encoder's sums.

The encoder adds up spikes, so what its latents would be without a unit is known exactly, for all
units at once. From the latents to the answer the network is not additive; there its gradient at
the present spikes is taken. A test holds the result against leaving units out of the real decoder.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from export.influence.pushes import Pushes, RunningMoments
from export.influence.spike_train import Bins, SpikeTrain
from export.influence.streaming_network import StreamingNetwork, Trace
from streams.messages import Float32s, Float64s

REACH_S = 0.5
"""A spike's push is followed for so long; the shipped decoder's has faded to 2 % by then."""
FADE_S = 20.0
SAMPLE_S = 0.25
LONGEST_SAMPLE_S = 4.0
LONGEST_PIECE_S = 3.0


class AdditivePushes:
    """Follows the spikes, and samples the pushes several times a second.

    Args:
        network: the decoder's.
        hop_s: seconds between its beats.
        bin_s: length of its bins.
        t_s: end of the first bin.
    """

    kind = "additive"

    def __init__(self, network: StreamingNetwork, hop_s: float, bin_s: float, t_s: float) -> None:
        self._network, self._hop_s, self._bin_s = network, hop_s, bin_s
        self._t0_s, self._k = t_s, 0
        self._n_back = max(1, round(REACH_S / hop_s))
        self._memory = np.zeros(network.d_memory, np.float32)
        self._drifted = np.zeros(network.n_pooled, np.float32)
        self._trace: Trace | None = None
        self._bins: list[_BinShares] = []
        self._usual_weights = network.usual_weights(bin_s)
        self._k_sample = self._n_back
        self.sample_s = SAMPLE_S
        self._moments = RunningMoments((len(network.values), network.n_dims), FADE_S)
        self._now: Float64s = np.zeros((len(network.values), network.n_dims))
        self._per_spike = RunningMoments(self._now.shape, FADE_S)

    def advance(self, train: SpikeTrain, until_s: float) -> None:
        """Take in all bins that end by `until_s`.

        Args:
            train: the spikes; those of the bins since the last call are needed.
            until_s: spikes up to here are known.
        """
        k_last = math.floor((until_s - self._t0_s) / self._hop_s + 1e-6)
        n_most = self._n_back + round(LONGEST_PIECE_S / self._hop_s)
        if k_last - self._k >= n_most:
            self._begin_anew(k_last + 1 - n_most)
        if self._k > k_last:
            return
        ends_s: Float64s = self._t0_s + self._hop_s * np.arange(
            self._k, k_last + 1, dtype=np.float64
        )
        bins = train.bins(ends_s, self._bin_s)
        weights = self._network.token_weights(bins)
        trace = self._network.run(bins, weights, self._memory, self._drifted)
        self._memory = trace.memory[-1]
        self._bins += list(_shares(bins, weights, trace.mass))
        self._trace = trace if self._trace is None else self._trace.joined(trace)
        self._k = k_last + 1
        self._sample()
        self._trace = self._trace.last(self._n_back)
        self._bins = self._bins[-self._n_back :]

    def _begin_anew(self, k: int) -> None:
        """Skip what came before bin `k`: after a long pause catching up would cost too much."""
        self._k, self._k_sample = k, k + self._n_back
        self._memory, self._trace, self._bins = np.zeros_like(self._memory), None, []

    def slow_down(self) -> None:
        """Sample half as often."""
        self.sample_s = min(LONGEST_SAMPLE_S, 2.0 * self.sample_s)

    def pushes(self) -> Pushes | None:
        """Return what was found; None before the first sample."""
        if not self._moments.n:
            return None
        moments = self._moments
        return Pushes(self._now, moments.mean, moments.spread, self._per_spike.mean, moments.n)

    def _sample(self) -> None:
        """Sample at some of the bins that have come."""
        assert self._trace is not None
        k_first = self._k - len(self._bins)
        every = max(1, round(self.sample_s / self._hop_s))
        at = list(range(max(self._k_sample, k_first + self._n_back - 1), self._k, every))
        if not at:
            return
        self._k_sample = at[-1] + every
        in_trace = [k - k_first for k in at]
        gradient = self._network.gradient(self._trace, in_trace, self._n_back)
        pushes = self._pushes_at(in_trace, gradient)
        for b, k in enumerate(at):
            t_s = self._t0_s + k * self._hop_s
            self._moments.add(t_s, pushes[b])
            self._per_spike.add(t_s, self._spike_at(in_trace[b], gradient[:, b]))
        self._now = pushes[-1].astype(np.float64)

    def _pushes_at(self, at: list[int], gradient: Float32s) -> Float32s:
        """(B, n_rows, n_dims) pushes on the answers after B bins of the trace."""
        assert self._trace is not None
        network, latents = self._network, self._trace.latents
        n_sums = network.values.shape[1]
        found = np.zeros((len(at), len(network.values), network.n_dims), np.float32)
        for b, end in enumerate(at):
            for i in range(self._n_back):
                shares = self._bins[end - i]
                if not len(shares.row):
                    continue
                of_bin = gradient[i, b]  # (n_dims, n_latents, n_sums)
                told = shares.share @ of_bin.transpose(1, 0, 2).reshape(network.n_latents, -1)
                told = told.reshape(len(shares.row), network.n_dims, n_sums)
                values = network.values[shares.row]
                usual = np.einsum("dkj,kj->kd", of_bin, latents[end - i])
                push = np.matmul(told, values[:, :, None])[:, :, 0] - shares.share @ usual
                found[b, shares.row] += push
                self._add_filter(found[b], shares, i)
        return found

    def _add_filter(self, found: Float32s, shares: _BinShares, i_back: int) -> None:
        taps = self._network.taps
        if taps is None:
            return
        for i_tap, rows in enumerate(taps.rows):
            factor = taps.kernel(i_tap, self._n_back)[i_back]
            if factor:
                found[shares.row] += factor * shares.count[:, None] * rows[shares.row]

    def _spike_at(self, end: int, gradient: Float32s) -> Float32s:
        """(n_rows, n_dims) sum of the pushes of one more spike, for every row."""
        assert self._trace is not None
        network, trace = self._network, self._trace
        back = end - np.arange(self._n_back)
        per_mass = gradient / trace.mass[back][:, None, :, None]
        whole = per_mass.sum(axis=0)  # (n_dims, n_latents, n_sums)
        usual = np.einsum("tdkj,tkj->kd", per_mass, trace.latents[back])
        towards = np.einsum("dkj,uj->ukd", whole, network.values)
        found: Float32s = np.einsum("uk,ukd->ud", self._usual_weights, towards - usual)
        if network.taps is not None:
            found += network.taps.rows.sum(axis=0)
        return found


class _BinShares:
    """Units' shares in one bin's latents: weight over the mass that is left without the unit."""

    __slots__ = ("count", "row", "share")

    def __init__(self, row: np.ndarray, share: Float32s, count: Float32s) -> None:
        self.row, self.share, self.count = row, share, count


def _shares(bins: Bins, weights: Float32s, mass: Float32s) -> Iterator[_BinShares]:
    """Yield each bin's shares: a unit's spikes in the bin count together."""
    for i in range(len(bins)):
        held = slice(bins.offsets[i], bins.offsets[i + 1])
        row, member = np.unique(bins.unit[held], return_inverse=True)
        weight = np.zeros((len(row), weights.shape[1]), np.float32)
        np.add.at(weight, member, weights[held])
        count = np.bincount(member, weights=bins.count[held], minlength=len(row))
        yield _BinShares(row, weight / (mass[i] - weight), count.astype(np.float32))
