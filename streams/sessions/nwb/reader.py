"""NWB 2.x files read with h5py: what is named, and nothing else, so that the rest does no harm."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from streams.errors import LackingError, SessionError
from streams.sessions.checks.beginning import begin
from streams.sessions.checks.contents import Contents, Spikes, span_s
from streams.sessions.choice import SessionChoice, TrialChoice
from streams.sessions.hdf5 import member_at, open_hdf5, require_nwb2, text_of
from streams.sessions.nwb.series import SeriesReader, places_of
from streams.sessions.nwb.tables import find_table, table_paths
from streams.sessions.nwb.units import read_units, spikes_of_counts
from streams.sessions.session import Behavior, Session, Trials

SESSION_ID = re.compile(r"^(?P<subject>[^/]+)/(?P<date>\d{4}-\d\d-\d\d)/(?P<name>[^/]+)$")
NOTES_MARK = "spikeloop_session"
TEXTS = {
    "identifier": "identifier",
    "description": "session_description",
    "session_start_time": "session_start_time",
    "species": "general/subject/species",
    "institution": "general/institution",
    "lab": "general/lab",
}


# Numbers of a damaged file may be anything: what is not finite is met as such, not by numpy.
@np.errstate(all="ignore")
def read_nwb(path: Path, choice: SessionChoice) -> Session:
    """Read an NWB file.

    Raises:
        SessionError: it cannot be read as chosen.
    """
    with open_hdf5(path) as file:
        require_nwb2(file, path)
        return begin(_contents(file, path, choice), choice, str(path))


def _contents(file: h5py.File, path: Path, choice: SessionChoice) -> Contents:
    own = _own_notes(file)
    reader = SeriesReader(file, path, ticks_per_s=choice.behavior_ticks_per_s)
    if choice.counts:
        (counts,) = _one_series(reader, "counts", choice.counts.series).values()
        spikes = spikes_of_counts(counts, choice.counts, str(path))
    else:
        spikes = read_units(file, path, choice.units, told_contents)
    span = span_s(spikes.t_s)
    reader.spikes_s = span[1] - span[0] if span else 0.0
    behavior = _behavior(reader, choice)
    if own:
        spikes = Spikes(spikes.keys, "id", spikes.t_s, spikes.unit, spikes.count)
    return Contents(
        id=session_id(file, path),
        spikes=spikes,
        behavior=behavior,
        trials=_trials(file, path, choice.trials, reader.notes),
        provenance=_provenance(file, path, own) | own.get("provenance", {}),
        notes=reader.notes,
        begins_s=0.0 if own else None,
        duration_s=own.get("duration_s"),
    )


def _one_series(reader: SeriesReader, key: str, name: str) -> dict[str, Behavior]:
    """Read the series that a config key names; unlike behaviour, every file must have it."""
    try:
        found = reader.named([name])
    except LackingError as error:
        raise SessionError(f"{error}; the config asks for it, [sessions] {key}") from error
    if len(found) > 1:
        raise SessionError(
            f"{reader.path}: {name} is a container of {', '.join(found)}: name one of them, "
            f"[sessions] {key}"
        )
    return found


def _behavior(reader: SeriesReader, choice: SessionChoice) -> dict[str, Behavior]:
    held = reader.every() if choice.behavior is None else reader.named(choice.behavior)
    return {**held, **(_one_series(reader, "mask", choice.mask) if choice.mask else {})}


def _own_notes(file: h5py.File) -> dict[str, Any]:
    notes = _text(file, "general/notes")
    if not notes.startswith(f'{{"{NOTES_MARK}"'):
        return {}
    own: dict[str, Any] = json.loads(notes)[NOTES_MARK]
    return own


def _text(file: h5py.File, place: str) -> str:
    """Read a text from the file's head, "" where there is none."""
    data = member_at(file, place)
    return text_of(data[()]) if isinstance(data, h5py.Dataset) and data.shape == () else ""


def session_id(file: h5py.File, path: Path) -> str:
    """`subject/YYYY-MM-DD/name`, the name being the file's where the file does not say it."""
    told = _text(file, "general/session_id")
    if SESSION_ID.match(told):
        return told
    subject = _text(file, "general/subject/subject_id") or "unknown"
    started = _text(file, "session_start_time")
    try:
        date = f"{datetime.fromisoformat(started):%Y-%m-%d}"
    except ValueError:
        date = started[:10] if re.match(r"\d{4}-\d\d-\d\d", started) else "2000-01-01"
    return f"{subject.replace('/', '-')}/{date}/{path.stem}"


def _provenance(file: h5py.File, path: Path, own: dict[str, Any]) -> dict[str, str]:
    found = {name: _text(file, place) for name, place in TEXTS.items()}
    devices = member_at(file, "general/devices")
    found["file"] = path.name
    found["devices"] = ", ".join(sorted(devices)) if isinstance(devices, h5py.Group) else ""
    found["notes"] = "" if own else _text(file, "general/notes")
    return {name: text for name, text in found.items() if text}


def _trials(file: h5py.File, path: Path, choice: TrialChoice, notes: list[str]) -> Trials | None:
    """The trials that are named; the usual ones where none are, if they can be read."""
    try:
        return _read_trials(file, path, choice)
    except SessionError as error:
        if choice.table:
            raise
        notes.append(str(error).removeprefix(f"{path}: "))
        return None


def _read_trials(file: h5py.File, path: Path, choice: TrialChoice) -> Trials | None:
    table = find_table(file, path, choice.table, "intervals/trials")
    if table is None:
        return None
    columns = table.flat_columns() if len(table) else {}
    edges = [table.flat(name) for name in ("start_time", "stop_time")]
    if not all(edge.ndim == 1 and edge.dtype.kind in "iuf" for edge in edges):
        raise SessionError(f"{path}: start_time and stop_time of {table.name} are no times")
    start_s, stop_s = (np.asarray(edge, np.float64) / choice.ticks_per_s for edge in edges)
    hidden = ("id", "start_time", "stop_time")
    return Trials(
        start_s, stop_s, {name: col for name, col in columns.items() if name not in hidden}
    )


def told_contents(file: h5py.File) -> str:
    """List a file's contents, for messages."""
    told = []
    for place in places_of(file):
        held = file.get(place)
        told += [f"{place}/{name}" for name in held] if isinstance(held, h5py.Group) else []
    tables = [place for place in table_paths(file) if not place.startswith("general")]
    return ", ".join(dict.fromkeys([*told, *tables])) or "nothing"
