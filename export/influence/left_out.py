"""Units' pushes on any decoder's answer, by leaving groups of units out.

A decode without a group of units differs by what the group's spikes push. Over many random groups
and moments a regression tells the push of one spike of each unit. One decode costs what the decoder
costs, so a heavy decoder is known after minutes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from export.backends.table import Backend
from export.influence.pushes import Pushes, RunningMoments
from export.influence.spike_train import Bins, SpikeTrain
from streams.messages import Float32s, Float64s, TokenWindow

FADE_S = 20.0
SAMPLE_S = 0.25
LONGEST_SAMPLE_S = 16.0
GROUPS = 4
RIDGE = 1.0
SOLVED_EVERY = 8
KEPT_ROUNDS = 4096


class LeftOutPushes:
    """Decodes the newest spikes with all units and without groups of them.

    Args:
        backend: of the decoder, not the daemon's own.
        outputs: dimensions of each output, in the backend's order.
        n_rows: of its table.
        hop_s: seconds between its beats.
        bin_s: length of its bins.
        context_s: its memory is filled so long before a decode; 0 where it has none.
        lead_s: how far ahead the daemon decodes.
        t_s: end of the first bin.
        seed: of the groups.
    """

    kind = "left out"

    def __init__(
        self,
        backend: Backend,
        outputs: dict[str, int],
        n_rows: int,
        *,
        hop_s: float,
        bin_s: float,
        context_s: float,
        lead_s: float,
        t_s: float,
        seed: int = 0,
    ) -> None:
        self._backend, self._outputs, self._n_rows = backend, outputs, n_rows
        self._hop_s, self._bin_s, self._lead_s = hop_s, bin_s, lead_s
        self._n_bins = 1 + round(context_s / hop_s)
        self._n_decodes = (context_s + bin_s) / hop_s  # that a spike reaches
        self._t_next_s = t_s + context_s
        self.sample_s = SAMPLE_S
        self._rng = np.random.default_rng(seed)
        n_dims = sum(outputs.values())
        self._gram: Float64s = np.zeros((n_rows, n_rows))
        self._cross: Float64s = np.zeros((n_rows, n_dims))
        self._per_spike: Float64s = np.zeros((n_rows, n_dims))
        self._counts = RunningMoments((n_rows,), FADE_S)
        self._newest: Float64s = np.zeros(n_rows)
        self._n_solved = self.n_rounds = 0

    def advance(self, train: SpikeTrain, until_s: float) -> None:
        """Sample the newest moment, if one is due."""
        if until_s < self._t_next_s:
            return
        self._t_next_s = until_s + self.sample_s
        back = np.arange(self._n_bins, dtype=np.float64)[::-1]
        ends_s: Float64s = until_s - self._hop_s * back
        bins = train.bins(ends_s, self._bin_s)
        counts = np.bincount(bins.unit, weights=bins.count, minlength=self._n_rows)
        self._newest = counts / (self._bin_s / self._hop_s)  # a spike stands in so many bins
        self._counts.add(until_s, self._newest)
        firing = np.flatnonzero(counts)
        if len(firing) < 2:
            return
        whole = self._decoded(bins, np.ones(self._n_rows, np.bool_))
        for group in np.array_split(self._rng.permutation(firing), min(GROUPS, len(firing))):
            kept = np.ones(self._n_rows, np.bool_)
            kept[group] = False
            self._learn(group, whole - self._decoded(bins, kept))

    def slow_down(self) -> None:
        """Sample half as often."""
        self.sample_s = min(LONGEST_SAMPLE_S, 2.0 * self.sample_s)

    def pushes(self) -> Pushes | None:
        """Return what was found; None before the first sample."""
        if not self.n_rounds:
            return None
        if self.n_rounds - self._n_solved >= SOLVED_EVERY or not self._n_solved:
            self._n_solved = self.n_rounds
            ridge = RIDGE * max(1e-9, float(np.trace(self._gram)) / self._n_rows)
            held = self._gram + ridge * np.eye(self._n_rows)
            self._per_spike = np.linalg.solve(held, self._cross).astype(np.float64)
        each = self._per_spike
        return Pushes(
            now=each * self._newest[:, None],
            mean=each * self._counts.mean[:, None],
            spread=np.abs(each) * self._counts.spread[:, None],
            per_spike=self._n_decodes * each,
            n=self.n_rounds,
        )

    def _learn(self, group: np.ndarray, push: Float64s) -> None:
        self.n_rounds += 1
        counts = self._newest[group]
        self._gram[np.ix_(group, group)] += np.outer(counts, counts)
        self._cross[group] += np.outer(counts, push)

    def _decoded(self, bins: Bins, kept: np.ndarray) -> Float64s:
        """(n_dims,) the answer after the bins, from an empty memory, with some rows alone."""
        self._backend.reset()
        answer: Mapping[str, Float32s] = {}
        for i in range(len(bins)):
            held = np.arange(bins.offsets[i], bins.offsets[i + 1])
            held = held[kept[bins.unit[held]]]
            window = TokenWindow(bins.unit[held], bins.t_rel[held], bins.count[held], math.nan)
            answer = self._backend.step(window, self._lead_s)
        return np.concatenate([answer[name] for name in self._outputs]).astype(np.float64)
