"""`Session`: one recording, with its spikes, behaviour, trials and where it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from streams.errors import LackingError, SessionError
from streams.messages import Float64s, SpikeBatch

Interval = tuple[float, float]

NEGLIGIBLE = 1e-4
"""A sample with a smaller weight in an interpolation does not count."""


@dataclass(frozen=True, slots=True)
class Behavior:
    """One behavioural signal.

    Attributes:
        t_s: (n,) float64, seconds from the session's start, increasing.
        values: (n, d) float64, physical units; NaN where nothing was measured.
        unit: physical unit, e.g. "cm/s".
        masked_in: (n,) bool, the samples that a mask leaves to learn from and to score; None for
            all. It is the reader's choice and no part of the recording.
    """

    t_s: Float64s
    values: Float64s
    unit: str
    masked_in: np.ndarray | None = None

    def at(self, t_s: Float64s, max_gap_s: float = 0.1) -> Float64s:
        """Interpolate linearly; NaN outside the record, across gaps and beside masked samples.

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
        if self.masked_in is not None:
            kept = self.masked_in[finite]
            inside &= kept[left] | (share[:, 0] > 1.0 - NEGLIGIBLE)
            inside &= kept[right] | (share[:, 0] < NEGLIGIBLE)
        out[inside] = mixed[inside]
        return out

    def masked(self, mask: Behavior, max_gap_s: float = 0.1) -> Behavior:
        """Return the same signal, with only the samples left that a mask of 0 and 1 holds.

        Args:
            mask: one column; its samples may lie at other times than the signal's.
            max_gap_s: a sample within a longer gap in the mask is left out.
        """
        held = mask.at(self.t_s, max_gap_s)[:, 0] > 1.0 - NEGLIGIBLE
        return replace(self, masked_in=held)


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

    def rows(self, chosen: np.ndarray) -> Trials:
        """Choose some trials.

        Args:
            chosen: (n,) bool.
        """
        columns = {name: column[chosen] for name, column in self.columns.items()}
        return Trials(self.start_s[chosen], self.stop_s[chosen], columns)


@dataclass(frozen=True, slots=True)
class Session:
    """One recording.

    Attributes:
        id: `subject/YYYY-MM-DD/name`.
        unit_keys: each unit's key (`u17`, `ch12/u1`, a channel label).
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
        """Find the behavioural signal by its NWB path, or by the one path that ends with `/name`.

        A container's name stands for its series, one column after the other.

        Raises:
            SessionError: none or several match, or a container's series have not the same
                times; the text lists those that the recording has.
        """
        skipped = self.provenance.get("skipped", "")
        paths = chosen_series(name, self.behavior, f"session {self.id}", skipped)
        return self._joined(name, [self.behavior[path] for path in paths])

    def _joined(self, name: str, signals: list[Behavior]) -> Behavior:
        first = signals[0]
        if len(signals) == 1:
            return first
        if not all(np.array_equal(one.t_s, first.t_s) for one in signals):
            lengths = ", ".join(str(len(one.t_s)) for one in signals)
            raise SessionError(
                f"session {self.id}: the series of {name!r} have not the same times (lengths "
                f"{lengths}): name each as an output of its own"
            )
        units = {one.unit for one in signals}
        values = np.concatenate([one.values for one in signals], axis=1)
        return replace(first, values=values, unit=first.unit if len(units) == 1 else "mixed")


def in_intervals(t_s: Float64s, intervals: Sequence[Interval]) -> np.ndarray:
    """Return (n,) bool, True for each time in `(start, stop]` of any interval."""
    inside = np.zeros(len(t_s), np.bool_)
    for start_s, stop_s in intervals:
        inside |= (t_s > start_s + 1e-9) & (t_s <= stop_s + 1e-9)
    return inside


def chosen_series(name: str, paths: Iterable[str], whose: str, skipped: str = "") -> list[str]:
    """The series that a name means: the path itself, the one that ends in it, or a container's.

    Args:
        name: an NWB path, a path's end, or either for a container of series.
        paths: those of all series, in file order.
        whose: for messages.
        skipped: series not in `paths`, for messages.

    Raises:
        LackingError: there is none.
        SessionError: there are several, and not in one container.
    """
    paths = list(paths)
    if name in paths:
        return [name]
    ending = [path for path in paths if path.endswith("/" + name)]
    inside = [path for path in paths if f"/{_container(path)}".endswith("/" + name)]
    have = ", ".join(sorted(paths)) or "none"
    if len(ending) > 1 or len({_container(path) for path in inside}) > 1:
        raise SessionError(f"{whose} has several behaviours that end in {name!r}; it has: {have}")
    if not ending and not inside:
        left_out = f"; left out: {skipped}" if skipped else ""
        raise LackingError(f"{whose} has no behaviour {name!r}; it has: {have}{left_out}")
    return ending or inside


def _container(path: str) -> str:
    """The container that a series lies in; "" where it lies in a module or place itself."""
    parts = path.split("/")
    n_least = {"acquisition": 3, "processing": 4}.get(parts[0], len(parts) + 1)
    return "/".join(parts[:-1]) if len(parts) >= n_least else ""


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
