"""A file's contents become a `Session` that begins at its first sample, if their clocks agree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from streams.errors import SessionError
from streams.messages import Float64s, Int32s, SpikeBatch
from streams.sessions.checks.contents import (
    Contents,
    Span,
    Spikes,
    between_line,
    cut_between,
    is_stray,
    require_no_stray_samples,
    require_no_stray_spikes,
    session_span,
    span_s,
    span_text,
    trials_inside,
)
from streams.sessions.choice import SessionChoice
from streams.sessions.session import Behavior, Session, Trials, chosen_series

RATES_HZ = (1e3, 1e4, 2e4, 24414.0625, 2.5e4, 3e4, 3.2e4, 4e4, 4.8e4, 5e4, 1e6, 1e9)
"""Ticks a second that files have for seconds: milliseconds, amplifiers' rates, micro, nano."""
IMPLAUSIBLE = 300.0
"""Spikes and behaviour in one session never differ so much in length."""
FEWEST_SAMPLES = 20
"""From fewer samples nothing is concluded."""
SLOWEST_HZ, LONGEST_STEP_S = 0.05, 1.0
"""In seconds, a recording's units fire more often, and its behaviour is sampled more often."""
USUAL_TICKS, LONGEST_USUAL_STEP_S = (1e3, 3e4, 1e6, 1e9), 0.1


def begin(contents: Contents, choice: SessionChoice, file: str) -> Session:
    """Make a session, in seconds from its first sample.

    The session begins at the earliest spike, behaviour or trial, a whole second (see
    `begins_at_s`), so that bins keep their place on the grid that the file's samples lie on; what
    our own file says goes first. `provenance["begins_at_s"]` keeps that time on the file's clock.

    Args:
        contents: in seconds on the file's clock.
        choice: what was to be read.
        file: its path, for messages.

    Raises:
        SessionError: times that cannot be meant; see `contents`.
    """
    if choice.between_s is not None:
        contents = cut_between(contents, choice.between_s)
    begins_s = contents.begins_s
    if begins_s is None:
        contents, begins_s = _checked(contents, choice, file)
    spikes, notes = _batch(contents.spikes, begins_s)
    behavior = _masked(contents, choice, begins_s, file)
    trials = _shifted_trials(contents.trials, begins_s)
    told = "; ".join([*contents.notes, *notes])
    duration_s = contents.duration_s
    return Session(
        id=contents.id,
        unit_keys=contents.spikes.keys,
        spikes=spikes,
        behavior=behavior,
        trials=trials,
        duration_s=_end_s(spikes, behavior, trials) if duration_s is None else duration_s,
        provenance={"begins_at_s": repr(begins_s)}
        | dict(contents.provenance)
        | {"unit_keys": contents.spikes.key_kind}
        | ({"skipped": told} if told else {}),
    )


def _checked(contents: Contents, choice: SessionChoice, file: str) -> tuple[Contents, float]:
    """Refuse implausible contents; return the rest, and its beginning."""
    require_no_stray_spikes(contents.spikes, contents.behavior, file)
    contents = replace(contents, behavior=_plausible(contents, choice, file))
    require_seconds(contents.spikes, contents.behavior, file)
    span = session_span(contents.spikes, contents.behavior, file)
    trials = _near(contents, choice, span, file)
    edges = [] if trials is None else [trials.start_s, trials.stop_s]
    firsts = [span, *(one for one in map(span_s, edges) if one is not None)]
    return replace(contents, trials=trials), begins_at_s(min(first for first, _ in firsts))


def begins_at_s(first_s: float) -> float:
    """The whole second at which a session begins whose first sample is at `first_s`.

    A recording whose first sample lies within a second of 0 begins at 0, as its makers meant.
    """
    return 0.0 if abs(first_s) < 1.0 else float(math.floor(first_s))


