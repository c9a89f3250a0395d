"""`Session`: one recording, with its spikes, behaviour, trials and where it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from streams.messages import Float64s, SpikeBatch, StreamsError


class SessionError(StreamsError):
    """A recording cannot serve what was asked of it."""


@dataclass(frozen=True, slots=True)
class Behavior:
    """One behavioural signal.

    Attributes:
        t_s: (n,) float64, seconds from the session's start, increasing.
        values: (n, d) float64, physical units; NaN where nothing was measured.
        unit: physical unit, e.g. "cm/s".
    """

    t_s: Float64s
    values: Float64s
    unit: str

    def at(self, t_s: Float64s, max_gap_s: float = 0.1) -> Float64s:
        """Interpolate linearly; NaN outside the record and across gaps.

        Args:
            t_s: (m,) seconds from the session's start.
            max_gap_s: samples further apart than this, and than 1.5 usual steps, are a gap.

        Returns:
            (m, d) float64.
        """
        finite = np.isfinite(self.values).all(axis=1)
        known_s, known = self.t_s[finite], self.values[finite]
        out = np.full((len(t_s), self.values.shape[1]), np.nan)
        if len(known_s) < 2:
            return out
        right = np.clip(np.searchsorted(known_s, t_s, side="left"), 1, len(known_s) - 1)
        steps_s = np.diff(known_s)
        limit_s = max(max_gap_s, 1.5 * float(np.median(steps_s)))
        # The first sample after a gap is known: it begins the stretch that follows.
        begins = (known_s[right] == t_s) & (steps_s[right - 1] > limit_s)
        right = np.minimum(right + begins, len(known_s) - 1)
        left = right - 1
        step_s = known_s[right] - known_s[left]
        inside = (t_s >= known_s[0]) & (t_s <= known_s[-1]) & (step_s <= limit_s)
        share = np.clip((t_s - known_s[left]) / step_s, 0.0, 1.0)[:, None]
        mixed = known[left] * (1.0 - share) + known[right] * share
        out[inside] = mixed[inside]
        return out


@dataclass(frozen=True, slots=True)
class Trials:
    """Trial table.

    Attributes:
        start_s: (n,) float64, seconds from the session's start.
        stop_s: (n,) float64.
        columns: further columns, each (n, ...).
    """

    start_s: Float64s
    stop_s: Float64s
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.start_s)


@dataclass(frozen=True, slots=True)
class Session:
    """One recording.

    Attributes:
        id: `subject/YYYY-MM-DD/name`.
        unit_keys: key of each unit (`u17`, `ch12/u1`, a channel label).
        spikes: sorted by (t_us, unit), from the session's start; `unit` indexes `unit_keys`.
        behavior: signals by NWB path ("processing/behavior/Position/position").
        trials: None where the recording has none.
        duration_s: seconds.
        provenance: where it came from (file, subject, device, code version ...), for the record.
    """

    id: str
    unit_keys: tuple[str, ...]
    spikes: SpikeBatch
    behavior: Mapping[str, Behavior]
    trials: Trials | None
    duration_s: float
    provenance: Mapping[str, str] = field(default_factory=dict)

    def signal(self, name: str) -> Behavior:
        """The behavioural signal of that NWB path, or of the one path that ends with `/name`.

        Raises:
            SessionError: none or several match; the text lists those that the recording has.
        """
        matches = [path for path in self.behavior if path == name or path.endswith("/" + name)]
        if len(matches) != 1:
            have = ", ".join(sorted(self.behavior)) or "none"
            what = "several behaviours that end in" if matches else "no behaviour"
            raise SessionError(f"session {self.id} has {what} {name!r}; it has: {have}")
        return self.behavior[matches[0]]


def digest(session: Session) -> str:
    """sha256 over everything in the session."""
    digest = hashlib.sha256()
    own = [session.id, session.unit_keys, session.duration_s, dict(session.provenance)]
    digest.update(json.dumps(own, sort_keys=True).encode())
    arrays: list[np.ndarray] = [session.spikes.t_us, session.spikes.unit, session.spikes.count]
    for path, signal in sorted(session.behavior.items()):
        digest.update(f"{path} {signal.unit}".encode())
        arrays += [signal.t_s, signal.values]
    if session.trials is not None:
        arrays += [session.trials.start_s, session.trials.stop_s]
        digest.update(" ".join(session.trials.columns).encode())
        arrays += list(session.trials.columns.values())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
