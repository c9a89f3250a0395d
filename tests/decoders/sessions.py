"""Small sessions made up for the tests of training."""

from __future__ import annotations

from typing import Any

import numpy as np

from decoders.config import TrainConfig, parse_config
from streams.messages import SpikeBatch
from streams.sessions.session import Behavior, Session, Trials

VELOCITY = "processing/behavior/BehavioralTimeSeries/velocity"
PHASE = "processing/behavior/BehavioralTimeSeries/phase"


def tuned_session(
    name: str = "one", n_units: int = 8, duration_s: float = 40.0, seed: int = 0
) -> Session:
    """Units whose rate follows a slow two-dimensional velocity; a class for its sign."""
    rng = np.random.default_rng(seed)
    t_s = np.arange(0.0, duration_s, 0.01)
    velocity = np.stack([np.sin(2.0 * t_s), np.cos(1.3 * t_s)], axis=1) * 10.0
    angle = np.linspace(0.0, 2.0 * np.pi, n_units, endpoint=False)
    rate_hz = 20.0 * np.exp(velocity / 10.0 @ np.stack([np.cos(angle), np.sin(angle)]))
    i_sample, unit = np.nonzero(rng.random(rate_hz.shape) < rate_hz * 0.01)
    t_us = (i_sample * 10_000 + rng.integers(1, 10_000, len(i_sample))).astype(np.int64)
    order = np.argsort(t_us, kind="stable")
    ones = np.ones(len(order), np.int32)
    starts = np.arange(0.0, duration_s, 2.0)
    return Session(
        id=f"made-up/2026-01-01/{name}",
        unit_keys=tuple(f"u{i}" for i in range(n_units)),
        spikes=SpikeBatch(t_us[order], unit[order].astype(np.int32), ones),
        behavior={
            VELOCITY: Behavior(t_s, velocity, "cm/s"),
            PHASE: Behavior(t_s, (velocity[:, :1] > 0).astype(np.float64), "class"),
        },
        trials=Trials(starts, starts + 1.5),
        duration_s=duration_s,
    )


def small_config(**changes: Any) -> TrainConfig:
    """A network and recipe small enough for a test; `changes` replace whole sections."""
    fields: dict[str, Any] = {
        "name": "small",
        "sessions": {"glob": ["*.nwb"]},
        "outputs": [
            {"name": "velocity", "behavior": "velocity", "unit": "cm/s"},
            {"name": "phase", "behavior": "phase", "classes": 2, "safe": "nan"},
        ],
        "lead": {"min_s": -0.04, "max_s": 0.1},
        "network": {"n_latents": 3, "d_unit": 8, "d_value": 6, "d_model": 12, "d_memory": 16},
        "training": {"steps": 12, "lanes": 4, "window_s": 0.8, "context_s": 0.4},
    }
    return parse_config(fields | changes, "the test")
