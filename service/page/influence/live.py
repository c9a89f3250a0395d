"""Influence: which units drive the decode now, in the page's process.

For each unit a score: by how much its spikes move an output, as a standard deviation over the last
20 s, in the output's unit (docs/influence.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.bundle import DecoderBundle
from export.influence.additive import AdditivePushes
from export.influence.left_out import LeftOutPushes
from export.influence.opening import open_pushes
from export.influence.pushes import Pushes
from export.influence.spike_train import SpikeTrain
from streams.clock import Clock, ThreadClock
from streams.messages import Float64s

SHARE_OF_TIME = 0.05
"""Of one core; a decoder that takes longer is sampled less often."""
COST_OVER = 5
FEWEST_SAMPLES = 8


@dataclass(frozen=True, slots=True)
class Influence:
    """Influence on one output; a row for each unit, in the order of `keys`.

    Attributes:
        output: its name.
        unit: its physical unit, e.g. "cm/s".
        keys: the bundle's units.
        score: (n,) standard deviation of the unit's push over the last 20 s, in `unit`.
        share: (n,) score over the sum of all scores; zeros while nothing is known.
        now: (n, dims) push of the unit's recent spikes on the newest decode.
        per_spike: (n, dims) push of one more spike.
        direction: (n,) radians in which a spike pushes, NaN for outputs that are not planar.
        n_samples: moments that went into it.
        kind: "additive" or "left out", how it was found.
    """

    output: str
    unit: str
    keys: tuple[str, ...]
    score: Float64s
    share: Float64s
    now: Float64s
    per_spike: Float64s
    direction: Float64s
    n_samples: int
    kind: str

    def ranked(self) -> list[str]:
        """Keys, the most influential unit first."""
        return [self.keys[i] for i in np.argsort(-self.score, kind="stable")]


class LiveInfluence:
    """Follows spikes beside a running daemon.

    Args:
        bundle: the decoder in service.
        lead_s: how far ahead the daemon decodes.
        clock: times its own work; the thread's processor time unless given.
    """

    def __init__(
        self, bundle: DecoderBundle, lead_s: float = 0.0, clock: Clock | None = None
    ) -> None:
        manifest = bundle.manifest
        self._bundle, self._lead_s = bundle, lead_s
        self._clock = clock or ThreadClock()
        self._keys = tuple(unit.key for unit in manifest.units)
        self._rows = np.array([unit.row for unit in manifest.units])
        self._source_keys: Sequence[str] = ()
        self._row_of_source = np.zeros(0, np.int32)
        self._train = SpikeTrain(keep_s=2.0 * manifest.context_s + manifest.bin_s + 3.0)
        self._found: AdditivePushes | LeftOutPushes | None = None
        self._t_first_s: float | None = None
        self._t_last_s: float | None = None
        self._busy_s: list[float] = []
        self.cost = 0.0
        """Share of one core's time in the last updates."""

    def add(
        self, t_s: Float64s, keys: Sequence[str], unit: np.ndarray, count: np.ndarray | None = None
    ) -> None:
        """Take spikes in.

        Args:
            t_s: (n,) seconds on the daemon's clock.
            keys: the source's unit keys, a list that may grow.
            unit: (n,) index into `keys`; units that the bundle does not know are left out.
            count: (n,) spikes per entry; ones unless given.
        """
        if self._t_first_s is None and len(t_s):
            self._t_first_s = float(t_s.min())
        row = self._rows_of(keys)[unit]
        known = row >= 0
        self._train.add(t_s[known], row[known], None if count is None else count[known])

    def _rows_of(self, keys: Sequence[str]) -> np.ndarray:
        """(n_keys,) table rows, -1 where unknown."""
        if keys is not self._source_keys or len(keys) != len(self._row_of_source):
            row_of_key = self._bundle.row_of_key
            self._source_keys = keys
            self._row_of_source = np.array([row_of_key.get(key, -1) for key in keys], np.int32)
        return self._row_of_source

    def update(self, until_s: float) -> None:
        """Work through the spikes, about once a second.

        Args:
            until_s: the daemon's newest `t_window`; spikes up to here have come.

        Raises:
            BackendUnavailable, BundleError: at the first call, see `open_pushes`.
        """
        if self._found is None:
            first_s = until_s if self._t_first_s is None else min(self._t_first_s, until_s)
            self._found = open_pushes(self._bundle, self._lead_s, first_s)
        started_s = self._clock.now()
        self._found.advance(self._train, until_s)
        spent_s = self._clock.now() - started_s
        if self._t_last_s is not None and until_s > self._t_last_s:
            self._busy_s = [*self._busy_s[1 - COST_OVER :], spent_s / (until_s - self._t_last_s)]
            self.cost = float(np.median(self._busy_s))
            if len(self._busy_s) == COST_OVER and self.cost > SHARE_OF_TIME:
                self._found.slow_down()
                self._busy_s = []
        self._t_last_s = until_s

    def influences(self) -> dict[str, Influence]:
        """Return what is known of each output; empty while too little is."""
        pushes = None if self._found is None else self._found.pushes()
        if self._found is None or pushes is None or pushes.n < FEWEST_SAMPLES:
            return {}
        found, first = {}, 0
        for output in self._bundle.manifest.outputs:
            part = slice(first, first + output.dims)
            first += output.dims
            found[output.name] = self._influence(output.name, output.unit, part, pushes)
        return found

    def _influence(self, name: str, unit: str, part: slice, pushes: Pushes) -> Influence:
        assert self._found is not None
        score = np.linalg.norm(pushes.spread[self._rows, part], axis=1)
        per_spike = pushes.per_spike[self._rows, part]
        planar = per_spike.shape[1] == 2
        direction = np.arctan2(per_spike[:, -1], per_spike[:, 0])
        return Influence(
            output=name,
            unit=unit,
            keys=self._keys,
            score=score,
            share=score / max(float(score.sum()), 1e-12),
            now=pushes.now[self._rows, part],
            per_spike=per_spike,
            direction=direction if planar else np.full(len(score), np.nan),
            n_samples=pushes.n,
            kind=self._found.kind,
        )
