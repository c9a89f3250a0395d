"""When a session begins and ends, and refusals of times that cannot be meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from streams.messages import Float64s
from streams.session import Behavior, SessionError, Trials
from streams.sessions.contents import Contents, Spikes, span_s

Span = tuple[float, float]

RATES_HZ = (1e3, 1e4, 2e4, 24414.0625, 2.5e4, 3e4, 3.2e4, 4e4, 4.8e4, 5e4, 1e6, 1e9)
"""Ticks a second that files have for seconds: milliseconds, amplifiers' rates, micro, nano."""
IMPLAUSIBLE = 300.0
"""Spikes and behaviour of one session never differ so much in length."""
FEWEST_SAMPLES = 20
"""From fewer samples nothing is concluded."""
STRAY_S, STRAY_SHARE = 60.0, 0.5
"""A few samples that make a session this much, and this share, longer are stray."""
FEW, FEW_UNITS = 1e-3, 0.05
"""Shares of the spikes, and of the units, that are few."""


def plausible_behavior(path: str, spikes: Spikes, signal: Behavior, file: str) -> None:
    """Refuse behaviour that is not on the spikes' clock, or goes on long after them.

    Raises:
        SessionError: with the line of the config that would read it.
    """
    fired, seen = span_s(spikes.t_s), span_s(signal.t_s)
    if fired is None or seen is None:
        return
    told = f"{file}: spikes lie at {_said(fired)} and {path} at {_said(seen)}"
    if len(signal.t_s) > FEWEST_SAMPLES:
        _require_one_unit_of_time(told, spikes.t_s, signal.t_s)
        if fired[0] > seen[1] or seen[0] > fired[1]:
            raise SessionError(
                f"{told}: they have no time in common, so they are not on one clock; ask the "
                "file's makers, or write it again with both in seconds from the session's start"
            )
    if _is_stray(seen[1], fired, 1.0) or _is_stray(seen[0], fired, -1.0):
        raise SessionError(
            f"{told}: to read what lies beside spikes alone, write under [sessions]: "
            f"{_between(fired)}"
        )


def _require_one_unit_of_time(told: str, fired_s: Float64s, seen_s: Float64s) -> None:
    """Refuse spikes and behaviour of which one is counted in other units than the other."""
    lengths = [float(np.ptp(t_s[np.isfinite(t_s)])) for t_s in (fired_s, seen_s)]
    longer, shorter = max(lengths), max(min(lengths), 1e-9)
    ratio = longer / shorter
    of_spikes = lengths[0] > lengths[1]
    whole = _are_whole(fired_s if of_spikes else seen_s)
    if ratio < 5.0 or (ratio < IMPLAUSIBLE and not whole):
        return
    what, key = (
        ("spike times", "units.ticks_per_s")
        if of_spikes
        else ("the time stamps of behaviour", "behavior_ticks_per_s")
    )
    how = "whole numbers, " if whole else ""
    raise SessionError(
        f"{told}: {what} look like {_unit(ratio)} ({how}{ratio:.0f} times as long); if so, write "
        f"under [sessions]: {key} = {_rate(ratio):g}"
    )


def session_span(spikes: Spikes, behavior: Mapping[str, Behavior], file: str) -> Span:
    """First and last time of what is read.

    Raises:
        SessionError: a few spikes, or one unit of many, decide how long that is.
    """
    require_no_stray_spikes(spikes, behavior, file)
    spans = [span_s(spikes.t_s), *(span_s(signal.t_s) for signal in behavior.values())]
    known = [span for span in spans if span is not None]
    return _joined(known) if known else (0.0, 0.0)


def trials_inside(trials: Trials, span: Span) -> np.ndarray:
    """(n,) bool, whether a trial lies in or near the time of spikes and behaviour."""
    edges = np.stack([trials.start_s, trials.stop_s])
    beyond = np.fmax(edges - span[1], span[0] - edges)
    limit_s = max(STRAY_S, STRAY_SHARE * _length(span))
    outside = np.nan_to_num(beyond, nan=-np.inf, posinf=np.inf) > limit_s
    return np.asarray(~outside.any(axis=0))


