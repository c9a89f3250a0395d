"""Behaviour and markers in a recording: signals by their labels, velocity, trials from markers."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from streams.errors import RecordingError
from streams.lsl.axes import axes_of, named_channels
from streams.lsl.description import marker_text
from streams.messages import Float64s
from streams.sessions.session import Behavior
from streams.sessions.xdf.loading import Recorded

SLOPE_WIDTH_S = 0.045
PLACE = "processing/behavior"
SHOWN = 10
_PAIR = re.compile(r"(\w+)=(\S+)")


def behavior_of(
    stream: Recorded, first_s: float, body: str, channels: Sequence[str] = ()
) -> dict[str, Behavior]:
    """Turn a stream into signals, and positions into velocities too, by NWB path.

    Args:
        stream: holds numbers; among samples with one stamp the first is taken.
        first_s: the session's beginning.
        body: what moves, where the labels do not say.
        channels: the axes' labels in order, x first; () for as the labels say.

    Raises:
        RecordingError: a channel that is named is not there.
    """
    t_s = stream.t_s - first_s
    order = np.unique(t_s, return_index=True)[1]
    t_s, found = t_s[order], {}
    for name, (values, unit) in signals_of(stream, body, channels).items():
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


def signals_of(
    stream: Recorded, body: str, channels: Sequence[str] = ()
) -> dict[str, tuple[Float64s, str]]:
    """A stream's channels as signals: (n, d) values and their unit, by name.

    Channels `hand_x`, `hand_y` are the signal `hand_position`, x first, see `axes.axis_of`; a
    channel without axis is a signal under its own name.

    Raises:
        RecordingError: a channel that is named is not there.
    """
    labels = _labels(stream)
    groups: dict[str, list[int]] = {}
    if channels:
        groups[f"{body}_position"] = _named(stream, labels, channels)
    for named, columns in axes_of(labels).items():
        name = named if named.endswith("_velocity") else f"{named or body}_position"
        groups.setdefault(name, columns)
    taken = {i for columns in groups.values() for i in columns}
    for i, label in enumerate(labels):
        if i not in taken:
            groups.setdefault(label, [i])
    values = stream.values.astype(np.float64)
    return {name: (values[:, columns], stream.unit) for name, columns in groups.items()}


def _labels(stream: Recorded) -> list[str]:
    """A label for every channel; up to three without any are x, y and z."""
    n = stream.description.n_channels
    labels = stream.labels or (tuple("xyz"[:n]) if n <= 3 else ())
    return [labels[i] if i < len(labels) and labels[i] else f"channel_{i}" for i in range(n)]


def _named(stream: Recorded, labels: Sequence[str], channels: Sequence[str]) -> list[int]:
    found = named_channels(labels, channels)
    if found is None:
        raise RecordingError(
            f"stream {stream.description} has not each of the channels {', '.join(channels)} once; "
            f"it has: {', '.join(labels)}"
        )
    return found


def velocity(t_s: Float64s, position: Float64s, width_s: float = SLOPE_WIDTH_S) -> Float64s:
    """Fit a line to the samples around each one; return its slope.

    Args:
        t_s: (n,) increasing.
        position: (n, d).
        width_s: the stretch's width, at least three samples.

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


def marker_texts(markers: Recorded) -> list[str]:
    """Each marker as text: numbers as one writes them, several channels with a blank between."""
    return [" ".join(marker_text(value) for value in row).strip() for row in markers.values]


def trials_of(
    texts: Sequence[str], t_s: Float64s, *, trial_start: str, trial_stop: str
) -> list[dict[str, float]]:
    """Make trials from markers, ordered by start, however late the markers came.

    A stop ends the trial with its `i=` (or number), else the one running; one without a stop ends
    with the next start, and the very last is left out.

    Returns:
        `start_s`, `stop_s`, and every `name=number` in the two markers.
    """
    begun: list[dict[str, float]] = []
    for place in np.argsort(t_s, kind="stable"):
        text, at_s = texts[place], float(t_s[place])
        word = _word(text, trial_start, trial_stop)
        if word == trial_start:
            if begun and "stop_s" not in begun[-1]:
                begun[-1]["stop_s"] = at_s
                begun[-1]["unended"] = 1.0
            begun.append({"start_s": at_s} | _numbers(text.removeprefix(trial_start)))
        elif word == trial_stop and begun:
            stated = _numbers(text.removeprefix(trial_stop))
            i = stated.get("i")
            same = (one for one in reversed(begun) if i is None or one.get("i", i) == i)
            running = next(same, None)
            if running is not None and ("stop_s" not in running or "unended" in running):
                running.pop("unended", None)
                running |= stated | {"stop_s": at_s}
    for one in begun:
        one.pop("unended", None)
    return [one for one in begun if "stop_s" in one]


def require_trials(texts: Sequence[str], *, trial_start: str, trial_stop: str) -> None:
    """Refuse markers that make no trial.

    Args:
        texts: all markers' texts.
        trial_start: beginning of the marker that starts a trial.
        trial_stop: beginning of the marker that ends it.

    Raises:
        RecordingError: with ten different ones that came.
    """
    if not texts:
        return
    different = list(dict.fromkeys(texts))
    shown = ", ".join(repr(text) for text in different[:SHOWN])
    more = f" and {len(different) - SHOWN} others" if len(different) > SHOWN else ""
    likely = [text.split()[0] for text in different if text.split()]
    start, stop = [*dict.fromkeys(likely), "START", "STOP"][:2]
    raise RecordingError(
        f"no trial in {len(texts)} markers: no pair of them begins with {trial_start!r} and "
        f"{trial_stop!r}. These came: {shown}{more}. Say how a trial's markers begin, for example "
        f"--trial-start {start!r} --trial-stop {stop!r}, or go without trials: --markers ''"
    )


def _word(text: str, *words: str) -> str | None:
    """Find the longest word that the text begins with; a number only as a whole."""
    fitting = [word for word in words if text.startswith(word)]
    whole = [w for w in fitting if not (w[-1:].isdigit() and re.match(r"\.?\d", text[len(w) :]))]
    return max(whole, key=len, default=None)


def _numbers(text: str) -> dict[str, float]:
    """`i=3 x=7.1` as numbers; a bare number is `i`."""
    pairs = _PAIR.findall(text) or [("i", text.strip())]
    found = {}
    for name, value in pairs:
        try:
            found[name] = float(value)
        except ValueError:
            continue
    return found
