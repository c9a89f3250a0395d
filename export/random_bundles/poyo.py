"""POYO with random weights, the published 1.3M network, for measuring a decode's cost."""

from __future__ import annotations

from pathlib import Path

import torch

from decoders.poyo.config import poyo_small
from decoders.poyo.step import PoyoStep
from decoders.streaming.decoder import OutputSpec
from export.bundle import DecoderBundle
from export.graphs.poyo import write_step

SMALLEST_BUCKET = 128


def random_poyo(out: Path, *, n_units: int = 10, seed: int = 0) -> DecoderBundle:
    """Write a POYO 1.3M bundle with random weights.

    Args:
        out: a directory that does not exist yet.
        n_units: rows in its table.
        seed: for the weights.

    Raises:
        BundleError: `out` exists.
    """
    torch.manual_seed(seed)
    step = PoyoStep(poyo_small(dim_out=2), [OutputSpec("velocity", 2)], n_units)
    step.tabulate()
    window_s = step.config.sequence_s
    return write_step(
        out,
        step.eval(),
        {
            "session": "nobody/2000-01-01/random",
            "units": [{"key": f"u{row}", "row": row} for row in range(n_units)],
            "hop_s": window_s,
            "lead_s": {"min": -window_s, "max": 0.0, "default": 0.0},
            "stale_after_s": 1.0,
            "token_buckets": [SMALLEST_BUCKET],
            "outputs": [
                {"name": "velocity", "dims": 2, "unit": "normalised", "safe": "zero"}
                | {"low": [-5.0, -5.0], "high": [5.0, 5.0]}
            ],
            "training": {"note": "random weights: this decodes nothing"},
        },
    )
