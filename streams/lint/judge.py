"""Checks for each kind of stream, put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from streams.lint.findings import Finding, Heard, Report
from streams.lint.identity import identity_findings, label_findings
from streams.lint.kinds import Kind
from streams.lint.signals import marker_findings, position_findings, signal_findings
from streams.lint.spikes import spike_findings
from streams.lint.timing import (
    block_finding,
    clock_findings,
    is_lsl_clock,
    order_finding,
    rate_findings,
)
from streams.lsl.axes import axes_of
from streams.lsl.description import StreamDescription

UNITS = ("unit", "unit_id", "unitid", "sort_code", "sortcode", "cluster", "cluster_id")
LONG_ENOUGH_S = 1.0
"""A listener that was stopped before has not heard that nothing comes."""
_COUNTED = ("spike", "spiking", "count", "firing")
_MOVING = ("position", "cursor", "mocap", "hand", "kinematic")


def kind_of(stream: StreamDescription, labels: Sequence[str]) -> Kind:
    """Tell the kind of a stream by its type, its format and its labels."""
    named = stream.type.lower()
    if stream.format == "string" or "marker" in named:
        return "markers"
    if any(word in named for word in _COUNTED):
        return "counts" if stream.rate_hz else "spikes"
    if not stream.rate_hz and {label.lower() for label in labels} & set(UNITS):
        return "spikes"
    moving = any(len(columns) > 1 for columns in axes_of(labels).values())
    if moving or any(word in named for word in _MOVING):
        return "position"
    return "other"


def lint(
    heard: Heard,
    visible: Sequence[StreamDescription] = (),
    kind: Kind | None = None,
    columns: Sequence[str] = (),
) -> Report:
    """Judge a stream by some recorded seconds.

    Args:
        heard: the stream.
        visible: every stream that answers, this one too.
        kind: what it carries; as it says itself if None.
        columns: one name a channel, for spikes whose labels do not tell.
    """
    kind = kind or kind_of(heard.description, heard.labels)
    findings = (
        [Finding("stop", "opening", heard.trouble, "", is_unfit=True)]
        if heard.trouble
        else list(_findings(heard, kind, columns))
    )
    if kind != "markers" and not heard.trouble:
        findings += label_findings(heard)
    findings += identity_findings(heard, visible)
    return Report(heard.description, kind, heard.seconds, len(heard), findings)


def _findings(heard: Heard, kind: Kind, columns: Sequence[str]) -> Iterator[Finding]:
    if heard.has_ended:
        yield Finding(
            "stop", "end", f"it ended after {heard.seconds:.1f} s",
            "Look why its program ended or took the outlet down.",
        )  # fmt: skip
    if not len(heard) and kind != "markers":
        yield Finding(
            "stop" if heard.seconds >= LONG_ENOUGH_S else "warn", "samples",
            f"nothing came in {heard.seconds:.1f} s",
            "Look whether its program runs, and whether it pushes when nothing fires.",
        )  # fmt: skip
        if kind in ("spikes", "counts"):
            yield from (one for one in spike_findings(heard, columns) if one.is_unfit)
        return
    yield from clock_findings(heard)
    if len(heard):
        yield from _of_samples(heard, kind)
    if kind in ("spikes", "counts"):
        yield from spike_findings(heard, columns)
    elif kind == "markers":
        yield from marker_findings(heard)
    else:
        yield from position_findings(heard) if kind == "position" else ()
        yield from signal_findings(heard)


def _of_samples(heard: Heard, kind: Kind) -> Iterator[Finding]:
    yield order_finding(heard)
    if kind != "markers":
        yield block_finding(heard)
    if heard.description.rate_hz and kind != "markers":
        yield from rate_findings(heard)
    if not is_lsl_clock(heard):
        yield from _pace(heard)


def _pace(heard: Heard) -> Iterator[Finding]:
    """Return True if stamps from another clock advance in seconds at all."""
    span_s = float(np.ptp(heard.arrived_s))
    if span_s < 1.0 or not np.isfinite(heard.stamps_s).all():
        return
    pace = float(np.ptp(heard.stamps_s)) / span_s
    if not 0.5 < pace < 2.0:
        yield Finding(
            "stop", "pace", f"stamps advance by {pace:,.4g} a second",
            "Stamp in seconds, not in milliseconds or samples.", {"stamps_per_s": pace},
        )  # fmt: skip
