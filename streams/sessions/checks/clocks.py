"""Check that spikes and behaviour are in one clock's seconds; anything else is refused by name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from streams.errors import SessionError
from streams.messages import Float64s
from streams.sessions.checks.contents import (
    Spikes,
    between_line,
    is_stray,
    require_no_stray_samples,
    span_s,
    span_text,
)
from streams.sessions.session import Behavior

RATES_HZ = (1e3, 1e4, 2e4, 24414.0625, 2.5e4, 3e4, 3.2e4, 4e4, 4.8e4, 5e4, 1e6, 1e9)
"""Ticks a second that files have for seconds: milliseconds, amplifiers' rates, micro, nano."""
IMPLAUSIBLE = 300.0
"""Spikes and behaviour in one session never differ so much in length."""
FEWEST_SAMPLES = 20
"""From fewer samples nothing is concluded."""
SLOWEST_HZ, LONGEST_STEP_S = 0.05, 1.0
"""In seconds, a recording's units fire more often, and its behaviour is sampled more often."""
USUAL_TICKS, LONGEST_USUAL_STEP_S = (1e3, 3e4, 1e6, 1e9), 0.1


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
