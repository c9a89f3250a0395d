"""Spikes and counts: layout, sequence, keep-alives, values, and units that are silent or double."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from streams.errors import StreamUnfitError
from streams.lint.findings import Finding, Heard, graded
from streams.lint.timing import MANY_EQUAL, SHARE_FLAGGED, equal_stamps, equal_stamps_finding
from streams.lsl.description import KEEP_ALIVE_EVERY_S
from streams.messages import Float64s, Int32s
from streams.spikes.layouts.layout import Layout, LayoutOptions, Parsed
from streams.spikes.layouts.table import layout_of

FEWEST_SHARED = 5
DOUBLED_SHARE = 0.7
TOO_MANY_AT_ONCE = 8
"""Units at one stamp: a block with one stamp, which tells nothing about doubles."""
NAMED_AT_MOST = 6


def spike_findings(heard: Heard, columns: Sequence[str] = ()) -> Iterator[Finding]:
    """Judge spikes or counts as `serve` would read them.

    Args:
        heard: the stream.
        columns: one name a channel, where its labels do not tell.
    """
    try:
        layout = layout_of(heard.description, heard.labels, LayoutOptions(columns=columns))
        parsed = layout.parse(heard.values, heard.stamps_s)
    except StreamUnfitError as err:
        yield Finding(
            "stop", "layout", str(err),
            "Label the outlet's channels, or name `columns` in the config (here: --columns).",
            is_unfit=True,
        )  # fmt: skip
        return
    named = ", ".join(label or "''" for label in heard.labels[:NAMED_AT_MOST]) or "no labels"
    more = " ..." if len(heard.labels) > NAMED_AT_MOST else ""
    yield Finding("good", "layout", f"{heard.description.n_channels} channels: {named}{more}")
    if layout.bin_s is None:
        yield from _event_findings(heard, layout, parsed)
    else:
        yield from _count_findings(heard)


def _event_findings(heard: Heard, layout: Layout, parsed: Parsed) -> Iterator[Finding]:
    has_sequence = layout.has_sequence
    n_bad, why = len(parsed.invalid_s), _why_invalid(heard.values, heard.stamps_s)
    yield graded(
        "values", f"{n_bad} are no spikes: {why}" if n_bad else "whole numbers",
        "Send whole numbers from 0 as int32; only a keep-alive is -1.",
        {"invalid_values": n_bad}, warn=n_bad, stop=n_bad > SHARE_FLAGGED * len(heard),
    )  # fmt: skip
    yield _sequence(parsed, len(heard), has_sequence=has_sequence)
    yield _keep_alives(heard, parsed)
    yield equal_stamps_finding(heard, has_sequence=has_sequence)
    if not has_sequence:
        yield _repeated(parsed)
    yield from _unit_findings(layout, parsed, heard.seconds)


def _why_invalid(values: np.ndarray, stamps_s: Float64s) -> str:
    """Say why some of (n, d) values or (n,) stamps cannot be read."""
    finite = values[np.isfinite(values)]
    counted = (
        (int(np.count_nonzero(~np.isfinite(values))), "NaN or infinite"),
        (int(np.count_nonzero(finite != np.floor(finite))), "fractions"),
        (int(np.count_nonzero(finite < 0)), "negative"),
        (int(np.count_nonzero(~(np.isfinite(stamps_s) & (stamps_s > 0)))), "stamps that are none"),
    )
    return ", ".join(f"{n} {what}" for n, what in counted if n) or "too large"


def _sequence(parsed: Parsed, n_samples: int, *, has_sequence: bool) -> Finding:
    if not has_sequence:
        change = "Add a channel `seq` that counts every sample, if the program lets you."
        return Finding("warn", "sequence", "no channel counts: losses cannot be told", change)
    n_lost, n_again = parsed.n_lost, parsed.n_duplicate
    found = f"{n_lost} numbers never came, {n_again} came again"
    n = n_lost + n_again
    return graded(
        "sequence", found if n else "no number is missing or came twice",
        "Count every sample once, from 0, and look for what drops or repeats them.",
        {"sequence_lost": n_lost, "sequence_repeated": n_again},
        warn=n, stop=n > SHARE_FLAGGED * n_samples,
    )  # fmt: skip


def _keep_alives(heard: Heard, parsed: Parsed) -> Finding:
    n = len(parsed.keep_alive_s)
    stamps_s = np.sort(heard.stamps_s[np.isfinite(heard.stamps_s)])
    silence_s = float(np.diff(stamps_s).max()) if len(stamps_s) > 1 else heard.seconds
    numbers = {"keep_alives": n, "longest_silence_s": silence_s}
    told = f"the longest silence is {silence_s * 1e3:.0f} ms"
    if n > 1:
        every_s = float(np.median(np.diff(np.sort(parsed.keep_alive_s))))
        found = f"{n}, one every {every_s * 1e3:.0f} ms; {told}"
        return Finding("good", "keep-alives", found, "", numbers | {"keep_alive_every_s": every_s})
    change = (
        f"Push a sample of unit -1 every {KEEP_ALIVE_EVERY_S * 1e3:.0f} ms, so that a silent array "
        "is told from a sender that hangs."
    )
    return Finding("warn", "keep-alives", f"none; {told}", change, numbers)


def _repeated(parsed: Parsed) -> Finding:
    """Judge one unit's spikes at one stamp: sent twice, or from a block with one stamp."""
    pairs = np.unique(np.stack([parsed.t_s, parsed.unit.astype(np.float64)]), axis=1)
    n = len(parsed.t_s) - pairs.shape[1]
    n_tied = pairs.shape[1] - len(np.unique(pairs[0]))  # stamps that several units share
    from_blocks = n_tied >= n
    change = "Push each spike once."
    if from_blocks:
        change = "Stamp each spike with its own time, or add a channel `seq` that counts."
    found = f"{n} spikes have unit and stamp of another one" if n else "none"
    many = n > SHARE_FLAGGED * len(parsed.t_s) and not from_blocks
    return graded("duplicates", found, change, {"repeated": n}, warn=n, stop=many)