def _plausible(contents: Contents, choice: SessionChoice, file: str) -> dict[str, Behavior]:
    """The behaviour on the spikes' clock: all that is named must be, else what is not is noted."""
    kept: dict[str, Behavior] = {}
    refusals: list[SessionError] = []
    for path, signal in contents.behavior.items():
        try:
            plausible_behavior(path, contents.spikes, signal, file)
        except SessionError as error:
            if choice.behavior is not None:
                raise
            refusals.append(error)
            contents.notes.append(str(error).removeprefix(f"{file}: "))
        else:
            kept[path] = signal
    if refusals and not kept:
        raise refusals[0]
    return kept


def _near(contents: Contents, choice: SessionChoice, span: Span, file: str) -> Trials | None:
    """The trials beside spikes and behaviour; others are noted."""
    trials = contents.trials
    if trials is None:
        return None
    inside = trials_inside(trials, span)
    if inside.all():
        return trials
    n_outside, n = int(np.count_nonzero(~inside)), len(trials)
    told = f"{n_outside} of {n} trials lie far from spikes and behaviour ({span[0]:.1f} to "
    told += f"{span[1]:.1f} s), the first at {trials.start_s[~inside][0]:.1f} s"
    if choice.trials.table and not inside.any():
        raise SessionError(
            f"{file}: {told}: are they in milliseconds or samples? if so, write under [sessions] "
            "how many of them are a second: trials.ticks_per_s = 1000"
        )
    contents.notes.append(told)
    return trials.rows(inside) if inside.any() else None


def _end_s(spikes: SpikeBatch, behavior: Mapping[str, Behavior], trials: Trials | None) -> float:
    ends = [float(spikes.t_us[-1]) * 1e-6] if len(spikes) else []
    ends += [float(signal.t_s[-1]) for signal in behavior.values() if len(signal.t_s)]
    if trials is not None:
        ends += [float(stop_s) for stop_s in trials.stop_s if np.isfinite(stop_s)]
    return max(ends, default=0.0)


def _batch(spikes: Spikes, begins_s: float) -> tuple[SpikeBatch, list[str]]:
    """Put spikes in order, and note those mended or left out."""
    finite = np.isfinite(spikes.t_s)
    t_us = np.rint((spikes.t_s[finite] - begins_s) * 1e6).astype(np.int64)
    unit = spikes.unit[finite]
    count = np.ones(len(t_us), np.int32) if spikes.count is None else spikes.count[finite]
    order = np.argsort(t_us, kind="stable")
    notes = _unsorted(spikes.keys, spikes.t_s[finite], unit)
    if len(t_us) < len(finite):
        notes.append(f"{len(finite) - len(t_us)} spike times that are not finite")
    return SpikeBatch(t_us[order], unit[order], count[order]), notes


def _unsorted(keys: tuple[str, ...], t_s: Float64s, unit: Int32s) -> list[str]:
    back = (np.diff(t_s) < 0) & (np.diff(unit) == 0)
    if not back.any():
        return []
    units = [keys[i] for i in np.unique(unit[1:][back])]
    more = ", ..." if len(units) > 5 else ""
    return [
        f"{np.count_nonzero(back)} spike times that step back, of {', '.join(units[:5])}{more}, "
        "put in order"
    ]


def _since(t_s: Float64s, begins_s: float) -> Float64s:
    """Return times from the session's start; on a large clock only microseconds mean anything."""
    return np.round(t_s - begins_s, 6) if begins_s else t_s


def _masked(
    contents: Contents, choice: SessionChoice, begins_s: float, file: str
) -> dict[str, Behavior]:
    """Return every signal in session seconds, its masked samples marked."""
    shifted = {
        path: replace(signal, t_s=_since(signal.t_s, begins_s))
        for path, signal in contents.behavior.items()
    }
    if not choice.mask:
        return shifted
    (mask_path,) = chosen_series(choice.mask, shifted, file)
    mask = shifted[mask_path]
    _require_flags(mask, f"{file}: the mask {choice.mask!r}")
    return {
        path: signal if path == mask_path else signal.masked(mask)
        for path, signal in shifted.items()
    }


