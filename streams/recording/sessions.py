"""`spikeloop convert`: recordings become a `Session`, with velocity from position, and trials."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from streams.messages import Float64s, SpikeBatch
from streams.recording.reading import Recorded, Recording, read_recording
from streams.recording.xdf import RecordingError
from streams.session import Behavior, Session, Trials
from streams.spikes.layouts import EventLayout, layout_of
from streams.spikes.tokenizer import canonical_order

PARTS_APART_S = 1.0
"""Recordings of one session are laid behind each other with this between them."""
SLOPE_WIDTH_S = 0.045
PLACE = "processing/behavior"
_AXES = re.compile(r"^(?:(?P<group>.*)_)?(?P<axis>[xyz])$")
_PAIR = re.compile(r"(\w+)=(\S+)")


@dataclass(frozen=True, slots=True)
class Reading:
    """What in a recording means what.

    Attributes:
        spikes: LSL type of the stream of spikes.
        spikes_name: its name; "" for any.
        array: prefix of the unit keys.
        known_keys: unit keys that the session has even where they are silent.
        markers: LSL type of the markers; "" for none.
        markers_name: their name; "" for any.
        trial_start: beginning of the marker that starts a trial.
        trial_stop: beginning of the marker that ends it.
        body: what moves, where the channels' labels do not say: `x`, `y` become `<body>_position`.
    """

    spikes: str = "Spikes"
    spikes_name: str = ""
    array: str = ""
    known_keys: Sequence[str] = ()
    markers: str = "Markers"
    markers_name: str = ""
    trial_start: str = "trial_start"
    trial_stop: str = "trial_stop"
    body: str = "cursor"


def convert(paths: Sequence[Path], session_id: str | None, reading: Reading) -> Session:
    """Make one session of one or several recordings.

    Times are shifted so that each recording begins a second after the one before has ended.

    Args:
        paths: XDF files, in order.
        session_id: `subject/YYYY-MM-DD/name`; from the first file's name and date if None.
        reading: what means what.

    Raises:
        RecordingError: a file is no recording, or holds no spikes.
        StreamUnfitError: the spikes are of no layout that we read.
    """
    recordings = [read_recording(path) for path in paths]
    session = joined([session_of(recording, reading) for recording in recordings])
    date = recordings[0].created[:10] or datetime.now().astimezone().date().isoformat()
    return replace(session, id=session_id or f"unknown/{date}/{paths[0].stem}")


def session_of(recording: Recording, reading: Reading) -> Session:
    """One recording, as far as it has come, as a session without a name.

    Raises:
        RecordingError: it holds no spikes.
        StreamUnfitError: the spikes are of no layout that we read.
    """
    source = recording.of_type(reading.spikes, reading.spikes_name)
    spikes_s, unit, count, keys = _spikes(source, reading)
    others = [
        one
        for one in recording.streams.values()
        if one is not source and one.description.format != "string" and len(one)
    ]
    first_s = min([float(t.min()) for t in (spikes_s, *(o.t_s for o in others)) if len(t)] or [0.0])
    shift_s = -first_s
    t_us = np.rint((spikes_s + shift_s) * 1e6).astype(np.int64)
    order = canonical_order(t_us, unit)
    behavior: dict[str, Behavior] = {}
    for stream in others:
        behavior |= _behavior(stream, shift_s, reading.body)
    ends_s = [float(t.max()) for t in (spikes_s, *(o.t_s for o in others)) if len(t)]
    trials = _trials(recording, shift_s, behavior, reading)
    return Session(
        id="unknown/2026-01-01/part",
        unit_keys=tuple(keys),
        spikes=SpikeBatch(t_us[order], unit[order], count[order]),
        behavior=behavior,
        trials=trials,
        duration_s=max(ends_s, default=0.0) + shift_s,
        provenance={
            "recording": recording.path.name,
            "recorded": recording.created,
            "source": str(source.description),
            "lsl_time_of_start": repr(-shift_s),
        },
    )


def trials_of(
    texts: Sequence[str], t_s: Float64s, *, trial_start: str, trial_stop: str
) -> list[dict[str, float]]:
    """Trials from markers, in the order of their starts, however late the markers came.

    A stop ends the trial with its `i=` (or number), else the one running; one without a stop ends
    with the next start, and the last of all is left out.

    Returns:
        `start_s`, `stop_s`, and every `name=number` of the two markers.
    """
    begun: list[dict[str, float]] = []
    for i in np.argsort(t_s, kind="stable"):
        text, at_s = texts[i], float(t_s[i])
        if text.startswith(trial_start):
            if begun and "stop_s" not in begun[-1]:
                begun[-1]["stop_s"] = at_s
                begun[-1]["unended"] = 1.0
            begun.append({"start_s": at_s} | _numbers(text.removeprefix(trial_start)))
        elif text.startswith(trial_stop) and begun:
            said = _numbers(text.removeprefix(trial_stop))
            running = next((one for one in reversed(begun) if _same(one, said)), None)
            if running is not None and ("stop_s" not in running or "unended" in running):
                running.pop("unended", None)
                running |= said | {"stop_s": at_s}
    for one in begun:
        one.pop("unended", None)
    return [one for one in begun if "stop_s" in one]


def _same(trial: dict[str, float], said: dict[str, float]) -> bool:
    return "i" not in said or "i" not in trial or trial["i"] == said["i"]


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


def marker_texts(markers: Recorded) -> list[str]:
    """The first channel, as text."""
    return [row[0].decode("utf-8", "replace") for row in markers.values]


def signals_of(stream: Recorded, body: str) -> dict[str, tuple[Float64s, str]]:
    """A stream's channels as signals: (n, d) values and their unit, by name.

    Channels `hand_x`, `hand_y` are the signal `hand_position`; a channel without axis is a signal
    of its own name.
    """
    labels = stream.labels or tuple("xyz"[: stream.description.n_channels])
    values = stream.values.astype(np.float64)
    groups: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        match = _AXES.match(label)
        name = f"{match['group'] or body}_position" if match else label or f"channel_{i}"
        groups.setdefault(name, []).append(i)
    return {name: (values[:, columns], stream.unit) for name, columns in groups.items()}


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


def _spikes(
    source: Recorded, reading: Reading
) -> tuple[Float64s, np.ndarray, np.ndarray, list[str]]:
    """Stamps on the recorder's clock, unit, count, and the units' keys."""
    layout = layout_of(source.description, source.labels, reading.known_keys, reading.array)
    parsed = layout.parse(source.values, source.t_s)
    if not len(parsed.t_s):
        raise RecordingError(
            f"stream {source.description} brought no spike in {len(source)} samples: "
            "is the array connected, and are the amplifier's thresholds set?"
        )
    keys = layout.table.keys if isinstance(layout, EventLayout) else layout.keys
    return parsed.t_s, parsed.unit, parsed.count, list(keys)


def _behavior(stream: Recorded, shift_s: float, body: str) -> dict[str, Behavior]:
    t_s = stream.t_s + shift_s
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


def _trials(
    recording: Recording, shift_s: float, behavior: dict[str, Behavior], reading: Reading
) -> Trials | None:
    if not reading.markers:
        return None
    try:
        markers = recording.of_type(reading.markers, reading.markers_name)
    except RecordingError:
        return None
    trials = trials_of(
        marker_texts(markers),
        markers.t_s + shift_s,
        trial_start=reading.trial_start,
        trial_stop=reading.trial_stop,
    )
    start_s = np.array([one["start_s"] for one in trials])
    target = np.array([(one.get("x", np.nan), one.get("y", np.nan)) for one in trials])
    shown = behavior.get(f"{PLACE}/Position/target_position")
    if shown is not None and len(trials) and not np.isfinite(target).any():
        target = shown.at(start_s + 0.05)
    return Trials(
        start_s=start_s,
        stop_s=np.array([one["stop_s"] for one in trials]),
        columns={
            "target": target.reshape(len(trials), -1) if len(trials) else np.zeros((0, 2)),
            "success": np.array([one.get("success", 1.0) > 0 for one in trials], np.bool_),
        },
    )


def joined(parts: Sequence[Session]) -> Session:
    """Several sessions as one, each a second after the one before; units by key."""
    if len(parts) == 1:
        return parts[0]
    keys = tuple(dict.fromkeys(key for part in parts for key in part.unit_keys))
    row = {key: i for i, key in enumerate(keys)}
    lasted_s = np.array([part.duration_s + PARTS_APART_S for part in parts])
    begins_s = np.concatenate([[0.0], np.cumsum(lasted_s)[:-1]]).tolist()
    spikes = []
    for part, begin_s in zip(parts, begins_s, strict=True):
        index = np.array([row[key] for key in part.unit_keys], np.int32)
        held = part.spikes
        spikes.append((held.t_us + round(begin_s * 1e6), index[held.unit], held.count))
    t_us, unit, count = (np.concatenate(columns) for columns in zip(*spikes, strict=True))
    names = [name for name in parts[0].behavior if all(name in one.behavior for one in parts)]
    return Session(
        id=parts[0].id,
        unit_keys=keys,
        spikes=SpikeBatch(t_us, unit, count),
        behavior={name: _chained(name, parts, begins_s) for name in names},
        trials=_chained_trials(parts, begins_s),
        duration_s=begins_s[-1] + parts[-1].duration_s,
        provenance={
            **parts[0].provenance,
            "recording": ", ".join(part.provenance.get("recording", "") for part in parts),
        },
    )


def _chained(name: str, parts: Sequence[Session], begins_s: Sequence[float]) -> Behavior:
    held = [part.behavior[name] for part in parts]
    t_s = [one.t_s + begin_s for one, begin_s in zip(held, begins_s, strict=True)]
    return Behavior(np.concatenate(t_s), np.concatenate([one.values for one in held]), held[0].unit)


def _chained_trials(parts: Sequence[Session], begins_s: Sequence[float]) -> Trials | None:
    """All trials, with the columns that every part has."""
    held = [
        (part.trials, begin_s)
        for part, begin_s in zip(parts, begins_s, strict=True)
        if part.trials is not None
    ]
    if not held:
        return None
    first = held[0][0]
    shapes = {name: column.shape[1:] for name, column in first.columns.items()}
    shared = [
        name
        for name, shape in shapes.items()
        if all(name in one.columns and one.columns[name].shape[1:] == shape for one, _ in held)
    ]
    return Trials(
        start_s=np.concatenate([one.start_s + begin_s for one, begin_s in held]),
        stop_s=np.concatenate([one.stop_s + begin_s for one, begin_s in held]),
        columns={name: np.concatenate([one.columns[name] for one, _ in held]) for name in shared},
    )
