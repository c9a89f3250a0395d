"""Timing: clock, delay, order, blocks, equal stamps, and a regular stream's rate and holes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from streams.lint.findings import Finding, Heard, graded
from streams.lsl.stamp_check import how_far_off, is_other_clock
from streams.messages import Float64s

HOP_S = 0.02
"""A decoder's usual hop; a longer delay or block makes decodes later than they need be."""
LONGEST_WAIT_S = 0.5
"""`serve` waits no longer for a spike, by default."""
WORST_UNCERTAINTY_S = 0.005
FUTURE_S = 0.005
"""A stamp further ahead than this is `future` in `serve`."""
SHARE_FLAGGED = 0.01
BURST_APART_S = 0.001
MANY_EQUAL = 0.05
MOST = 0.999
STRETCHES = 10
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


def clock_findings(heard: Heard) -> Iterator[Finding]:
    """Judge whether stamps are LSL's, and how well the sender's clock is known."""
    yield _offset(heard)
    known = np.isfinite(heard.age_s)
    age_s = heard.age_s[known]
    if not len(age_s):
        return
    if is_other_clock(median_s := float(np.median(age_s))):
        yield Finding(
            "stop", "clock", f"stamps are not of LSL's clock: {how_far_off(median_s)}",
            "Stamp with LSL's local_clock(), or push without stamps.",
            {"other_clock_by_s": median_s},
        )  # fmt: skip
        return
    yield _future(heard, age_s)
    yield _delay(heard.arrived_s[known], age_s)


def is_lsl_clock(heard: Heard) -> bool:
    """Return True if stamps are LSL's, as far as anything came."""
    age_s = heard.age_s[np.isfinite(heard.age_s)]
    return not len(age_s) or not is_other_clock(float(np.median(age_s)))


def _offset(heard: Heard) -> Finding:
    if heard.offset is None:
        return Finding(
            "warn", "offset", "the sender's clock could not be measured",
            "Let UDP through between the two machines, or give the sender's machine less to do.",
            {"clock_offset_s": None, "clock_uncertainty_s": None},
        )  # fmt: skip
    offset_s, uncertainty_s = heard.offset.offset_s, heard.offset.uncertainty_s
    found = f"the sender's clock is {_ms(offset_s)} from ours, known to {_ms(uncertainty_s)}"
    numbers = {"clock_offset_s": offset_s, "clock_uncertainty_s": uncertainty_s}
    is_vague = uncertainty_s > WORST_UNCERTAINTY_S
    return graded("offset", found, "Connect the two machines by cable.", numbers, warn=is_vague)


def _future(heard: Heard, age_s: Float64s) -> Finding:
    uncertainty_s = heard.offset.uncertainty_s if heard.offset else 0.0
    ahead = age_s < -(FUTURE_S + uncertainty_s)
    share, found = float(np.mean(ahead)), "stamps are of LSL's clock"
    if many := share > SHARE_FLAGGED:
        by_s = -float(np.median(age_s[ahead]))
        found = f"{share:.0%} of the stamps lie in the future, by {_ms(by_s)}"
    change = "Stamp with LSL's local_clock() at the acquisition, and add nothing to it."
    return graded("clock", found, change, {"share_future": share}, stop=many)


def _delay(arrived_s: Float64s, age_s: Float64s) -> Finding:
    middle_s, late_s = (float(q) for q in np.quantile(age_s, (0.5, MOST)))
    usual_s = usual_delay_s(arrived_s, age_s)
    found = f"{_ms(middle_s)} from stamp to arrival (p50), {_ms(late_s)} (p99.9)"
    change = f"Push sooner or in shorter blocks: decodes come {_ms(usual_s)} after their bin."
    if usual_s > LONGEST_WAIT_S:
        change = (
            f"Push sooner: `serve` waits at most {LONGEST_WAIT_S:g} s for a spike, later ones are "
            "lost; `settle_most_ms` under [beat] waits longer."
        )
    elif usual_s <= HOP_S < late_s:
        change = "Listen again: sender, network or this machine was held up, and only now and then."
        found += f", usually under {_ms(usual_s)}"
    numbers = {"delay_p50_s": middle_s, "delay_p999_s": late_s, "delay_usual_s": usual_s}
    is_late = max(usual_s, late_s) > HOP_S
    return graded("delay", found, change, numbers, warn=is_late, stop=usual_s > LONGEST_WAIT_S)


def usual_delay_s(arrived_s: Float64s, age_s: Float64s) -> float:
    """Compute p99 in ten stretches and take their median, so that a single stall is none.

    Args:
        arrived_s: (n,) increasing.
        age_s: (n,) arrival - stamp.
    """
    edges_s = np.linspace(arrived_s[0], arrived_s[-1], STRETCHES + 1)[1:-1]
    stretches = np.split(age_s, np.searchsorted(arrived_s, edges_s))
    return float(np.median([np.quantile(one, 0.99) for one in stretches if len(one)]))


