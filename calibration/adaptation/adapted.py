"""What adaptation gives, whichever family: all that a new bundle and its scores need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from calibration.adaptation.scores import WindowOf
from streams.messages import Float64s

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How to adapt, whichever family.

    Attributes:
        same_array: unit keys name the same channels as they did for the decoder.
        unfreeze: let the whole network learn too; a `streaming` one.
        follow_drift: let the decoder follow drift; a `streaming` one.
        seed: of everything that is drawn.
        on_progress: told steps done, and steps at most.
    """

    same_array: bool
    unfreeze: bool
    follow_drift: bool
    seed: int
    on_progress: Progress | None


@dataclass(frozen=True, slots=True)
class Adapted:
    """A decoder for a session.

    Attributes:
        graph: ONNX.
        tables: its inputs that belong to the session.
        spikes_per_bin: (U,) what units usually fire, by the tables.
        learnt: weights that are new or changed, named as in the bundle.
        window_of: cuts what the graph takes.
        lead_in_s: how long its memory is filled before the test part.
        start: what the embeddings began with.
        n_steps: gradient steps behind them.
        n_steps_unfrozen: steps in which the whole network learnt.
        n_tokens: tokens of each window that was learnt from.
        filter_share: by how much the linear filter counts, in each continuous output.
        training: entries of the manifest's `training` that differ from the base's.
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