def _unit_findings(layout: Layout, parsed: Parsed, seconds: float) -> Iterator[Finding]:
    keys = layout.keys
    n = np.bincount(parsed.unit, minlength=len(keys)) if len(parsed.unit) else np.zeros(0, np.int64)
    rates_hz = n[n > 0] / max(seconds, 1e-9)
    if not len(rates_hz):
        yield Finding(
            "stop", "units", "no unit fires",
            "Connect the array, and set the thresholds or the sorting.", {"units": 0},
        )  # fmt: skip
        return
    told = f"{len(rates_hz)} fire, {rates_hz.sum():.0f} spikes/s, {np.median(rates_hz):.1f} each"
    yield Finding(
        "good", "units", told, "", {"units": len(rates_hz), "spikes_per_s": float(rates_hz.sum())}
    )
    if equal_stamps(parsed.t_s) > MANY_EQUAL:
        yield Finding("good", "doubled", "cannot be told: blocks have one stamp")
        return
    yield _doubled([(keys[a], keys[b]) for a, b in doubled_units(parsed.t_s, parsed.unit)])


def doubled_units(t_s: Float64s, unit: Int32s) -> list[tuple[int, int]]:
    """Find pairs that fire at exactly the same stamps, nearly always.

    Args:
        t_s: (n,) stamps.
        unit: (n,) the units.
    """
    order = np.lexsort((unit, t_s))
    t_s, unit = t_s[order], unit[order]
    n = np.bincount(unit)
    shared: Counter[tuple[int, int]] = Counter()
    bounds = np.flatnonzero(np.diff(t_s, prepend=-np.inf, append=np.inf))
    together = np.diff(bounds)
    few = (together > 1) & (together <= TOO_MANY_AT_ONCE)
    for first, last in zip(bounds[:-1][few], bounds[1:][few], strict=True):
        shared.update(combinations(np.unique(unit[first:last]).tolist(), 2))
    return [
        (a, b)
        for (a, b), times in sorted(shared.items())
        if times >= FEWEST_SHARED and times > DOUBLED_SHARE * max(n[a], n[b])
    ]


def _doubled(pairs: Sequence[tuple[str, str]]) -> Finding:
    told = [f"{a} = {b}" for a, b in pairs]
    found = f"{len(told)} pairs fire at the same stamps: {_some(told)}"
    return graded(
        "doubled", found if told else "no two fire as one",
        "Switch one of each pair off: a short circuit, or one unit sent twice.",
        {"doubled": told}, warn=told,
    )  # fmt: skip


def _count_findings(heard: Heard) -> Iterator[Finding]:
    values = heard.values.astype(np.float64)
    bad = ~(np.isfinite(values) & (values >= 0) & (values == np.floor(values)))
    n_bad, why = int(bad.sum()), _why_invalid(heard.values, heard.stamps_s)
    found = f"{n_bad / max(bad.size, 1):.1%} are no counts: {why}"
    yield graded(
        "values", found if n_bad else "whole numbers from 0",
        "Send the counts of each bin as int32, not rates, smoothed or z-scored values.",
        {"invalid_values": n_bad}, warn=n_bad, stop=n_bad > SHARE_FLAGGED * bad.size,
    )  # fmt: skip
    counts = np.where(bad, 0.0, values)
    labels = [label or f"channel {i}" for i, label in enumerate(heard.labels)]
    silent = [label for label, n in zip(labels, counts.sum(axis=0), strict=False) if not n]
    n_alive = len(labels) - len(silent)
    per_s = float(counts.sum()) / max(heard.seconds, 1e-9)
    yield graded(
        "units", f"{n_alive} of {len(labels)} fire, {per_s:.0f} spikes/s",
        "Connect the array, and set the thresholds.",
        {"units": n_alive, "spikes_per_s": per_s}, stop=not n_alive,
    )  # fmt: skip
    found = f"{len(silent)} channels: {_some(silent)}" if silent else "no channel"
    change = "Look whether they are connected and their thresholds set."
    yield graded("silent", found, change, {"silent": silent}, warn=silent)
    yield _doubled([(labels[a], labels[b]) for a, b in equal_columns(counts)])


def equal_columns(values: np.ndarray) -> list[tuple[int, int]]:
    """Find pairs of columns in (n, d) values that are the same and not constant."""
    first: dict[bytes, int] = {}
    pairs = []
    for i, column in enumerate(np.ascontiguousarray(values.T)):
        if len(column) < FEWEST_SHARED or not np.nanmax(column) > np.nanmin(column):
            continue
        before = first.setdefault(column.tobytes(), i)
        if before != i:
            pairs.append((before, i))
    return pairs


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED_AT_MOST]) + (" ..." if len(names) > NAMED_AT_MOST else "")
