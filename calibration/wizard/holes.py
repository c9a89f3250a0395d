"""Times in which a stream was away: nothing is learnt from them, nor are their trials used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from export.bundle import DecoderBundle
from streams.messages import Float64s
from streams.sessions.convert.convert import PARTS_APART_S
from streams.sessions.session import Behavior, Session, Trials

LEAST_S = PARTS_APART_S + 0.5
"""A shorter silence is no hole, nor is the time between two recordings."""


@dataclass(frozen=True, slots=True)
class Hole:
    """A time without samples, in seconds of the session."""

    what: str
    from_s: float
    to_s: float

    def __str__(self) -> str:
        return f"no {self.what} from {self.from_s:.1f} to {self.to_s:.1f} s"


def longest_silence_s(bundle: DecoderBundle) -> float:
    """How long all units together may be silent without a hole."""
    return max(LEAST_S, bundle.manifest.stale_after_s)


def holes_of(session: Session, behaviors: Sequence[str], longest_s: float) -> list[Hole]:
    """Find where spikes, or samples of a behaviour, are away for longer than `longest_s`.

    Args:
        session: collected.
        behaviors: names of the signals that the decoder follows.
        longest_s: seconds.
    """
    sources: dict[str, Float64s] = {"spikes": (session.spikes.t_us * 1e-6).astype(np.float64)}
    for name in behaviors:
        sources[name] = session.signal(name).t_s
    return [
        Hole(what, float(begin_s), float(end_s))
        for what, t_s in sources.items()
        for begin_s, end_s in _gaps(t_s, session.duration_s, longest_s)
    ]


def without(session: Session, holes: Sequence[Hole]) -> Session:
    """The session without the trials in holes; behaviour is unknown there, an end is cut off."""
    if not holes:
        return session
    ends_s = [hole.from_s for hole in holes if hole.to_s >= session.duration_s]
    return replace(
        session,
        behavior={name: _masked(signal, holes) for name, signal in session.behavior.items()},
        trials=None if session.trials is None else _outside(session.trials, holes),
        duration_s=min(ends_s, default=session.duration_s),
    )


def left_out(session: Session, holes: Sequence[Hole]) -> str:
    """Say which times, and how many trials, are not used; "" for none."""
    if not holes:
        return ""
    n = len(session.trials or ()) - len(without(session, holes).trials or ())
    named = "; ".join(str(hole) for hole in holes)
    return f"{named}: nothing is learnt from that, and {n} trials are not used"


def seconds_left(session: Session, holes: Sequence[Hole]) -> float:
    """How much of a session lies outside of holes."""
    left_s, begin_s = session.duration_s, 0.0
    for hole in sorted(holes, key=lambda one: one.from_s):
        left_s -= max(0.0, hole.to_s - max(hole.from_s, begin_s))
        begin_s = max(begin_s, hole.to_s)
    return left_s


def _gaps(t_s: Float64s, duration_s: float, longest_s: float) -> np.ndarray:
    """(n, 2) begin and end of every gap in sorted stamps, and at both ends."""
    edges_s = np.concatenate([[0.0], t_s, [duration_s]])
    i = np.flatnonzero(np.diff(edges_s) > longest_s)
    return np.stack([edges_s[i], edges_s[i + 1]], axis=1)


def _masked(signal: Behavior, holes: Sequence[Hole]) -> Behavior:
    values = signal.values.copy()
    for hole in holes:
        values[(signal.t_s > hole.from_s) & (signal.t_s < hole.to_s)] = np.nan
    return replace(signal, values=values)


def _outside(trials: Trials, holes: Sequence[Hole]) -> Trials:
    kept = np.ones(len(trials), np.bool_)
    for hole in holes:
        kept &= ~((trials.start_s < hole.to_s) & (trials.stop_s > hole.from_s))
    columns = {name: column[kept] for name, column in trials.columns.items()}
    return Trials(trials.start_s[kept], trials.stop_s[kept], columns)