def require_no_stray_spikes(spikes: Spikes, behavior: Mapping[str, Behavior], file: str) -> None:
    """Refuse a session that a few spikes, or one unit of many, make much longer than all else.

    Raises:
        SessionError: with the line of the config that leaves them out.
    """
    finite = np.isfinite(spikes.t_s)
    t_s, unit = spikes.t_s[finite], spikes.unit[finite]
    spans = [span_s(signal.t_s) for signal in behavior.values()]
    others = [span for span in spans if span is not None]
    for rest in (_without_few_spikes(t_s, others), _without_few_units(t_s, unit, others)):
        if rest is None:
            continue
        if _is_stray(float(t_s.max()), rest, 1.0) or _is_stray(float(t_s.min()), rest, -1.0):
            outside = (t_s > rest[1] + STRAY_S) | (t_s < rest[0] - STRAY_S)
            who = [spikes.keys[i] for i in np.unique(unit[outside])]
            more = ", ..." if len(who) > 5 else ""
            raise SessionError(
                f"{file}: {np.count_nonzero(outside)} of {len(t_s)} spikes, of "
                f"{', '.join(who[:5])}{more}, lie at {_said(_ends(t_s[outside]))}, while all else "
                f"lies at {_said(rest)}: are they stray, or in another unit of time? to leave them "
                f"out, write under [sessions]: {_between(rest)}"
            )


def _without_few_spikes(t_s: Float64s, others: Sequence[Span]) -> Span | None:
    """The span of all but a few spikes at either end."""
    n_few = max(1, int(FEW * len(t_s)))
    if len(t_s) <= 3 * n_few:
        return None
    ordered = np.sort(t_s)
    return _joined([_ends(ordered[n_few:-n_few]), *others])


def _without_few_units(t_s: Float64s, unit: np.ndarray, others: Sequence[Span]) -> Span | None:
    """The span of all units but the few that reach farthest, where there are many."""
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


def _is_stray(edge: float, rest: Span, sign: float) -> bool:
    beyond = edge - rest[1] if sign > 0 else rest[0] - edge
    return beyond > max(STRAY_S, STRAY_SHARE * _length(rest))


def cut_between(contents: Contents, between_s: Span) -> Contents:
    """Only what lies between two times of the file."""
    first_s, last_s = between_s
    spikes = contents.spikes
    held = (spikes.t_s >= first_s) & (spikes.t_s <= last_s)
    count = None if spikes.count is None else spikes.count[held]
    behavior = {
        path: _rows(signal, (signal.t_s >= first_s) & (signal.t_s <= last_s))
        for path, signal in contents.behavior.items()
    }
    trials = contents.trials
    if trials is not None:
        trials = trials.rows((trials.start_s >= first_s) & (trials.stop_s <= last_s))
    kept = replace(spikes, t_s=spikes.t_s[held], unit=spikes.unit[held], count=count)
    return replace(
        contents, spikes=kept, behavior=behavior, trials=trials, begins_s=None, duration_s=None
    )


def _rows(signal: Behavior, held: np.ndarray) -> Behavior:
    return Behavior(signal.t_s[held], signal.values[held], signal.unit)


def _are_whole(t: np.ndarray) -> bool:
    finite = t[np.isfinite(t)]
    enough = len(finite) > FEWEST_SAMPLES and float(np.ptp(finite)) > 1000.0
    return enough and bool((finite == np.rint(finite)).all())


def _rate(ratio: float) -> float:
    """The known rate that is nearest to a ratio of lengths, else the ratio."""
    nearest = min(RATES_HZ, key=lambda rate: abs(np.log(rate / ratio)))
    return nearest if abs(np.log(nearest / ratio)) < 0.1 else round(ratio)


def _unit(ratio: float) -> str:
    names = {1e3: "milliseconds", 1e6: "microseconds", 1e9: "nanoseconds"}
    return names.get(_rate(ratio), "samples") + ", not seconds"


def _length(span: Span) -> float:
    return span[1] - span[0]


def _said(span: Span) -> str:
    return f"{span[0]:.1f} to {span[1]:.1f} s"


def _between(rest: Span) -> str:
    return f"between_s = [{np.floor(rest[0]):.0f}, {np.ceil(rest[1]):.0f}]"
