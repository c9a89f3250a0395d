"""A regular stream's true rate against its nominal one, and samples that are missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from streams.lint.findings import Finding, Level
from streams.lint.heard import Heard
from streams.messages import Float64s

FEWEST = 20
LEAST_DIFFERENCE = 200e-6
"""Of the rate; two crystals differ by less."""
FAR_OFF = 0.01
ERRORS = 4.0
NEAR = 1.5
"""A factor: the usual step between stamps must be that near to the nominal for holes to be told."""
MUCH_JITTER = 0.25
"""Of a step."""
MOST_STEPS = 0.8
"""So many steps must be steady for holes to be told."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Steps from one stamp to the next.

    Attributes:
        hz: the slope.
        error_hz: its standard error.
        jitter_s: how far stamps lie from that line, standard deviation.
        n_missing: samples that are missing between others.
    """

    hz: float
    error_hz: float
    jitter_s: float
    n_missing: int


def rate_findings(heard: Heard) -> Iterator[Finding]:
    """Judge rate, holes and jitter against the nominal rate."""
    nominal_hz = heard.description.rate_hz
    if len(heard) < FEWEST:
        return
    measured = true_rate(heard.stamps_s, nominal_hz)
    if measured is None:
        yield Finding(
            "stop", "rate", "stamps do not advance from sample to sample",
            "Stamp each sample with the end of its bin, or push without stamps.",
        )  # fmt: skip
        return
    yield _rate(measured, nominal_hz)
    yield _holes(measured.n_missing, len(heard))
    yield _jitter(measured)


def _rate(measured: Rate, nominal_hz: float) -> Finding:
    off = measured.hz / nominal_hz - 1.0
    numbers = {"rate_hz": measured.hz, "nominal_rate_hz": nominal_hz, "rate_off_ppm": off * 1e6}
    told = f"{measured.hz:.6g} Hz by its stamps, nominally {nominal_hz:g} Hz"
    if abs(off) <= max(LEAST_DIFFERENCE, ERRORS * measured.error_hz / nominal_hz):
        return Finding("good", "rate", told, "", numbers)
    level: Level = "stop" if abs(off) > FAR_OFF else "warn"
    change = f"Give the outlet its true rate, {measured.hz:.6g} Hz, as nominal rate."
    return Finding(level, "rate", f"{told} ({off * 1e6:+.0f} ppm)", change, numbers)


def _holes(n_missing: int, n: int) -> Finding:
    numbers = {"missing_samples": n_missing}
    if not n_missing:
        return Finding("good", "holes", "no sample is missing", "", numbers)
    share = n_missing / (n + n_missing)
    return Finding(
        "stop", "holes", f"{n_missing} samples are missing ({share:.1%}), by the stamps",
        "Push every bin, also those without a spike, and look for what holds the sender up.",
        numbers,
    )  # fmt: skip


def _jitter(measured: Rate) -> Finding:
    found = f"stamps lie within {measured.jitter_s * 1e3:.3g} ms of a regular grid"
    numbers = {"jitter_s": measured.jitter_s}
    if measured.jitter_s * measured.hz <= MUCH_JITTER:
        return Finding("good", "jitter", found, "", numbers)
    return Finding(
        "warn", "jitter", found.replace("within", "off by"),
        "Stamp each sample with the end of its bin instead of the time of its push.", numbers,
    )  # fmt: skip


def true_rate(stamps_s: Float64s, nominal_hz: float) -> Rate | None:
    """Fit a line through stamps over samples.

    Args:
        stamps_s: (n,) in any order.
        nominal_hz: what the stream says.

    Returns:
        None where stamps do not advance.
    """
    t_s = np.sort(stamps_s[np.isfinite(stamps_s)])
    if len(t_s) < 3 or t_s[-1] <= t_s[0]:
        return None
    i = _places(t_s, nominal_hz)
    n_missing = round(float(i[-1])) + 1 - len(t_s)
    i, t_s = i - i.mean(), t_s - t_s.mean()
    spread = float(i @ i)
    slope_s = float(i @ t_s) / spread
    left_s = t_s - slope_s * i
    jitter_s = float(np.sqrt(left_s @ left_s / (len(t_s) - 2)))
    error_s = jitter_s / np.sqrt(spread)
    return Rate(1.0 / slope_s, float(error_s) / slope_s**2, jitter_s, max(n_missing, 0))


def _places(t_s: Float64s, nominal_hz: float) -> Float64s:
    """Number each sorted stamp on a regular grid, so that a hole shows as missing numbers."""
    steps_s = np.diff(t_s)
    step_s = float(np.median(steps_s))
    unsteady_s = float(np.quantile(np.abs(steps_s - step_s), MOST_STEPS))
    if not 1 / NEAR < step_s * nominal_hz < NEAR or unsteady_s > MUCH_JITTER * step_s:
        return np.arange(len(t_s), dtype=np.float64)
    steps = np.maximum(np.rint(steps_s / step_s), 1.0)
    places: Float64s = np.concatenate([[0.0], np.cumsum(steps)])
    return places
