"""Adaptation in general: its options, its result, and a table row for a family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from calibration.adaptation.calibration_data import CalibrationData
from calibration.adaptation.scores import WindowOf
from export.bundle import DecoderBundle
from streams.messages import Float64s

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


@dataclass(frozen=True, slots=True)
class Adapter:
    """One decoder family's adaptation.

    Attributes:
        adapt: adapts a bundle to a prepared session.
        by_name: bundles of other programs' checkpoints do not say what their outputs were trained
            on; such outputs are read as the behaviour with the same name.
    """

    adapt: Callable[[DecoderBundle, CalibrationData, Options], Adapted]
    by_name: bool = False
