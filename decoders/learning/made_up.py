"""Made-up sessions: what a recording would have shown of other neurons, had there been any.

A decoder of one session has met few units, and knows little of units in general. From those few,
others are made: two of them blended, some of their spikes left out, leading or lagging by more or
less, in a world that is turned about its middle. A decoder that also learns from such sessions is
adapted better to neurons that it has never met.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np

from decoders.streaming.turning import LARGEST_TURNED
from streams.messages import Int64s, SpikeBatch
from streams.sessions.session import Behavior, Session

BLENDED = 0.5
LEAST_KEPT = 0.6
MOST_SHIFTED_S = 0.15


def made_up_sessions(
    session: Session, n: int, *, hop_us: int, as_they_are: Collection[str], seed: int
) -> Iterator[Session]:
    """Sessions of as many made-up units each, with the behaviour of the recording, turned.

    Args:
        session: the recording.
        n: how many.
        hop_us: spikes are moved by whole multiples of this, so that counts stay in their bins.
        as_they_are: behaviours that are not turned: those of classes.
        seed: of everything that is drawn.
    """
    trains = [session.spikes.t_us[session.spikes.unit == i] for i in range(len(session.unit_keys))]
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        turned = _turned(session, rng, as_they_are)
        yield replace(
            session,
            id=f"{session.id} made-up {i}",
            unit_keys=tuple(f"made-up-{i}/{key}" for key in session.unit_keys),
            spikes=_spikes(trains, round(session.duration_s * 1e6), hop_us, rng),
            behavior=turned,
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


def _turned(
    session: Session, rng: np.random.Generator, as_they_are: Collection[str]
) -> dict[str, Behavior]:
    """Every vector of the same length turned or mirrored alike, about its mean."""
    turns = {n: _turn(n, rng) for n in range(1, LARGEST_TURNED + 1)}
    turned = dict(session.behavior)
    for name, signal in session.behavior.items():
        turn = turns.get(signal.values.shape[1])
        if turn is not None and name not in as_they_are and np.isfinite(signal.values).any():
            middle = np.nanmean(signal.values, axis=0)
            values = (signal.values - middle) @ turn.T + middle
            turned[name] = replace(signal, values=values)
    return turned


def _turn(n: int, rng: np.random.Generator) -> np.ndarray:
    """A random orthogonal matrix."""
    basis, upper = np.linalg.qr(rng.normal(size=(n, n)))
    turn: np.ndarray = basis * np.sign(np.diag(upper))
    return turn
