"""`spikeloop convert`: recordings become a `Session`, with velocity from position, and trials."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from streams.errors import RecordingError, StreamUnfitError
from streams.messages import Float64s, SpikeBatch
from streams.sessions.convert.signals import (
    PLACE,
    behavior_of,
    marker_texts,
    require_trials,
    trials_of,
)
from streams.sessions.session import Behavior, Session, Trials
from streams.sessions.xdf.loading import Recorded
from streams.sessions.xdf.reading import Recording, read_recording
from streams.spikes.kernels.numpy_kernels import canonical_order
from streams.spikes.layouts.layout import Layout, LayoutOptions
from streams.spikes.layouts.table import layout_of

PARTS_APART_S = 1.0
"""Gap between a session's recordings, which are laid behind each other."""
QUIET_S = 0.25
"""A silence after which a source may have begun anew to count its samples."""
MENDED = "mended"
"""Entry in a session's provenance: everything dropped or mended, a line each."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Meaning of a recording's streams.

    Attributes:
        spikes: the spike stream's LSL type.
        spikes_name: its name; "" for any.
        array: prefix for the unit keys.
        columns: contents of the spike channels, where their labels do not tell.
        ignore_units: unit numbers, keys or labels to leave out.
        known_keys: unit keys that the session has even where they are silent.
        markers: the markers' LSL type; "" for none.
        markers_name: their name; "" for any.
        trial_start: beginning of the marker that starts a trial.
        trial_stop: beginning of the marker that ends it.
        behavior: type and name ("" for any) of behaviour streams; () for every stream of
            numbers.
        body: what moves, where the channels' labels do not say: `x`, `y` become `<body>_position`.
        channels: labels of `body`'s axes in order, x first; () for as the labels say.
    """

    spikes: str = "Spikes"
    spikes_name: str = ""
    array: str = ""
    columns: Sequence[str] = ()
    ignore_units: Sequence[int | str] = ()
    known_keys: Sequence[str] = ()
    markers: str = "Markers"
    markers_name: str = ""
    trial_start: str = "trial_start"
    trial_stop: str = "trial_stop"
    behavior: Sequence[tuple[str, str]] = ()
    body: str = "cursor"
    channels: Sequence[str] = ()


def convert(
    paths: Sequence[Path],
    session_id: str | None,
    reading: Reading,
    *,
    needs_trials: bool = False,
    each: Callable[[Session], Session] = lambda part: part,
) -> Session:
    """Make one session from one or several recordings.

    Times are shifted so that each recording begins a second after the one before has ended. What
    was dropped or mended is in the session's provenance.

    Args:
        paths: XDF files, in order.
        session_id: `subject/YYYY-MM-DD/name`; from the first file's name and date if None.
        reading: what means what.
        needs_trials: refuse markers that make no trial.
        each: changes each recording's session before they are joined.

    Raises:
        RecordingError: a file is no recording, holds no spikes, or streams that do not fit.
        StreamUnfitError: no layout reads the spikes.
    """
    recordings = [read_recording(path) for path in paths]
    session = joined([each(session_of(recording, reading)) for recording in recordings])
    if needs_trials and session.trials is not None and not len(session.trials):
        held = [one.markers(reading.markers, reading.markers_name) for one in recordings]
        texts = [text for one in held if one is not None for text in marker_texts(one)]
        require_trials(texts, trial_start=reading.trial_start, trial_stop=reading.trial_stop)
    date = recordings[0].created[:10] or datetime.now().astimezone().date().isoformat()
    return replace(session, id=session_id or f"unknown/{date}/{paths[0].stem}")


@np.errstate(all="ignore")  # of values that damage made infinite, see `read_recording`
def session_of(recording: Recording, reading: Reading) -> Session:
    """One recording, as far as it has come, as a session without a name.

    It begins at its first sample, on whatever stream.

    Raises:
        RecordingError: it holds no spikes, or streams that do not fit.
        StreamUnfitError: no layout reads the spikes.
    """
    remarks = list(recording.remarks)
    pieces = recording.pieces(reading.spikes, reading.spikes_name)
    behaviors = _behavior_streams(recording, reading, remarks)
    markers = recording.markers(reading.markers, reading.markers_name)
    needed = [*pieces, *([] if markers is None else [markers])]
    for one in needed:
        _require_stamps(one, recording)
    used = [one.t_s for one in (*needed, *behaviors) if len(one)]
    first_s = min((float(t_s.min()) for t_s in used), default=0.0)
    last_s = max((float(t_s.max()) for t_s in used), default=0.0)
    spikes, keys = _spikes(pieces, reading, first_s, remarks)
    behavior = _signals(behaviors, recording, reading, first_s)
    if len(pieces) > 1:
        at = ", ".join(f"{float(one.t_s.min()) - first_s:.3f} s" for one in pieces[1:])
        remarks.append(
            f"{pieces[0].description.name!r} was made anew {len(pieces) - 1} times, at {at}: its "
            "pieces are joined"
        )
    return Session(
        id="unknown/2026-01-01/part",
        unit_keys=keys,
        spikes=spikes,
        behavior=behavior,
        trials=_trials(markers, first_s, behavior, reading) if reading.markers else None,
        duration_s=last_s - first_s,
        provenance={
            "recording": recording.path.name,
            "recorded": recording.created,
            "source": str(pieces[0].description),
            "lsl_time_of_start": repr(first_s),
            MENDED: "\n".join(f"{recording.path.name}: {line}" for line in remarks),
        },
    )


