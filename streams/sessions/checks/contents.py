"""Contents that a reader found in a file, before they are a `Session`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from streams.messages import Float64s, Int32s
from streams.sessions.session import Behavior, Trials


@dataclass(frozen=True, slots=True)
class Spikes:
    """Spikes in file order.

    Attributes:
        keys: one a unit.
        key_kind: what the keys are: "row numbers", "id", a column, "electrodes" or "columns of
            counts".
        t_s: (n,) float64, seconds on the file's clock, not always finite or in order.
        unit: (n,) int32, index into `keys`, increasing where the file has units row by row.
        count: (n,) int32; None for one spike an entry.
    """

    keys: tuple[str, ...]
    key_kind: str
    t_s: Float64s
    unit: Int32s
    count: Int32s | None = None


@dataclass(frozen=True, slots=True)
class Contents:
    """A recording in seconds on the file's clock.

    Attributes:
        id: the session's.
        spikes: from the chosen units.
        behavior: by path.
        trials: None where there are none.
        provenance: where it came from.
        notes: what was left out or mended, in words.
        begins_s: where the session begins on the file's clock, if its writer says so.
        duration_s: how long it is, if its writer says so.
    """

    id: str
    spikes: Spikes
    behavior: Mapping[str, Behavior]
    trials: Trials | None
    provenance: Mapping[str, str]
    notes: list[str] = field(default_factory=list)
    begins_s: float | None = None
    duration_s: float | None = None


def span_s(t_s: np.ndarray) -> tuple[float, float] | None:
    """Return the first and last finite time."""
    finite = t_s[np.isfinite(t_s)]
    return (float(finite.min()), float(finite.max())) if len(finite) else None
