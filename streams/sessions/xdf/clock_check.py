"""Check that a recorded stream's stamps can be brought onto the recorder's clock."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streams.clock import JUMP_LIMIT_S
from streams.messages import Float64s
from streams.sessions.xdf.loading import Recorded

MOST_DRIFT = 0.01
"""No two clocks differ so much in rate; a line that steep was laid across a reset."""
MANY = 0.25
APART_S = 3600.0
"""Streams in one recording do not lie further apart than this."""
STRAY = 0.01


def as_sent_if_foreign(stream: Recorded) -> list[str]:
    """Take the stamps as sent where they are not on the measured clock.

    A line through measurements on LSL's clock, laid out to Unix time, ends anywhere.

    Returns:
        Remarks about it.
    """
    at_s = np.sort(stream.clock_times_s)
    if not len(at_s) or not len(stream.stamps_s):
        return []
    right = np.clip(np.searchsorted(at_s, stream.stamps_s), 1, max(1, len(at_s) - 1))
    near = at_s[np.minimum(right, len(at_s) - 1)], at_s[right - 1]
    off_s = float(np.median(np.min([np.abs(stream.stamps_s - one) for one in near], axis=0)))
    if off_s < APART_S:
        return []
    stream.t_s, stream.clock_parts = stream.stamps_s.copy(), []
    return [
        f"the stamps of {stream.name!r} are taken as they were sent: they lie {off_s:,.0f} s from "
        "the measurements of its sender's clock, and are of another clock than LSL's"
    ]


def trouble_of(stream: Recorded) -> str:
    """Say why the stream's stamps cannot be used; "" where they can."""
    lines = _lines(stream)
    if not lines or not len(stream.clock_times_s):
        return ""
    steepest = max(abs(slope) for _, slope in lines)
    if steepest > MOST_DRIFT:
        return (
            f"its clock seems to run {steepest * 100:.1f} % off the recorder's: it was reset "
            "between two of the few measurements of its offset"
        )
    off_s = _misfits(stream, lines)
    if np.mean(off_s > JUMP_LIMIT_S) > MANY:
        return (
            f"its clock jumped while it was recorded: {np.count_nonzero(off_s > JUMP_LIMIT_S)} of "
            f"{len(off_s)} measurements of its offset lie up to {off_s.max():.3f} s from a line"
        )
    return ""


def remarks_of(stream: Recorded, t0_s: float) -> list[str]:
    """Say what was done to the stream's clock.

    Args:
        stream: as loaded.
        t0_s: the recording's beginning.
    """
    if not len(stream.t_s):
        return []
    if not len(stream.clock_times_s):
        return [
            f"no clock offset of {stream.name!r} was recorded: its stamps are taken for the "
            "recorder's time"
        ]
    remarks = []
    if len(stream.clock_parts) > 1:
        at = ", ".join(f"{stream.t_s[i] - t0_s:.3f} s" for i, _ in stream.clock_parts[1:])
        remarks.append(
            f"the clock of {stream.name!r} was reset while it was recorded: its stamps are brought "
            f"onto the recorder's clock piece by piece, cut at {at}"
        )
    off_s = _misfits(stream, _lines(stream))
    n_off = int(np.count_nonzero(off_s > JUMP_LIMIT_S))
    if n_off:
        remarks.append(
            f"{n_off} of {len(off_s)} measurements of the clock of {stream.name!r} lie up to "
            f"{off_s.max() * 1e3:.0f} ms from a line"
        )
    return remarks


def _lines(stream: Recorded) -> list[tuple[float, float]]:
    """Offset and slope that were applied in each part, where its stamps tell."""
    lines = []
    for first, last in stream.clock_parts:
        sent_s = stream.stamps_s[first : last + 1]
        offset_s = stream.t_s[first : last + 1] - sent_s
        low, high = int(np.argmin(sent_s)), int(np.argmax(sent_s))
        span_s = float(sent_s[high] - sent_s[low])
        if span_s > 1.0:
            slope = float(offset_s[high] - offset_s[low]) / span_s
            lines.append((float(offset_s[low] - slope * sent_s[low]), slope))
    return lines


def _misfits(stream: Recorded, lines: Sequence[tuple[float, float]]) -> Float64s:
    """Measure how far each offset lies from the nearest line, seconds."""
    if not lines or len(lines) != len(stream.clock_parts):
        return np.zeros(0)
    at_s, offset_s = stream.clock_times_s, stream.clock_offsets_s
    nearest: Float64s = np.min([np.abs(a + b * at_s - offset_s) for a, b in lines], axis=0)
    return nearest


def main_stretch(stamps: Sequence[Float64s]) -> tuple[float, float]:
    """Find the stretch, no hour empty, in which most streams have most samples.

    Args:
        stamps: for each stream, (n,) on the recorder's clock.
    """
    together = np.sort(np.concatenate([t_s for t_s in stamps if len(t_s)] or [np.zeros(1)]))
    edges = np.flatnonzero(np.diff(together) > APART_S)
    begins, ends = together[[0, *(edges + 1)]], together[[*edges, -1]]
    votes = np.zeros(len(begins))
    for t_s in stamps:
        if len(t_s):
            votes[np.searchsorted(begins, np.median(t_s), side="right") - 1] += 1
    n_held = np.searchsorted(together, ends, "right") - np.searchsorted(together, begins, "left")
    best = max(range(len(begins)), key=lambda i: (votes[i], n_held[i]))
    return float(begins[best]), float(ends[best])