def order_finding(heard: Heard) -> Finding:
    """Judge how far behind the newest stamp samples come: the source's disorder."""
    behind_s = disorder_s(heard.stamps_s)
    share = float(np.mean(behind_s > 0)) if len(behind_s) else 0.0
    most_s = float(np.quantile(behind_s, MOST)) if len(behind_s) else 0.0
    numbers = {"disorder_p999_s": most_s, "share_behind": share}
    found = f"{share:.1%} come behind a newer stamp, by {_ms(most_s)} (p99.9)"
    return graded(
        "order", found if share else "in the order of their stamps",
        "Sort samples by stamp before they are pushed.", numbers,
        warn=most_s > HOP_S, stop=most_s > LONGEST_WAIT_S,
    )  # fmt: skip


def disorder_s(stamps_s: Float64s) -> Float64s:
    """Measure how far each (n,) stamp lies behind the newest before it, 0 for the newest."""
    finite = stamps_s[np.isfinite(stamps_s)]
    behind: Float64s = np.maximum.accumulate(finite) - finite if len(finite) else finite
    return behind


def block_finding(heard: Heard) -> Finding:
    """Judge how often samples come, and how many together."""
    starts = burst_starts(heard.arrived_s)
    if len(starts) < 2:
        return Finding("good", "blocks", "too few samples to tell", "", {})
    every_s = np.diff(heard.arrived_s[starts])
    together = np.diff(np.append(starts, len(heard)))
    middle_s, longest_s = float(np.median(every_s)), float(every_s.max())
    n = float(np.median(together))
    found = f"{n:g} samples every {_ms(middle_s)} (p50), the longest pause {_ms(longest_s)}"
    numbers = {
        "block_p50_s": middle_s,
        "samples_per_block_p50": n,
        "longest_pause_s": longest_s,
    }
    change = f"Push every 5 ms: a decode waits for the whole block of {_ms(middle_s)}."
    return graded("blocks", found, change, numbers, warn=middle_s > HOP_S and n > 1)


def burst_starts(arrived_s: Float64s) -> np.ndarray:
    """Find where in (n,) arrivals a block begins: a pull may take a block in parts."""
    if not len(arrived_s):
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.diff(arrived_s, prepend=-np.inf) > BURST_APART_S)


def equal_stamps(stamps_s: Float64s) -> float:
    """Compute the share among (n,) samples that repeat the stamp before."""
    return float(np.mean(np.diff(stamps_s) == 0)) if len(stamps_s) > 1 else 0.0


def equal_stamps_finding(heard: Heard, *, has_sequence: bool) -> Finding:
    """Judge whether a block has one stamp for all its samples."""
    share = equal_stamps(heard.stamps_s)
    change = "Give each sample its own stamp: push_chunk takes a list of them"
    change += "." if has_sequence else "; if that cannot be, add a channel `seq` that counts."
    found = f"{share:.1%} of the samples"
    if many := share > MANY_EQUAL:
        found = f"{share:.0%} of the samples have the stamp of the one before: one stamp a block"
    return graded("equal stamps", found, change, {"share_equal_stamps": share}, warn=many)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if abs(seconds) < 1.0 else f"{seconds:,.3f} s"


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
    found = f"{measured.hz:.6g} Hz by its stamps, nominally {nominal_hz:g} Hz"
    if differs := abs(off) > max(LEAST_DIFFERENCE, ERRORS * measured.error_hz / nominal_hz):
        found += f" ({off * 1e6:+.0f} ppm)"
    change = f"Give the outlet its true rate, {measured.hz:.6g} Hz, as nominal rate."
    stop = differs and abs(off) > FAR_OFF
    return graded("rate", found, change, numbers, warn=differs, stop=stop)


def _holes(n_missing: int, n: int) -> Finding:
    share = n_missing / (n + n_missing)
    found = f"{n_missing} samples are missing ({share:.1%}), by the stamps"
    return graded(
        "holes", found if n_missing else "no sample is missing",
        "Push every bin, also those without a spike, and look for what holds the sender up.",
        {"missing_samples": n_missing}, stop=n_missing,
    )  # fmt: skip


def _jitter(measured: Rate) -> Finding:
    is_much = measured.jitter_s * measured.hz > MUCH_JITTER
    found = f"stamps lie {'off by' if is_much else 'within'} {measured.jitter_s * 1e3:.3g} ms"
    return graded(
        "jitter", f"{found} of a regular grid",
        "Stamp each sample with the end of its bin instead of the time of its push.",
        {"jitter_s": measured.jitter_s}, warn=is_much,
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
