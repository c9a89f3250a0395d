"""Adaptation in general: its options, its result, a table row of a family, and its bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calibration.adaptation.calibration_data import CalibrationData
from calibration.adaptation.scores import WindowOf
from export.backends.onnxruntime_cpu import record_parity
from export.bundle import DecoderBundle, write_bundle
from export.parity import random_tokens
from streams.messages import Float64s

PARITY_S = 4.0
INHERITED = (
    "family", "session", "units", "hop_s", "bin_s", "context_s", "stale_after_s", "token_buckets",
    "lead_s", "outputs", "graph", "parity", "training",
)  # fmt: skip


Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Options:
    """Adaptation options.

    Attributes:
        same_array: unit keys name the same channels as they did for the decoder.
        unfreeze: train the whole network too, where the family can.
        follow_drift: let the decoder follow drift, where the family can.
        seed: for all draws.
        on_progress: told steps done, and steps at most.
    """

    same_array: bool
    unfreeze: bool
    follow_drift: bool
    seed: int
    on_progress: Progress | None


@dataclass(frozen=True, slots=True)
class Adapted:
    """An adapted decoder: all that its bundle and its scores need.

    Attributes:
        graph: ONNX.
        tables: graph inputs that belong to the session.
        spikes_per_bin: (U,) each unit's mean spikes, as in the tables.
        learnt: weights that are new or changed, named as in the bundle.
        window_of: cuts the tokens that the graph takes.
        lead_in_s: seconds decoded before the test part, to fill the memory.
        start: name of the embeddings' start.
        n_steps: gradient steps on them.
        n_steps_unfrozen: gradient steps on the whole network.
        n_tokens: tokens in each window that was learnt from.
        filter_share: the linear filter's weight in each continuous output.
        training: entries in the manifest's `training` that differ from the base's.
        unseen: (n_bins, n_dims) each held-out labelled bin in physical units, decoded by tables
            that were made without its trial; NaN elsewhere, None where none was held out.
    """

    graph: bytes
    tables: Mapping[str, np.ndarray]
    spikes_per_bin: Float64s
    learnt: Mapping[str, np.ndarray]
    window_of: WindowOf
    lead_in_s: float
    start: str
    n_steps: int
    n_steps_unfrozen: int
    n_tokens: np.ndarray
    filter_share: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    unseen: Float64s | None = None


Adapt = Callable[[DecoderBundle, CalibrationData, Options], Adapted]


@dataclass(frozen=True, slots=True)
class Adapter:
    """One decoder family's adaptation.

    Attributes:
        gradient: adapts a bundle to a prepared session.
        closed_form: does so without gradient; None where the family cannot.
        by_name: bundles of other programs' checkpoints do not say what their outputs were trained
            on; such outputs are read as the behaviour with the same name.
    """

    gradient: Adapt
    closed_form: Adapt | None = None
    by_name: bool = False


def write_child(
    out: Path,
    parent: DecoderBundle,
    fields: Mapping[str, Any],
    *,
    graph: bytes,
    tables: Mapping[str, np.ndarray],
    learnt: Mapping[str, np.ndarray],
) -> DecoderBundle:
    """Write a bundle.

    Args:
        out: directory to write; must not exist.
        parent: the decoder that it was made from.
        fields: for the manifest, where they differ from the parent's.
        graph: ONNX, with the parent's signature.
        tables: the graph's.
        learnt: weights that the parent does not have or has otherwise.

    Raises:
        export.errors.ExportError: `out` cannot be written.
    """
    said, signature = parent.manifest.model_dump(mode="json"), parent.manifest.graph
    own = {field: said[field] for field in INHERITED} | {"parent_id": said["id"], "name": out.name}
    own |= dict(fields)
    tokens = random_tokens(
        np.random.default_rng(0),
        n_rows=len(own["units"]),
        n_beats=round(PARITY_S / own["hop_s"]),
        bin_s=own["bin_s"],
        n_most=own["token_buckets"][-1],
        leads_s=parent.manifest.lead_s.ends,
    )
    names = [output.name for output in parent.manifest.outputs]
    return write_bundle(
        out,
        own,
        graph=graph,
        tables=tables,
        weights={**parent.weights(), **learnt},
        parity=record_parity(graph, signature, tables, tokens, names),
    )
