"""The unlabelled number of the decoder that stays, against the targets it reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.days.ways import ANEW, FIXED, Scenario
from calibration.ridge import binned_counts
from export.bundle import open_bundle
from service.telemetry.unit_agreement import ADVISED_R2, reference_in
from streams.messages import Float64s
from streams.sessions.reading import read_session
from streams.sessions.session import Session
from streams.spikes.agreement import BIN_S, Moved, Reference, SharedSums, moved_since

HARMLESS = 0.05
"""A day that lost less than this share of its targets needs no calibration."""


def unlabelled(scenario: Scenario) -> dict[str, Any]:
    """Compare each day's units with the first day's calibration.

    Returns:
        For each day the share of the signal that is as it was, the loss in R2, the rate's share of
        that after a calibration, and whether one was advised; the loss' correlation with the rate,
        and the days on which advice was false.
    """
    reference = reference_in(open_bundle(Path(scenario.serving[FIXED])).manifest)
    if reference is None:
        raise ValueError("the decoder that stays holds no reference")
    days: list[dict[str, Any]] = []
    for day in scenario.days:
        moved = _moved(reference, sorted(scenario.folder.glob(f"fixed-{day.day}-*.nwb")))
        kept = day.per_min[FIXED] / day.per_min[ANEW]
        days.append(
            {
                "day": day.day,
                "per_min": day.per_min[FIXED],
                "kept": kept,
                "share": None if moved is None else moved.share,
                "r2_lost": None if moved is None else moved.r2_lost,
                "advised": moved is not None and moved.r2_lost >= ADVISED_R2,
            }
        )
    told = [one for one in days if one["r2_lost"] is not None]
    pairs = np.array([(one["r2_lost"], one["per_min"]) for one in told], np.float64)
    harmless = [one for one in days if one["kept"] > 1.0 - HARMLESS]
    return {
        "days": days,
        "r": float(np.corrcoef(pairs[:, 0], pairs[:, 1])[0, 1]) if len(told) > 2 else None,
        "false_advice": [one["day"] for one in harmless if one["advised"]],
        "harmless_days": len(harmless),
        "missed": [one["day"] for one in days if one not in harmless and not one["advised"]],
    }


def _moved(reference: Reference, paths: list[Path]) -> Moved | None:
    sums = SharedSums(reference.mean, reference.deviation, reference.readout)
    for path in paths:
        sums.forget_block()
        for row in _counts(reference, read_session(path)):
            sums.add(row)
    return moved_since(reference, sums)


def _counts(reference: Reference, session: Session) -> Float64s:
    """(n, U) counts of the reference's units in bins of `BIN_S`."""
    counts = binned_counts(session, BIN_S, int(session.duration_s / BIN_S))
    place = {key: i for i, key in enumerate(session.unit_keys)}
    found = np.zeros((len(counts), len(reference.keys)))
    for i, key in enumerate(reference.keys):
        if key in place:
            found[:, i] = counts[:, place[key]]
    return found
