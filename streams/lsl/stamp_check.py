"""Check that a stream stamps with LSL's clock: how old samples are when they arrive."""

from __future__ import annotations

import time

import numpy as np

from streams.errors import StreamUnfitError
from streams.messages import Float64s

MOST_AHEAD_S = 0.5
"""Stamps further in the future are from another clock; no offset's error is as large."""
MOST_BEHIND_S = 5.0
"""Older ones too, if none is younger: no acquisition program holds spikes back for so long."""
UNIX_WITHIN_S = 7 * 86_400.0
UNIX_UNITS = {"": 1.0, " in milliseconds": 1e3, " in microseconds": 1e6, " in nanoseconds": 1e9}


def is_other_clock(age_s: float) -> bool:
    """Return True where this age, arrival - stamp in seconds, tells another clock."""
    return not -MOST_AHEAD_S <= age_s <= MOST_BEHIND_S


def require_lsl_clock(stream: str, age_s: Float64s) -> None:
    """Refuse a stream whose stamps are another clock's.

    Args:
        stream: its description, for the text.
        age_s: (n,) arrival - stamp for new samples, the clock offset applied;
            values that are not finite are left out.

    Raises:
        StreamUnfitError: their median age is impossible; the text says how far off they are.
    """
    finite = age_s[np.isfinite(age_s)]
    if len(finite) and is_other_clock(age := float(np.median(finite))):
        raise StreamUnfitError(
            f"the stamps of LSL stream {stream} are not of LSL's clock: {how_far_off(age)}. Let "
            "its program stamp with LSL's local_clock() (or push without stamps); if it cannot, "
            'set `stamps = "arrival"`, which takes the time of arrival instead'
        )


def how_far_off(age_s: float) -> str:
    """Say how far stamps of this age, seconds, lie from LSL's clock."""
    where, stamp = "ahead of" if age_s < 0 else "behind", time.monotonic() - age_s
    unix = (
        f" (they look like Unix time{unit})"
        for unit, per_s in UNIX_UNITS.items()
        if abs(stamp / per_s - time.time()) < UNIX_WITHIN_S
    )
    return f"they are {abs(age_s):,.3f} s {where} it{next(unix, '')}"
