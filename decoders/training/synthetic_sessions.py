"""Synthetic sessions: recordings of units that do not exist, made from those that do.

A decoder with one session has seen few units, and knows little about units. This module makes
others: it blends two units, leaves out some of their spikes, shifts them in time and rotates the
behaviour about its mean. A decoder trained on such sessions too adapts better to unseen units.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np

from streams.messages import Int64s, SpikeBatch
from streams.sessions.session import Behavior, Session

BLENDED = 0.5
LEAST_KEPT = 0.6
MOST_SHIFTED_S = 0.15
LARGEST_ROTATED = 3
"""Vectors of more dimensions are not rotated: one muscle cannot stand for another."""


def synthetic_sessions(
    session: Session, n: int, *, hop_us: int, as_they_are: Collection[str], seed: int
) -> Iterator[Session]:
    """Make sessions with as many units as the recording, and its behaviour rotated.

    Args:
        session: the recording.
        n: how many sessions.
        hop_us: spikes shift by whole hops, so that counts stay in their bins.
        as_they_are: behaviours that are not rotated: classes.
        seed: for all draws.
    """
    trains = [session.spikes.t_us[session.spikes.unit == i] for i in range(len(session.unit_keys))]
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        rotated = _rotated(session, rng, as_they_are)
        yield replace(
            session,
            id=f"{session.id} made-up {i}",
            unit_keys=tuple(f"made-up-{i}/{key}" for key in session.unit_keys),
            spikes=_spikes(trains, round(session.duration_s * 1e6), hop_us, rng),
            behavior=rotated,
        )


def _spikes(
    trains: list[Int64s], duration_us: int, hop_us: int, rng: np.random.Generator
) -> SpikeBatch:
    n_most = round(MOST_SHIFTED_S * 1e6 / hop_us)
    made = []
    for _ in trains:
        chosen = rng.integers(len(trains), size=1 + (rng.random() < BLENDED))
        kept = [trains[j][rng.random(len(trains[j])) < rng.uniform(LEAST_KEPT, 1)] for j in chosen]
        t_us = np.unique(np.concatenate(kept)) + rng.integers(-n_most, n_most + 1) * hop_us
        made.append(t_us[(t_us > 0) & (t_us <= duration_us)])
    t_us = np.concatenate(made)
    unit = np.repeat(np.arange(len(made), dtype=np.int32), [len(one) for one in made])
    order = np.argsort(t_us, kind="stable")
    return SpikeBatch(t_us[order], unit[order], np.ones(len(order), np.int32))


def _rotated(
    session: Session, rng: np.random.Generator, as_they_are: Collection[str]
) -> dict[str, Behavior]:
    """Rotate or mirror vectors with one length alike, about their mean."""
    rotations = {n: _rotation(n, rng) for n in range(1, LARGEST_ROTATED + 1)}
    rotated = dict(session.behavior)
    for name, signal in session.behavior.items():
        rotation = rotations.get(signal.values.shape[1])
        if rotation is not None and name not in as_they_are and np.isfinite(signal.values).any():
            middle = np.nanmean(signal.values, axis=0)
            values = (signal.values - middle) @ rotation.T + middle
            rotated[name] = replace(signal, values=values)
    return rotated


def _rotation(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a random orthogonal matrix."""
    basis, upper = np.linalg.qr(rng.normal(size=(n, n)))
    rotation: np.ndarray = basis * np.sign(np.diag(upper))
    return rotation
