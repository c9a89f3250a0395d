"""A session of neurons that no decoder has met, and the decoders to adapt to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from calibration.adaptation.adapt import adapt
from streams.messages import SpikeBatch
from streams.sessions.nwb.writer import write_session
from streams.sessions.session import Behavior, Session
from tests.decoders.sessions import VELOCITY, tuned_session

CONFIG = """
name = "made-up"
split = "last:0.25"
[sessions]
glob = ["day-*.nwb"]
[beat]
hop_ms = 40
bin_ms = 40
rotary = {rotary}
[[outputs]]
name = "velocity"
behavior = "velocity"
unit = "cm/s"
[[outputs]]
name = "phase"
behavior = "phase"
classes = 2
safe = "nan"
[network]
n_latents = 4
d_unit = 16
d_value = 16
d_model = 24
d_memory = 32
[training]
steps = 250
lanes = 8
window_s = 1.2
context_s = 0.4
learning_rate = 1e-2
dropout = 0.0
unit_dropout = 0.2
average = 0.9
"""
DURATION_S = 60.0


def adapted(
    folder: Path, out: Path, session: Session | None = None, **options: Any
) -> dict[str, Any]:
    """Adapt the decoder of counts to a session, `new.nwb` if None, in 20 s."""
    path = folder / "new.nwb"
    if session is not None:
        path = out.with_suffix(".nwb")
        write_session(session, path)
    return adapt(folder / "counts", path, out=out, **{"seconds": 20.0} | options)


def new_session() -> Session:
    """Thirteen units that no decoder has met."""
    session = tuned_session("new", 13, DURATION_S, seed=9)
    return replace(session, unit_keys=tuple(f"u{i + 100}" for i in range(13)))


def with_velocity(change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Session:
    """The new session, its velocity (n, 2) changed as a function of time and itself."""
    session = new_session()
    signal = session.behavior[VELOCITY]
    changed = Behavior(signal.t_s, change(signal.t_s, signal.values), signal.unit)
    return replace(session, behavior={**session.behavior, VELOCITY: changed})


def shifted(session: Session, key: str, from_s: float, hz: float) -> Session:
    """One unit fires so much more from a time on, evenly."""
    more = np.arange(from_s, session.duration_s, 1.0 / hz)
    spikes, unit = session.spikes, session.unit_keys.index(key)
    t_us = np.concatenate([spikes.t_us, np.round(more * 1e6).astype(np.int64)])
    order = np.argsort(t_us, kind="stable")
    units = np.concatenate([spikes.unit, np.full(len(more), unit, np.int32)])[order]
    count = np.concatenate([spikes.count, np.ones(len(more), np.int32)])[order]
    return replace(session, spikes=SpikeBatch(t_us[order], units, count))
