"""Sessions written as NWB. The only file that imports pynwb."""

from __future__ import annotations

import json
import os
import re
import uuid
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hdmf.backends.hdf5 import H5DataIO
from hdmf.common import ElementIdentifiers, VectorData, VectorIndex
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.base import ProcessingModule
from pynwb.behavior import BehavioralTimeSeries, Position, SpatialSeries
from pynwb.epoch import TimeIntervals
from pynwb.file import Subject
from pynwb.misc import Units

from streams.errors import SessionError
from streams.files import make_private, written_whole
from streams.sessions.nwb.reader import NOTES_MARK, SESSION_ID
from streams.sessions.nwb.units import KEY_COLUMN
from streams.sessions.session import Behavior, Session, Trials, digest

KEY_OF_ID = re.compile(r"^u(0|[1-9]\d*)$")


def write_session(
    session: Session,
    path: str | os.PathLike[str],
    intervals: Mapping[str, Trials] | None = None,
) -> None:
    """Write a recording as NWB; the same session gives the same bytes.

    Entries that stand for several spikes are written as that many spikes. The file appears whole
    or not at all.

    Args:
        session: the recording.
        path: of the file.
        intervals: further tables of intervals, by name.

    Raises:
        SessionError: its id is not `subject/YYYY-MM-DD/name`, or a behaviour's path is not
            `processing/<module>/[<container>/]<name>` or `acquisition/[<container>/]<name>`; or
            the disk refuses.
    """
    path = Path(path)
    identifier = digest(session)
    nwb = _nwb_file(session, identifier)
    _add_units(nwb, session)
    _add_behavior(nwb, session.behavior)
    if session.trials is not None:
        nwb.trials = _intervals("trials", session.trials)
    for name, table in (intervals or {}).items():
        nwb.add_time_intervals(_intervals(name, table))
    try:
        with written_whole(path) as part:
            make_private(part)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with NWBHDF5IO(str(part), "w") as io:
                    io.write(nwb)
            _fix_object_ids(part, identifier)
    except OSError as error:  # HDF5 tells where it was in its own code, in ten lines
        why = os.strerror(error.errno) if error.errno else str(error).partition("\n")[0]
        raise SessionError(f"cannot write {path}: {why}; nothing was left behind") from error


def _nwb_file(session: Session, identifier: str) -> NWBFile:
    parts = SESSION_ID.match(session.id)
    if parts is None:
        raise SessionError(f"session id {session.id!r} is not subject/YYYY-MM-DD/name")
    try:
        started = datetime.fromisoformat(parts["date"]).replace(tzinfo=UTC)
    except ValueError as error:
        raise SessionError(f"session id {session.id!r} holds no date: {error}") from error
    own = {"duration_s": session.duration_s, "provenance": dict(session.provenance)}
    return NWBFile(
        session_description=session.provenance.get("description", f"session {session.id}"),
        identifier=identifier,
        session_start_time=started,
        file_create_date=started,
        session_id=session.id,
        subject=Subject(subject_id=parts["subject"]),
        notes=json.dumps({NOTES_MARK: own}),
    )


def _add_units(nwb: NWBFile, session: Session) -> None:
    keys, spikes = session.unit_keys, session.spikes
    unit = np.repeat(spikes.unit, spikes.count)
    t_s = np.repeat(spikes.t_us, spikes.count)[np.argsort(unit, kind="stable")] / 1e6
    times = VectorData(name="spike_times", description="spike times (s)", data=_packed(t_s))
    ends = np.cumsum(np.bincount(unit, minlength=len(keys)))
    index = VectorIndex(name="spike_times_index", target=times, data=ends)
    columns, numbered = [times, index], [KEY_OF_ID.match(key) for key in keys]
    ids = [int(match[1]) for match in numbered if match]
    if len(ids) < len(keys):
        ids = list(range(len(keys)))
        text = VectorData(name=KEY_COLUMN, description="key of the unit", data=list(keys))
        columns.append(text)
    nwb.units = Units(
        name="units",
        description="units",
        id=ElementIdentifiers(name="id", data=ids),
        columns=columns,
        colnames=[c.name for c in columns if c is not index],
    )


def _packed(values: np.ndarray) -> Any:
    return H5DataIO(values, compression="gzip", shuffle=True) if values.size else values


def _add_behavior(nwb: NWBFile, behavior: Mapping[str, Behavior]) -> None:
    by_holder: dict[tuple[str, ...], dict[str, Behavior]] = {}
    for path, signal in sorted(behavior.items()):
        *holder, name = path.split("/")
        n_least = {"acquisition": 1, "processing": 2}.get(path.split("/")[0], len(holder) + 1)
        if len(holder) not in (n_least, n_least + 1) or not all((*holder, name)):
            raise SessionError(
                f"behaviour {path!r} has no place in an NWB file: name it "
                "processing/<module>/[<container>/]<name> or acquisition/[<container>/]<name>"
            )
        by_holder.setdefault(tuple(holder), {})[name] = signal
    for (place, *inner), signals in by_holder.items():
        module = _module(nwb, inner.pop(0)) if place == "processing" else None
        add = nwb.add_acquisition if module is None else module.add
        spatial = inner == ["Position"] and all(s.values.shape[1] <= 3 for s in signals.values())
        series = [_written(name, signal, spatial) for name, signal in signals.items()]
        if spatial:
            add(Position(name=inner[0], spatial_series=series))
        elif inner:
            add(BehavioralTimeSeries(name=inner[0], time_series=series))
        else:
            for one in series:
                add(one)


def _module(nwb: NWBFile, name: str) -> ProcessingModule:
    if name not in nwb.processing:
        nwb.create_processing_module(name=name, description=name)
    return nwb.processing[name]


def _written(name: str, signal: Behavior, spatial: bool) -> TimeSeries:
    data, t_s = _packed(signal.values), _packed(signal.t_s)
    if spatial:
        return SpatialSeries(
            name=name, data=data, timestamps=t_s, unit=signal.unit, reference_frame="unknown"
        )
    return TimeSeries(name=name, data=data, timestamps=t_s, unit=signal.unit)


def _intervals(table_name: str, trials: Trials) -> TimeIntervals:
    values = {"start_time": trials.start_s, "stop_time": trials.stop_s, **trials.columns}
    columns = [
        VectorData(name=name, description=name, data=_plain(column))
        for name, column in values.items()
    ]
    ids = ElementIdentifiers(name="id", data=np.arange(len(trials)))
    return TimeIntervals(
        name=table_name, description=table_name, id=ids, columns=columns, colnames=list(values)
    )


def _plain(column: np.ndarray) -> Any:
    return [str(text) for text in column] if column.dtype.kind == "U" else column


def _fix_object_ids(path: Path, identifier: str) -> None:
    """Make pynwb's random object ids depend on the content alone."""
    with h5py.File(path, "r+") as file:

        def fix(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if "object_id" in item.attrs:
                fixed = str(uuid.uuid5(uuid.NAMESPACE_OID, identifier + name))
                item.attrs.modify("object_id", fixed)

        fix("", file)
        file.visititems(fix)
