"""Manifest fields that follow from a training run, for every family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from decoders.config import TrainConfig
from decoders.streaming.shape import OutputSpec
from export.errors import ExportError

SMALLEST_BUCKET = 128


def find_session(sessions: Sequence[Mapping[str, Any]], wanted: str | None, path: Path) -> int:
    """Session index in a run; the last if none is named.

    Raises:
        ExportError: the run has no such session.
    """
    ids = [session["id"] for session in sessions]
    if wanted is None:
        return len(ids) - 1  # synthetic sessions come first
    if wanted not in ids:
        raise ExportError(f"{path} was not trained on session {wanted!r}; it has: {', '.join(ids)}")
    return ids.index(wanted)


def run_fields(
    config: TrainConfig,
    sessions: Sequence[Mapping[str, Any]],
    i_session: int,
    keys: Sequence[str],
    outputs: Sequence[OutputSpec],
    steps: int,
) -> dict[str, Any]:
    """Manifest fields, but for `name` and `graph`; a family may replace some.

    Args:
        config: the training's.
        sessions: records in the checkpoint.
        i_session: exported session.
        keys: the bundle's unit keys, ordered by row.
        outputs: the network's.
        steps: training steps.
    """
    # Synthetic sessions have rotated behaviour and units that do not exist.
    recorded = [session for session in sessions if not session.get("made_up")]
    chosen, hop_s, bin_s = sessions[i_session], config.beat.hop_ms / 1000, config.beat.bin_ms / 1000
    silence_s = max(session["longest_silence_s"] for session in recorded)
    return {
        "family": config.family,
        "session": chosen["id"],
        "units": [{"key": key, "row": row} for row, key in enumerate(keys)],
        "hop_s": hop_s,
        "bin_s": bin_s,
        "context_s": config.training.context_s,
        "stale_after_s": max(0.1, 2.0 * silence_s),
        "token_buckets": token_buckets(max(session["tokens_p999"] for session in recorded)),
        "lead_s": {"min": config.lead.min_s, "max": config.lead.max_s, "default": 0.0},
        "outputs": declared_outputs(config, outputs, recorded),
        "parity": {"atol_fp32": 1e-4},
        "training": {
            "unit_rates_hz": rates_hz(chosen, bin_s),
            "recipe": config.model_dump(mode="json"),
            "sessions": [session["id"] for session in recorded],
            "steps": steps,
        },
    }


def rates_hz(session: Mapping[str, Any], bin_s: float) -> dict[str, float]:
    """Each unit's rate in training; a running daemon compares today's rates with it."""
    per_bin = zip(session["unit_keys"], session.get("spikes_per_bin", ()), strict=False)
    return {key: spikes / bin_s for key, spikes in per_bin}


def token_buckets(n_tokens: float) -> list[int]:
    """Powers of two, up to the first that holds twice the most tokens in a training bin."""
    return buckets_up_to(2 * n_tokens)


def buckets_up_to(n_most: float) -> list[int]:
    """Powers of two, up to the first that holds `n_most` tokens."""
    buckets = [SMALLEST_BUCKET]
    while buckets[-1] < n_most:
        buckets.append(buckets[-1] * 2)
    return buckets


def declared_outputs(
    config: TrainConfig, outputs: Sequence[OutputSpec], sessions: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Outputs for the manifest; their bounds come from the training data."""
    low = np.min([session["low"] for session in sessions], axis=0)
    high = np.max([session["high"] for session in sessions], axis=0)
    fields, i_column = [], 0
    for choice, output in zip(config.outputs, outputs, strict=True):
        columns = slice(i_column, i_column + (1 if output.classes else output.dims))
        i_column = columns.stop
        bounds = (
            {"low": [-1e-6] * output.dims, "high": [1.0 + 1e-6] * output.dims}
            if output.classes
            else {"low": low[columns].tolist(), "high": high[columns].tolist()}
        )
        fields.append(
            {
                "name": output.name,
                "dims": output.dims,
                "unit": "probability" if output.classes else choice.unit,
                "safe": choice.safe,
                **bounds,
            }
        )
    return fields
