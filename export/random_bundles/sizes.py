"""Decoders with random weights in several sizes, for measuring a decode's cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from decoders.config import DEFAULT_FAMILY
from decoders.poyo.config import PoyoConfig, poyo_large, poyo_small
from decoders.poyo.network import Poyo
from decoders.poyo.step import step_of_session
from decoders.streaming.linear_filter import SERVES_TO_S, TAPS_S
from decoders.streaming.shape import OutputSpec, StreamingConfig
from decoders.streaming.step import StepModule, unadapted
from export.bundle import DecoderBundle
from export.errors import ExportError
from export.graphs.poyo import write_step
from export.graphs.step_bundle import write_step_bundle
from export.graphs.streaming import streaming_graph

RATE_HZ = 20.0
N_PARITY_BEATS = 20
VELOCITY = OutputSpec("velocity", 2)
STREAMING: Mapping[str, Mapping[str, int]] = {
    "streaming-0.5M": {},
    "streaming-8M": {"d_model": 704, "d_memory": 1088, "d_readout": 256},
    "streaming-50M": {"d_model": 1472, "d_memory": 3008, "d_readout": 512},
}
POYO: Mapping[str, Callable[[int], PoyoConfig]] = {
    "poyo-1.3M": poyo_small,
    "poyo-11.8M": poyo_large,
}
SIZES = (*STREAMING, *POYO)


def write_random(
    out: Path, size: str, *, n_units: int, hop_s: float, bin_s: float
) -> DecoderBundle:
    """Write a bundle whose largest bucket is what its units fire at 20 Hz each.

    Args:
        out: a directory that does not exist yet.
        size: a name in `SIZES`.
        n_units: rows in its table.
        hop_s: seconds between beats.
        bin_s: `streaming` bin length; POYO takes its window.

    Raises:
        ExportError: no such size, or `out` exists.
    """
    if size not in SIZES:
        raise ExportError(f"no size {size!r}; there are: {', '.join(SIZES)}")
    torch.manual_seed(0)
    fields = _fields(n_units, hop_s)
    if size in POYO:
        config = POYO[size](VELOCITY.dims)
        buckets = [round(n_units * RATE_HZ * config.sequence_s)]
        return _write_poyo(out, config, fields | {"token_buckets": buckets})
    streaming = StreamingConfig(
        (VELOCITY,), bin_s, taps_s=TAPS_S, serves_to_s=SERVES_TO_S, **STREAMING[size]
    )
    buckets = [round(n_units * RATE_HZ * bin_s)]
    return _write_streaming(out, streaming, fields | {"token_buckets": buckets})


def random_poyo(out: Path) -> DecoderBundle:
    """Write the published POYO 1.3M with random weights, for 10 units and one window a hop.

    Raises:
        BundleError: `out` exists.
    """
    torch.manual_seed(0)
    config = poyo_small(VELOCITY.dims)
    fields = _fields(10, config.sequence_s) | {"token_buckets": [128]}
    return _write_poyo(out, config, fields)


def _fields(n_units: int, hop_s: float) -> dict[str, Any]:
    bounds = {"low": [-1e3] * VELOCITY.dims, "high": [1e3] * VELOCITY.dims}
    velocity = {"name": VELOCITY.name, "dims": VELOCITY.dims, "unit": "cm/s", **bounds}
    return {
        "session": "nobody/2000-01-01/random-weights",
        "units": [{"key": f"u{row}", "row": row} for row in range(n_units)],
        "hop_s": hop_s,
        "lead_s": {"min": 0.0, "max": 0.0, "default": 0.0},
        "stale_after_s": 1.0,
        "outputs": [velocity],
        "training": {"note": "random weights: this decodes nothing"},
    }


def _write_poyo(out: Path, config: PoyoConfig, fields: Mapping[str, Any]) -> DecoderBundle:
    words = [unit["key"] for unit in fields["units"]]
    network = Poyo(config, words, ["session"]).eval()
    ones = [1.0] * VELOCITY.dims
    step = step_of_session(network, "session", words, [VELOCITY], [0.0] * VELOCITY.dims, ones)
    return write_step(out, step, fields)


@torch.no_grad()
def _write_streaming(
    out: Path, config: StreamingConfig, fields: Mapping[str, Any]
) -> DecoderBundle:
    n_units = len(fields["units"])
    step = StepModule(config).eval()
    rows = step.decoder.encoder.fold(torch.randn(n_units, config.d_unit))
    per_bin = torch.full((n_units,), RATE_HZ * config.bin_s)
    centre = step.decoder.encoder.centre(rows, per_bin)
    tables = {"table": rows, "session": torch.zeros(config.d_readout), "centre": centre}
    own = {
        "family": DEFAULT_FAMILY,
        "bin_s": config.bin_s,
        "context_s": 1.0,
        "training": {**fields["training"], "config": config.to_dict()},
    }
    return write_step_bundle(
        out,
        step,
        streaming_graph(step),
        {**fields, **own},
        tables=tables | unadapted(n_units, config),
        weights=step.state_dict(),
        n_beats=N_PARITY_BEATS,
    )