def _require_flags(mask: Behavior, name: str) -> None:
    if mask.values.shape[1] != 1 or not np.isin(mask.values, (0.0, 1.0)).all():
        raise SessionError(
            f"{name} is not one column of 0 and 1: name a series like FALCON's eval_mask"
        )
    if not mask.values.any():
        raise SessionError(f"{name} holds no sample at all: nothing is left to score")


def _shifted_trials(trials: Trials | None, begins_s: float) -> Trials | None:
    if trials is None:
        return None
    return replace(
        trials,
        start_s=_since(trials.start_s, begins_s),
        stop_s=_since(trials.stop_s, begins_s),
    )


def plausible_behavior(path: str, spikes: Spikes, signal: Behavior, file: str) -> None:
    """Refuse behaviour that is not on the spikes' clock, or goes on long after them.

    Raises:
        SessionError: with the config line that would read it.
    """
    fired, seen = span_s(spikes.t_s), span_s(signal.t_s)
    if fired is None or seen is None:
        return
    require_no_stray_samples(path, signal.t_s, file)
    told = f"{file}: spikes lie at {span_text(fired)} and {path} at {span_text(seen)}"
    if len(signal.t_s) > FEWEST_SAMPLES:
        _require_one_unit_of_time(told, spikes.t_s, signal.t_s)
        if fired[0] > seen[1] or seen[0] > fired[1]:
            raise SessionError(
                f"{told}: they have no time in common, so they are not on one clock; ask the "
                "file's makers, or write it again with both in seconds from the session's start"
            )
    if is_stray(seen[1], fired, 1.0) or is_stray(seen[0], fired, -1.0):
        raise SessionError(
            f"{told}: to read what lies beside spikes alone, write under [sessions]: "
            f"{between_line(fired)}"
        )


def _require_one_unit_of_time(told: str, fired_s: Float64s, seen_s: Float64s) -> None:
    """Refuse spikes and behaviour whose times are in different units."""
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


def require_seconds(spikes: Spikes, behavior: Mapping[str, Behavior], file: str) -> None:
    """Refuse spikes and behaviour that are both in milliseconds or samples.

    Neurons then seem to fire a few times an hour, and behaviour to be sampled every few seconds.

    Raises:
        SessionError: with the config lines that would read them.
    """
    fired = span_s(spikes.t_s)
    steps_s = [float(np.median(np.diff(s.t_s))) for s in behavior.values() if len(s.t_s) > 1]
    if fired is None or not steps_s or fired[1] <= fired[0]:
        return
    n_spikes = len(spikes.t_s) if spikes.count is None else int(spikes.count.sum())
    rate_hz = n_spikes / max(1, len(spikes.keys)) / (fired[1] - fired[0])
    if rate_hz >= SLOWEST_HZ or min(steps_s) <= LONGEST_STEP_S:
        return
    fits = [rate for rate in USUAL_TICKS if min(steps_s) / rate < LONGEST_USUAL_STEP_S]
    rate = fits[0] if fits else USUAL_TICKS[-1]
    raise SessionError(
        f"{file}: a unit fires {rate_hz:.2g} times a second, and behaviour has a sample every "
        f"{min(steps_s):g} s: all times look like {_unit(rate)}; if so, write under [sessions]: "
        f"units.ticks_per_s = {rate:g}, behavior_ticks_per_s = {rate:g} and "
        f"trials.ticks_per_s = {rate:g}"
    )


def _are_whole(t: np.ndarray) -> bool:
    finite = t[np.isfinite(t)]
    enough = len(finite) > FEWEST_SAMPLES and float(np.ptp(finite)) > 1000.0
    return enough and bool((finite == np.rint(finite)).all())


def _rate(ratio: float) -> float:
    """Find the known rate nearest to a ratio; without one, return the ratio."""
    nearest = min(RATES_HZ, key=lambda rate: abs(np.log(rate / ratio)))
    return nearest if abs(np.log(nearest / ratio)) < 0.1 else round(ratio)


def _unit(ratio: float) -> str:
    names = {1e3: "milliseconds", 1e6: "microseconds", 1e9: "nanoseconds"}
    return names.get(_rate(ratio), "samples") + ", not seconds"
