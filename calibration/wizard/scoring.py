"""Decoders scored beside each other: R2 with intervals over trials, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping

from calibration.prequential.traces import DECODERS, Traces
from calibration.scoring import interval_95, resampled_r2
from calibration.wizard.results import DecoderScore, Gain
from streams.messages import Float64s, Int64s

# Drawn with one seed for all decoders, so that differences are paired.
N_RESAMPLES = 2000


def score_decoders(
    decodes: Mapping[str, Float64s],
    actual: Float64s,
    block: Int64s,
    seed: int,
    n_resamples: int = N_RESAMPLES,
) -> tuple[dict[str, DecoderScore], dict[str, Gain]]:
    """Score each decoder, and today's above each other on the same draws.

    Args:
        decodes: (n, dims) by name, "today" among them.
        actual: (n, dims).
        block: (n,) which trial each belongs to.
        seed: for the draws.
        n_resamples: draws.
    """
    decoders, means = {}, {}
    for name, values in decodes.items():
        drawn = resampled_r2(values, actual, block, seed=seed, n_resamples=n_resamples)
        means[name] = mean = drawn.mean(axis=1)
        decoders[name] = DecoderScore(
            r2=drawn[0].tolist(),
            ci=interval_95(drawn[1:]).T.tolist(),
            mean=float(mean[0]),
            mean_ci=interval_95(mean[1:]).tolist(),
        )
    differences = {name: means["today"] - mean for name, mean in means.items() if name != "today"}
    gains = {
        name: Gain(float(drawn[0]), interval_95(drawn[1:]).tolist())
        for name, drawn in differences.items()
    }
    return decoders, gains


def scores_of(
    traces: Traces, seed: int, n_resamples: int = N_RESAMPLES
) -> tuple[dict[str, DecoderScore], dict[str, Gain]]:
    """Score a sequence's trials."""
    decodes = {name: traces.decodes[name] for name in DECODERS}
    return score_decoders(decodes, traces.actual, traces.block, seed, n_resamples)
