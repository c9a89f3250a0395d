"""Behaviour in a recording: channels as signals by their labels, and velocity from position."""

from __future__ import annotations

import re

import numpy as np

from streams.messages import Float64s
from streams.recording.reading import Recorded
from streams.session import Behavior

SLOPE_WIDTH_S = 0.045
PLACE = "processing/behavior"
_AXES = re.compile(r"^(?:(?P<group>.*)_)?(?P<axis>[xyz])$", re.IGNORECASE)


def behavior_of(stream: Recorded, first_s: float, body: str) -> dict[str, Behavior]:
    """A stream as signals and the velocities of its positions, by NWB path.

    Args:
        stream: of numbers; of samples with one stamp the first is taken.
        first_s: the session's beginning.
        body: what moves, where the labels do not say.
    """
    t_s = stream.t_s - first_s
    order = np.unique(t_s, return_index=True)[1]
    t_s, found = t_s[order], {}
    for name, (values, unit) in signals_of(stream, body).items():
        held = values[order]
        if not name.endswith("_position"):
            found[f"{PLACE}/BehavioralTimeSeries/{name}"] = Behavior(t_s, held, unit or "unknown")
            continue
        found[f"{PLACE}/Position/{name}"] = Behavior(t_s, held, unit or "unknown")
        moving = name.removesuffix("_position") + "_velocity"
        found[f"{PLACE}/BehavioralTimeSeries/{moving}"] = Behavior(
            t_s, velocity(t_s, held), f"{unit or 'unknown'}/s"
        )
    return found


def signals_of(stream: Recorded, body: str) -> dict[str, tuple[Float64s, str]]:
    """A stream's channels as signals: (n, d) values and their unit, by name.

    Channels `hand_x`, `hand_y` are the signal `hand_position`, x first, in capitals too; a channel
    without axis is a signal of its own name.
    """
    n_channels = stream.description.n_channels
    labels = stream.labels or (tuple("xyz"[:n_channels]) if n_channels <= 3 else ())
    labels += ("",) * (n_channels - len(labels))
    values = stream.values.astype(np.float64)
    groups: dict[str, list[tuple[str, int]]] = {}
    for i, label in enumerate(labels[:n_channels]):
        match = _AXES.match(label)
        name = f"{match['group'] or body}_position" if match else label or f"channel_{i}"
        groups.setdefault(name, []).append((match["axis"].lower() if match else "", i))
    return {
        name: (values[:, [i for _, i in sorted(columns)]], stream.unit)
        for name, columns in groups.items()
    }


def velocity(t_s: Float64s, position: Float64s, width_s: float = SLOPE_WIDTH_S) -> Float64s:
    """The slope of a line fitted to the samples around each one.

    Args:
        t_s: (n,) increasing.
        position: (n, d).
        width_s: of the stretch, at least three samples.

    Returns:
        (n, d); NaN where there are too few samples.
    """
    n = len(t_s)
    if n < 3:
        return np.full(position.shape, np.nan)
    half_s = max(width_s / 2.0, 1.5 * float(np.median(np.diff(t_s))))
    first = np.searchsorted(t_s, t_s - half_s, side="left")
    last = np.searchsorted(t_s, t_s + half_s, side="right")
    count = (last - first)[:, None].astype(np.float64)
    missing = ~np.asarray(np.isfinite(position).all(axis=1))
    if missing.all():
        return np.full(position.shape, np.nan)
    t, x = (t_s - t_s[0])[:, None], position - position[~missing].mean(axis=0)

    def total(values: Float64s) -> Float64s:
        sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
        held: Float64s = sums[last] - sums[first]
        return held

    x = np.where(missing[:, None], 0.0, x)
    st, sx = total(t), total(x)
    spread = total(t * t) - st * st / count
    with np.errstate(divide="ignore", invalid="ignore"):
        slope: Float64s = (total(t * x) - st * sx / count) / spread
    short = (count[:, 0] < 3) | (total(missing[:, None].astype(np.float64))[:, 0] > 0)
    slope[short] = np.nan
    return slope
