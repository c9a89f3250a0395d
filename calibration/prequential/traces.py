"""Decodes of a sequence of decoders, their R2, and the gain to be expected from more data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.scoring import drawn_blocks, interval_95, resampled_r2
from streams.messages import Float64s, Int64s
from streams.r2 import r2_score

N_RESAMPLES = 200
AHEAD_S = 30.0
"""The gain is expected of so much more data."""
SURE = 0.9
"""Share of the draws that must lie below the gain which is told."""
FEWEST_PAIRS = 6
DECODERS = ("today", "yesterday", "wiener", "shuffled")
HALF = "half"
"""The decoder that was made from about half of the data of today's."""


@dataclass(frozen=True, slots=True)
class Traces:
    """Scored bins, in order of time.

    Attributes:
        t_s: (n,) each bin's end, seconds in the session.
        block: (n,) number of its trial.
        learnt_s: (n,) seconds before which the decoder's data ended.
        half_s: (n,) the same of the half decoder; NaN for none.
        actual: (n, dims).
        decodes: (n, dims) by name of the decoder.
    """

    t_s: Float64s
    block: Int64s
    learnt_s: Float64s
    half_s: Float64s
    actual: Float64s
    decodes: Mapping[str, Float64s]

    def __len__(self) -> int:
        """Bins."""
        return len(self.t_s)

    @property
    def n_trials(self) -> int:
        """Trials."""
        return len(np.unique(self.block))

    def of(self, chosen: np.ndarray) -> Traces:
        """Some of the bins."""
        return Traces(
            self.t_s[chosen],
            self.block[chosen],
            self.learnt_s[chosen],
            self.half_s[chosen],
            self.actual[chosen],
            {name: values[chosen] for name, values in self.decodes.items()},
        )

    def save(self, path: Path) -> None:
        """Write them as npz; read by `load`."""
        fields = {"t_s": self.t_s, "block": self.block, "learnt_s": self.learnt_s}
        fields |= {"half_s": self.half_s, "actual": self.actual}
        np.savez_compressed(path, **fields, **self.decodes)  # type: ignore[arg-type]


def load(path: Path) -> Traces:
    """Read what `Traces.save` wrote."""
    with np.load(path) as kept:
        return Traces(
            t_s=kept["t_s"],
            block=kept["block"],
            learnt_s=kept["learnt_s"],
            half_s=kept["half_s"],
            actual=kept["actual"],
            decodes={name: kept[name] for name in (*DECODERS, HALF)},
        )


def joined(parts: Sequence[Traces]) -> Traces:
    """Several as one, in order; at least one."""
    return Traces(
        t_s=np.concatenate([part.t_s for part in parts]),
        block=np.concatenate([part.block for part in parts]),
        learnt_s=np.concatenate([part.learnt_s for part in parts]),
        half_s=np.concatenate([part.half_s for part in parts]),
        actual=np.concatenate([part.actual for part in parts]),
        decodes={
            name: np.concatenate([p.decodes[name] for p in parts]) for name in parts[0].decodes
        },
    )


def second_half(traces: Traces) -> Traces:
    """Keep the trials after half of the time.

    Their decoders knew at least half as much as the last one, so their score is close to its
    own, and they are enough for an interval.
    """
    newest_s = float(traces.t_s[-1]) if len(traces) else 0.0
    return traces.of(traces.t_s > newest_s / 2.0)


@dataclass(frozen=True, slots=True)
class Recent:
    """R2 of the newest trials, mean over dimensions, each before it was learnt.

    Attributes:
        n_trials: how many these are.
        today: of the decoders that were made before each of them.
        yesterday: of yesterday's.
        shuffled: of today's with its units shuffled.
    """

    n_trials: int = 0
    today: float = 0.0
    yesterday: float = 0.0
    shuffled: float = 0.0


def recent(traces: Traces | None, n_trials: int) -> Recent:
    """Score the newest trials, so many at most."""
    if traces is None:
        return Recent()
    newest = np.unique(traces.block)[-n_trials:]
    kept = traces.of(traces.block >= newest[0])
    r2 = {
        name: float(np.mean(r2_score(kept.decodes[name], kept.actual)))
        for name in ("today", "yesterday", "shuffled")
    }
    return Recent(
        len(newest), **{name: one if np.isfinite(one) else 0.0 for name, one in r2.items()}
    )


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """R2 of the second half's trials, mean over dimensions, after some data.

    Attributes:
        seconds: of the session.
        n_trials: scored.
        r2: each trial by the decoder that was made before it.
        ci: 95 % interval over trials.
    """

    seconds: float
    n_trials: int
    r2: float
    ci: tuple[float, float]


def curve_point(traces: Traces, seconds: float, seed: int) -> CurvePoint:
    """Score what there is so far."""
    kept = second_half(traces)
    drawn = resampled_r2(
        kept.decodes["today"], kept.actual, kept.block, seed=seed, n_resamples=N_RESAMPLES
    ).mean(axis=1)
    low, high = interval_95(drawn[1:]).tolist()
    return CurvePoint(seconds, traces.n_trials, float(drawn[0]), (low, high))


@dataclass(frozen=True, slots=True)
class ExpectedGain:
    """R2 that `AHEAD_S` more of data are expected to bring.

    Attributes:
        mean: expected.
        most: at most, as sure as `SURE`.
    """

    mean: float
    most: float


def expected_gain(traces: Traces, seconds: float, seed: int) -> ExpectedGain | None:
    """Estimate what more data bring; None while too few trials tell.

    Each trial is decoded by two decoders, of which one knows about half as much. An error that
    falls as one over the time ties their difference to what is still to be gained. Differences on
    the same trials vary far less than R2 does along the sequence.

    Args:
        traces: so far.
        seconds: of data that the newest decoder knows.
        seed: for the draws.
    """
    kept = second_half(traces)
    kept = kept.of(np.isfinite(kept.half_s))
    spread = np.square(kept.actual - kept.actual.mean(axis=0)).sum(axis=0) if len(kept) else 0.0
    if kept.n_trials < FEWEST_PAIRS or not np.all(spread > 0.0):
        return None
    better = np.square(kept.decodes[HALF] - kept.actual) - np.square(
        kept.decodes["today"] - kept.actual
    )
    r2 = (better / spread).mean(axis=1)
    less = (1.0 / kept.half_s - 1.0 / kept.learnt_s) / len(kept)
    _, i_block = np.unique(kept.block, return_inverse=True)
    sums = np.stack([np.bincount(i_block, r2), np.bincount(i_block, less)], axis=1)
    drawn = drawn_blocks(len(sums), seed, N_RESAMPLES) @ sums
    gain = drawn[:, 0] / drawn[:, 1] * (1.0 / seconds - 1.0 / (seconds + AHEAD_S))
    return ExpectedGain(float(gain[0]), float(np.quantile(gain[1:], SURE)))
