"""Timing: clock, delay, order, blocks and equal stamps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from streams.lint.findings import Finding, Level
from streams.lint.heard import Heard
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
    if uncertainty_s > WORST_UNCERTAINTY_S:
        change = "Connect the two machines by cable."
        return Finding("warn", "offset", found, change, numbers)
    return Finding("good", "offset", found, "", numbers)


def _future(heard: Heard, age_s: Float64s) -> Finding:
    uncertainty_s = heard.offset.uncertainty_s if heard.offset else 0.0
    ahead = age_s < -(FUTURE_S + uncertainty_s)
    share = float(np.mean(ahead))
    numbers = {"share_future": share}
    if share <= SHARE_FLAGGED:
        return Finding("good", "clock", "stamps are of LSL's clock", "", numbers)
    by_s = -float(np.median(age_s[ahead]))
    return Finding(
        "stop", "clock", f"{share:.0%} of the stamps lie in the future, by {_ms(by_s)}",
        "Stamp with LSL's local_clock() at the acquisition, and add nothing to it.", numbers,
    )  # fmt: skip


def _delay(arrived_s: Float64s, age_s: Float64s) -> Finding:
    middle_s, late_s = (float(q) for q in np.quantile(age_s, (0.5, MOST)))
    usual_s = usual_delay_s(arrived_s, age_s)
    found = f"{_ms(middle_s)} from stamp to arrival (p50), {_ms(late_s)} (p99.9)"
    numbers = {"delay_p50_s": middle_s, "delay_p999_s": late_s, "delay_usual_s": usual_s}
    if usual_s > LONGEST_WAIT_S:
        change = (
            f"Push sooner: `serve` waits at most {LONGEST_WAIT_S:g} s for a spike, later ones are "
            "lost; `settle_most_ms` under [beat] waits longer."
        )
        return Finding("stop", "delay", found, change, numbers)
    if usual_s > HOP_S:
        change = f"Push sooner or in shorter blocks: decodes come {_ms(usual_s)} after their bin."
        return Finding("warn", "delay", found, change, numbers)
    if late_s > HOP_S:
        change = "Listen again: sender, network or this machine was held up, and only now and then."
        return Finding("warn", "delay", f"{found}, usually under {_ms(usual_s)}", change, numbers)
    return Finding("good", "delay", found, "", numbers)


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
    if not share:
        return Finding("good", "order", "in the order of their stamps", "", numbers)
    found = f"{share:.1%} come behind a newer stamp, by {_ms(most_s)} (p99.9)"
    level: Level = "good"
    if most_s > HOP_S:
        level = "stop" if most_s > LONGEST_WAIT_S else "warn"
    change = "Sort samples by stamp before they are pushed." if level != "good" else ""
    return Finding(level, "order", found, change, numbers)


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
    if middle_s > HOP_S and n > 1:
        change = f"Push every 5 ms: a decode waits for the whole block of {_ms(middle_s)}."
        return Finding("warn", "blocks", found, change, numbers)
    return Finding("good", "blocks", found, "", numbers)


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
    numbers = {"share_equal_stamps": share}
    if share <= MANY_EQUAL:
        return Finding("good", "equal stamps", f"{share:.1%} of the samples", "", numbers)
    change = "Give each sample its own stamp: push_chunk takes a list of them"
    change += "." if has_sequence else "; if that cannot be, add a channel `seq` that counts."
    found = f"{share:.0%} of the samples have the stamp of the one before: one stamp a block"
    return Finding("warn", "equal stamps", found, change, numbers)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if abs(seconds) < 1.0 else f"{seconds:,.3f} s"
