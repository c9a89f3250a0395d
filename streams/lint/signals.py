"""Positions, markers and other streams: missing, frozen or double values, and texts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from streams.lint.findings import Finding, Heard, graded
from streams.lint.spikes import equal_columns
from streams.lint.timing import SHARE_FLAGGED
from streams.lsl.axes import axes_of
from streams.lsl.description import marker_text

SHOWN = 5
SLOW_HZ = 20.0


def signal_findings(heard: Heard) -> Iterator[Finding]:
    """Judge numbers that are a signal: missing values, frozen and equal channels."""
    values = heard.values.astype(np.float64)
    labels = [label or f"channel {i}" for i, label in enumerate(heard.labels)]
    labels = labels or [f"channel {i}" for i in range(values.shape[1])]
    yield _missing(values)
    frozen = [
        labels[i] for i in range(values.shape[1]) if len(values) > 1 and _is_frozen(values[:, i])
    ]
    found = f"{len(frozen)} channels do not change: {', '.join(frozen[:SHOWN])}"
    yield graded(
        "silent", found if frozen else "every channel changes",
        "Look whether what they measure is on.", {"silent": frozen}, warn=frozen,
    )  # fmt: skip
    pairs = [f"{labels[a]} = {labels[b]}" for a, b in equal_columns(values)]
    if pairs:
        found = f"equal channels: {', '.join(pairs[:SHOWN])}"
        yield Finding("warn", "doubled", found, "Send each channel once.", {"doubled": pairs})


def position_findings(heard: Heard) -> Iterator[Finding]:
    """Judge a position: whether its axes can be told, and how often it comes."""
    labels = [label for label in heard.labels if label]
    named = ", ".join(labels) or "no labels"
    can_tell = len(labels) == heard.description.n_channels and axes_of(labels)
    yield graded(
        "labels", named if can_tell else f"{named}: no axis can be told",
        "Label the channels by what moves and the axis: `cursor_x`, `cursor_y`.", warn=not can_tell,
    )  # fmt: skip
    rate_hz = len(heard) / max(heard.seconds, 1e-9)
    is_slow = rate_hz < SLOW_HZ
    found = f"{rate_hz:.1f} samples/s" if is_slow else f"{rate_hz:.0f} samples/s"
    change = f"Send it at {SLOW_HZ:g} Hz or more: velocity is computed from it."
    yield graded("density", found, change, {"samples_per_s": rate_hz}, warn=is_slow)


def marker_findings(heard: Heard) -> Iterator[Finding]:
    """Tell which markers came, and as what."""
    stream = heard.description
    if stream.format != "string":
        yield Finding(
            "warn", "format", f"markers are {stream.format}: they are read as text, `7` or `0.5`",
            'Name them so in configs, `trial_start = "7"`, or send strings.',
        )  # fmt: skip
    if stream.n_channels > 1:
        yield Finding(
            "warn", "channels", f"{stream.n_channels} channels: read as one text with blanks",
            "Put what starts and stops a trial into the first channel.",
        )  # fmt: skip
    if not len(heard):
        yield Finding(
            "warn", "markers", "none came while we listened",
            "Start the task while this listens, if it is not meant to wait.",
        )  # fmt: skip
        return
    texts = [" ".join(map(marker_text, row)).strip() for row in heard.values]
    kinds = list(dict.fromkeys(texts))
    shown = ", ".join(repr(text) for text in kinds[:SHOWN]) + (" ..." if kinds[SHOWN:] else "")
    found = f"{len(texts)} came, {len(kinds)} different: {shown}"
    yield Finding("good", "markers", found, "", {"markers": kinds[:10]})


def _missing(values: np.ndarray) -> Finding:
    n = int(np.count_nonzero(~np.isfinite(values).all(axis=1)))
    share = n / len(values)
    found = f"{n} samples ({share:.1%}) hold NaN or infinity and are left out"
    change = "Nothing, unless trials fall into these gaps."
    if share > SHARE_FLAGGED:
        change = "Look why the tracker loses what it follows."
    numbers = {"missing_values": n}
    return graded("values", found if n else "all finite", change, numbers, warn=n)


def _is_frozen(column: np.ndarray) -> bool:
    finite = column[np.isfinite(column)]
    return bool(not len(finite) or finite.max() == finite.min())