@np.errstate(all="ignore")  # of values that damage made infinite, see `read_recording`
def behavior_in(
    recording: Recording, reading: Reading, first_s: float
) -> tuple[dict[str, Behavior], Trials | None]:
    """Return a recording's behaviour and trials alone, whether or not it holds spikes.

    Args:
        recording: what was recorded.
        reading: what means what.
        first_s: times count from here, seconds on LSL's clock.

    Raises:
        RecordingError: it holds streams that do not fit.
    """
    streams = _behavior_streams(recording, reading, [])
    behavior = _signals(streams, recording, reading, first_s)
    markers = recording.markers(reading.markers, reading.markers_name) if reading.markers else None
    if markers is not None:
        _require_stamps(markers, recording)
    return behavior, _trials(markers, first_s, behavior, reading)


def _signals(
    streams: Sequence[Recorded], recording: Recording, reading: Reading, first_s: float
) -> dict[str, Behavior]:
    behavior: dict[str, Behavior] = {}
    for stream in streams:
        for path, signal in behavior_of(stream, first_s, reading.body, reading.channels).items():
            if path in behavior:
                raise RecordingError(
                    f"{recording.path} holds {path} twice, the second from {stream.description}: "
                    "say which streams are behaviour with --behavior TYPE:NAME"
                )
            behavior[path] = signal
    return behavior


def _behavior_streams(recording: Recording, reading: Reading, remarks: list[str]) -> list[Recorded]:
    """Find the behaviour streams, pieces joined; those with useless stamps are left out."""
    no_behavior = {reading.spikes, reading.markers, "Markers"}
    found = dict.fromkeys(
        (one.description.type, one.description.name)
        for one in recording.streams.values()
        if one.description.format != "string" and one.description.type not in no_behavior
    )
    if reading.behavior:
        wanted = [(kind, name) for kind, name in reading.behavior]
        found = dict.fromkeys(one for one in found if one in wanted or (one[0], "") in wanted)
    streams = []
    for kind, name in found:
        stream = recording.of_type(kind, name)
        if stream.trouble:
            remarks.append(f"{stream.description} was left out: {stream.trouble}")
        elif len(stream):
            streams.append(stream)
    return streams


def _require_stamps(stream: Recorded, recording: Recording) -> None:
    if stream.trouble:
        raise RecordingError(
            f"{recording.path}: {stream.description} cannot be used: {stream.trouble}. Record "
            "again with stamps of LSL's clock, or with `spikeloop record --stamps arrival`"
        )


def _spikes(
    pieces: Sequence[Recorded], reading: Reading, first_s: float, remarks: list[str]
) -> tuple[SpikeBatch, tuple[str, ...]]:
    """Join the pieces' spikes in order; return them with the units' keys."""
    known: Sequence[str] = reading.known_keys
    times, units, counts = [], [], []
    index: dict[str, int] = {}
    fates: Counter[str] = Counter()
    for piece in pieces:
        layout = _layout(piece, known, reading)
        parts = []
        for part in _between_silences(piece.t_s):
            # Stamps that are not above 0 are no stamps to a layout.
            parsed = layout.parse(piece.values[part], piece.t_s[part] - first_s + 1.0)
            parts.append((parsed.t_s - 1.0, parsed.unit, parsed.count))
            fates["came twice"] += parsed.n_duplicate
            fates["were no spikes"] += len(parsed.invalid_s)
            fates["were of units to leave out"] += parsed.n_ignored
            fates["never came, by their sequence numbers"] += parsed.n_lost
        t_s, unit, count = (np.concatenate(column) for column in zip(*parts, strict=True))
        rows = [index.setdefault(key, len(index)) for key in layout.keys]
        times.append(np.rint(t_s * 1e6).astype(np.int64))
        units.append(np.array(rows, np.int32)[unit])
        counts.append(count)
    t_us, unit, count = np.concatenate(times), np.concatenate(units), np.concatenate(counts)
    if not len(t_us):
        raise RecordingError(
            f"stream {pieces[0].description} brought no spike in {sum(map(len, pieces))} samples: "
            "is the array connected, and are the amplifier's thresholds set?"
        )
    source = pieces[0].description.name
    remarks += [f"{n} samples of {source!r} {what}" for what, n in fates.items() if n]
    order = canonical_order(t_us, unit)
    return SpikeBatch(t_us[order], unit[order], count[order]), tuple(index)


def _layout(piece: Recorded, known: Sequence[str], reading: Reading) -> Layout:
    options = LayoutOptions(known, reading.array, reading.columns, reading.ignore_units)
    try:
        return layout_of(piece.description, piece.labels, options)
    except StreamUnfitError as err:
        raise StreamUnfitError(
            f"{err} (`spikeloop convert` takes them as --columns channel,unit,other)"
        ) from err


def _between_silences(t_s: Float64s) -> list[slice]:
    """The samples in stretches, so that a source that counts anew after one is noticed."""
    edges = [0, *(np.flatnonzero(np.diff(t_s) > QUIET_S) + 1).tolist(), len(t_s)]
    return [slice(begin, end) for begin, end in itertools.pairwise(edges)]


def _trials(
    markers: Recorded | None, first_s: float, behavior: dict[str, Behavior], reading: Reading
) -> Trials | None:
    if markers is None:
        return None
    trials = trials_of(
        marker_texts(markers),
        markers.t_s - first_s,
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
            MENDED: "\n".join(filter(None, (part.provenance.get(MENDED) for part in parts))),
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
