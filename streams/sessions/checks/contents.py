"""Contents that a reader found in a file, and how far they reach: stray samples are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from streams.errors import SessionError
from streams.messages import Float64s, Int32s
from streams.sessions.session import Behavior, Trials

Span = tuple[float, float]

STRAY_S, STRAY_SHARE = 60.0, 0.5
"""A few samples that make a session this much, and this share, longer are stray."""
LONGEST_HOLE_S = 43_200.0
"""Spikes in one recording do not stop for longer."""
FEW, FEW_UNITS = 1e-3, 0.05
"""Shares among spikes, and among units, that are few."""


@dataclass(frozen=True, slots=True)
class Spikes:
    """Spikes in file order.

    Attributes:
        keys: one a unit.
        key_kind: what the keys are: "row numbers", "id", a column, "electrodes" or "columns of
            counts".
        t_s: (n,) float64, seconds on the file's clock, not always finite or in order.
        unit: (n,) int32, index into `keys`, increasing where the file has units row by row.
        count: (n,) int32; None for one spike an entry.
    """

    keys: tuple[str, ...]
    key_kind: str
    t_s: Float64s
    unit: Int32s
    count: Int32s | None = None


@dataclass(frozen=True, slots=True)
class Contents:
    """A recording in seconds on the file's clock.

    Attributes:
        id: the session's.
        spikes: from the chosen units.
        behavior: by path.
        trials: None where there are none.
        provenance: where it came from.
        notes: what was left out or mended, in words.
        begins_s: where the session begins on the file's clock, if its writer says so.
        duration_s: how long it is, if its writer says so.
    """

    id: str
    spikes: Spikes
    behavior: Mapping[str, Behavior]
    trials: Trials | None
    provenance: Mapping[str, str]
    notes: list[str] = field(default_factory=list)
    begins_s: float | None = None
    duration_s: float | None = None


def span_s(t_s: np.ndarray) -> tuple[float, float] | None:
    """Return the first and last finite time."""
    finite = t_s[np.isfinite(t_s)]
    return (float(finite.min()), float(finite.max())) if len(finite) else None


def session_span(spikes: Spikes, behavior: Mapping[str, Behavior], file: str) -> Span:
    """Find the first and last time.

    Raises:
        SessionError: a few spikes, or one unit among many, decide how long that is.
    """
    require_no_stray_spikes(spikes, behavior, file)
    spans = [span_s(spikes.t_s), *(span_s(signal.t_s) for signal in behavior.values())]
    known = [span for span in spans if span is not None]
    return _joined(known) if known else (0.0, 0.0)


def _require_no_hole(t_s: Float64s, file: str) -> None:
    """Refuse spikes that stop for half a day, as in files whose parts have other clocks."""
    if len(t_s) < 2 or np.ptp(t_s) < LONGEST_HOLE_S:
        return
    ordered = np.sort(t_s)
    steps_s = np.diff(ordered)
    at = int(np.argmax(steps_s))
    parts = _ends(ordered[: at + 1]), _ends(ordered[at + 1 :])
    if steps_s[at] > max(LONGEST_HOLE_S, 10.0 * (_length(parts[0]) + _length(parts[1]))):
        raise SessionError(
            f"{file}: spikes lie at {span_text(parts[0])} and again at {span_text(parts[1])}, and "
            f"none for {steps_s[at] / 3600:.0f} h between: are they on one clock? to read one "
            f"part, write under [sessions]: {between_line(parts[0])} or {between_line(parts[1])}"
        )


def require_no_stray_samples(path: str, t_s: Float64s, file: str) -> None:
    """Refuse a series with a few time stamps far from all others.

    Raises:
        SessionError: with the config line that leaves them out.
    """
    rest = _without_few(t_s, [])
    if rest is None:
        return
    if is_stray(float(t_s.max()), rest, 1.0) or is_stray(float(t_s.min()), rest, -1.0):
        n_outside = np.count_nonzero((t_s > rest[1] + STRAY_S) | (t_s < rest[0] - STRAY_S))
        raise SessionError(
            f"{file}: {path}: {n_outside} of {len(t_s)} time stamps lie as far as "
            f"{span_text(_ends(t_s))}, all others at {span_text(rest)}; to leave them out, write "
            f"under [sessions]: {between_line(rest)}"
        )


def trials_inside(trials: Trials, span: Span) -> np.ndarray:
    """Return (n,) bool, True for trials within or near the span."""
    edges = np.stack([trials.start_s, trials.stop_s])
    beyond = np.fmax(edges - span[1], span[0] - edges)
    limit_s = max(STRAY_S, STRAY_SHARE * _length(span))
    outside = np.nan_to_num(beyond, nan=-np.inf, posinf=np.inf) > limit_s
    return np.asarray(~outside.any(axis=0))


def require_no_stray_spikes(spikes: Spikes, behavior: Mapping[str, Behavior], file: str) -> None:
    """Refuse a session that a few spikes, or one unit among many, make much longer.

    Raises:
        SessionError: with the line of the config that leaves them out.
    """
    finite = np.isfinite(spikes.t_s)
    t_s, unit = spikes.t_s[finite], spikes.unit[finite]
    spans = [span_s(signal.t_s) for signal in behavior.values()]
    others = [span for span in spans if span is not None]
    for rest in (_without_few(t_s, others), _without_few_units(t_s, unit, others)):
        if rest is None:
            continue
        if is_stray(float(t_s.max()), rest, 1.0) or is_stray(float(t_s.min()), rest, -1.0):
            outside = (t_s > rest[1] + STRAY_S) | (t_s < rest[0] - STRAY_S)
            who = [spikes.keys[i] for i in np.unique(unit[outside])]
            more = ", ..." if len(who) > 5 else ""
            raise SessionError(
                f"{file}: {np.count_nonzero(outside)} of {len(t_s)} spikes, of "
                f"{', '.join(who[:5])}{more}, lie at {span_text(_ends(t_s[outside]))}, while all "
                f"else lies at {span_text(rest)}: are they stray, or in another unit of time? to "
                f"leave them out, write under [sessions]: {between_line(rest)}"
            )
    _require_no_hole(t_s, file)


def _without_few(t_s: Float64s, others: Sequence[Span]) -> Span | None:
    """Return the span without a few times at either end."""
    n_few = max(1, int(FEW * len(t_s)))
    if len(t_s) <= 3 * n_few:
        return None
    ordered = np.sort(t_s)
    return _joined([_ends(ordered[n_few:-n_few]), *others])


def _without_few_units(t_s: Float64s, unit: np.ndarray, others: Sequence[Span]) -> Span | None:
    """Return the span without the few units that reach farthest, where there are many."""
    n_units = int(unit.max(initial=-1)) + 1
    n_few = max(1, int(FEW_UNITS * n_units))
    first, last = np.full(n_units, np.inf), np.full(n_units, -np.inf)
    np.minimum.at(first, unit, t_s)
    np.maximum.at(last, unit, t_s)
    fired = np.isfinite(first)
    if np.count_nonzero(fired) < 3 * n_few:
        return None
    starts, ends = np.sort(first[fired]), np.sort(last[fired])
    return _joined([(float(starts[n_few]), float(ends[-1 - n_few])), *others])


def _joined(spans: Sequence[Span]) -> Span:
    return min(first for first, _ in spans), max(last for _, last in spans)


def _ends(t_s: Float64s) -> Span:
    return float(t_s.min()), float(t_s.max())


def is_stray(edge: float, rest: Span, sign: float) -> bool:
    """Return True if an edge lies far beyond the rest, later (sign 1) or earlier (sign -1)."""
    beyond = edge - rest[1] if sign > 0 else rest[0] - edge
    return beyond > max(STRAY_S, STRAY_SHARE * _length(rest))


def cut_between(contents: Contents, between_s: Span) -> Contents:
    """Keep only the part between two file times."""
    first_s, last_s = between_s
    spikes = contents.spikes
    held = (spikes.t_s >= first_s) & (spikes.t_s <= last_s)
    count = None if spikes.count is None else spikes.count[held]
    behavior = {}
    for path, signal in contents.behavior.items():
        inside = (signal.t_s >= first_s) & (signal.t_s <= last_s)
        behavior[path] = Behavior(signal.t_s[inside], signal.values[inside], signal.unit)
    trials = contents.trials
    if trials is not None:
        trials = trials.rows((trials.start_s >= first_s) & (trials.stop_s <= last_s))
    kept = replace(spikes, t_s=spikes.t_s[held], unit=spikes.unit[held], count=count)
    return replace(
        contents, spikes=kept, behavior=behavior, trials=trials, begins_s=None, duration_s=None
    )


def _length(span: Span) -> float:
    return span[1] - span[0]


def span_text(span: Span) -> str:
    """A span for messages."""
    return f"{span[0]:.1f} to {span[1]:.1f} s"


def between_line(rest: Span) -> str:
    """Show the config line that reads a span alone."""
    return f"between_s = [{np.floor(rest[0]):.0f}, {np.ceil(rest[1]):.0f}]"
