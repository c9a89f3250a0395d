"""NWB 2.x files become `Session`s, and back. The only file that imports pynwb."""

from __future__ import annotations

import json
import os
import re
import uuid
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hdmf.backends.hdf5 import H5DataIO
from hdmf.common import DynamicTableRegion, ElementIdentifiers, VectorData, VectorIndex
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.base import ProcessingModule, TimeSeriesReferenceVectorData
from pynwb.behavior import BehavioralTimeSeries, Position, SpatialSeries
from pynwb.core import MultiContainerInterface
from pynwb.ecephys import ElectricalSeries
from pynwb.epoch import TimeIntervals
from pynwb.file import Subject
from pynwb.icephys import PatchClampSeries
from pynwb.image import ImageSeries
from pynwb.misc import DecompositionSeries, Units
from pynwb.ophys import RoiResponseSeries

from streams.messages import Float64s, SpikeBatch
from streams.recording.torch_brain import is_torch_brain, read_torch_brain
from streams.session import Behavior, Session, SessionError, Trials, digest

SESSION_ID = re.compile(r"^(?P<subject>[^/]+)/(?P<date>\d{4}-\d\d-\d\d)/(?P<name>[^/]+)$")
KEY_OF_ID = re.compile(r"^u(0|[1-9]\d*)$")
KEY_COLUMN = "unit_key"
NOTES_MARK = "spikeloop_session"
NEURAL = (DecompositionSeries, ElectricalSeries, ImageSeries, PatchClampSeries, RoiResponseSeries)
MAX_VALUES = 50_000_000
"""A longer signal is raw data that somebody stored as a plain series, not behaviour."""


def read_session(path: str | os.PathLike[str]) -> Session:
    """Read a recording: units, behaviour, trials and where it came from.

    A file `.h5` or `.hdf5` that is not NWB is read as torch_brain's; what follows is of NWB.
    Behaviour is every numeric series under `processing` and `acquisition`, directly or inside a
    container; neural and image series are left out, and what could not be used is named in
    `provenance["skipped"]`. Times stay those of the file.

    Raises:
        SessionError: the file is missing, is not NWB, or has no units; the text lists what it has.
    """
    path = Path(path)
    if not path.is_file():
        raise SessionError(f"no file {path}: give the path of an NWB file")
    if is_torch_brain(path):
        return read_torch_brain(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with NWBHDF5IO(str(path), "r", load_namespaces=True) as io:
                return _session(io.read(), path)
        except (OSError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise SessionError(f"{path} cannot be read as NWB 2.x: {error}") from error


def write_session(session: Session, path: str | os.PathLike[str]) -> None:
    """Write a recording as NWB; the same session gives the same bytes.

    Entries that stand for several spikes are written as that many spikes. The file appears whole
    or not at all.

    Raises:
        SessionError: its id is not `subject/YYYY-MM-DD/name`, or the path of a behaviour is not
            `processing/<module>/[<container>/]<name>` or `acquisition/[<container>/]<name>`.
    """
    path = Path(path)
    identifier = digest(session)
    nwb = _nwb_file(session, identifier)
    _add_units(nwb, session)
    _add_behavior(nwb, session.behavior)
    if session.trials is not None:
        nwb.trials = _trials_table(session.trials)
    part = path.with_name(f".{path.name}.part")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with NWBHDF5IO(str(part), "w") as io:
                io.write(nwb)
        _fix_object_ids(part, identifier)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _session(nwb: NWBFile, path: Path) -> Session:
    own = _own_notes(nwb)
    keys, spikes, n_bad = _units(nwb, path)
    span_s = (spikes.t_us[-1] - spikes.t_us[0]) * 1e-6 if len(spikes) else 0.0
    behavior, skipped = _behavior(nwb, span_s)
    if n_bad:
        skipped.append(f"{n_bad} spike times that are not finite")
    trials = _trials(nwb)
    return Session(
        id=_session_id(nwb, path),
        unit_keys=keys,
        spikes=spikes,
        behavior=behavior,
        trials=trials,
        duration_s=own.get("duration_s", _end_s(spikes, behavior, trials)),
        provenance=_provenance(nwb, path, skipped) | own.get("provenance", {}),
    )


def _own_notes(nwb: NWBFile) -> dict[str, Any]:
    if not (nwb.notes or "").startswith(f'{{"{NOTES_MARK}"'):
        return {}
    own: dict[str, Any] = json.loads(nwb.notes)[NOTES_MARK]
    return own


def _session_id(nwb: NWBFile, path: Path) -> str:
    if SESSION_ID.match(nwb.session_id or ""):
        return str(nwb.session_id)
    subject = (nwb.subject.subject_id if nwb.subject else None) or "unknown"
    return f"{subject.replace('/', '-')}/{nwb.session_start_time:%Y-%m-%d}/{path.stem}"


def _provenance(nwb: NWBFile, path: Path, skipped: list[str]) -> dict[str, str]:
    found = {
        "file": path.name,
        "identifier": nwb.identifier,
        "description": nwb.session_description,
        "session_start_time": nwb.session_start_time.isoformat(),
        "species": nwb.subject.species if nwb.subject else None,
        "institution": nwb.institution,
        "lab": nwb.lab,
        "devices": ", ".join(sorted(nwb.devices)),
        "notes": None if _own_notes(nwb) else nwb.notes,
        "skipped": "; ".join(skipped),
    }
    return {name: str(text) for name, text in found.items() if text}


def _units(nwb: NWBFile, path: Path) -> tuple[tuple[str, ...], SpikeBatch, int]:
    units = nwb.units
    if units is None or "spike_times" not in units.colnames or not len(units):
        raise SessionError(
            f"{path} has no units with spike times, which is what a decoder reads; "
            f"it has: {', '.join(_contents(nwb)) or 'nothing'}"
        )
    index = units["spike_times"]
    ends = np.asarray(index.data[:], np.int64)
    t_s = np.asarray(index.target.data[: ends[-1]], np.float64)
    unit = np.repeat(np.arange(len(ends), dtype=np.int32), np.diff(ends, prepend=0))
    finite = np.isfinite(t_s)
    t_us, unit = np.rint(t_s[finite] * 1e6).astype(np.int64), unit[finite]
    order = np.argsort(t_us, kind="stable")
    spikes = SpikeBatch(t_us[order], unit[order], np.ones(len(order), np.int32))
    return _unit_keys(units, path), spikes, int(np.count_nonzero(~finite))


def _unit_keys(units: Units, path: Path) -> tuple[str, ...]:
    if KEY_COLUMN in units.colnames:
        keys = tuple(str(key) for key in units[KEY_COLUMN].data[:])
    else:
        keys = tuple(f"u{i}" for i in units.id.data[:])
    if len(set(keys)) < len(keys):
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise SessionError(f"{path} has several units of one id: {', '.join(twice[:10])}")
    return keys


def _contents(nwb: NWBFile) -> list[str]:
    modules = [f"processing/{m}/{n}" for m in nwb.processing for n in nwb.processing[m].containers]
    tables = [f"intervals/{name}" for name in nwb.intervals or ()]
    units = [f"units ({len(nwb.units)} rows)"] if nwb.units is not None else []
    return [*(f"acquisition/{name}" for name in nwb.acquisition), *modules, *tables, *units]


def _series(nwb: NWBFile) -> Iterator[tuple[str, TimeSeries]]:
    """Every series under processing and acquisition, with its path."""
    places = {f"processing/{name}": module.containers for name, module in nwb.processing.items()}
    places["acquisition"] = nwb.acquisition
    for place, holders in places.items():
        for name, holder in sorted(holders.items()):
            if isinstance(holder, TimeSeries):
                yield f"{place}/{name}", holder
            elif isinstance(holder, MultiContainerInterface):
                for child in sorted(holder.children, key=lambda child: str(child.name)):
                    if isinstance(child, TimeSeries):
                        yield f"{place}/{name}/{child.name}", child


def _behavior(nwb: NWBFile, span_s: float) -> tuple[dict[str, Behavior], list[str]]:
    behavior, skipped = {}, []
    for path, series in _series(nwb):
        if isinstance(series, NEURAL):
            continue
        shape = np.shape(series.data)
        n_times = len(series.timestamps) if series.timestamps is not None else shape[:1]
        if len(shape) not in (1, 2) or not _is_numeric(series.data):
            skipped.append(f"{path} (not numbers over time)")
        elif np.prod(shape) > MAX_VALUES:
            skipped.append(f"{path} ({shape} values: too long for behaviour)")
        elif series.timestamps is not None and n_times != shape[0]:
            skipped.append(f"{path} ({n_times} timestamps for {shape[0]} samples)")
        else:
            behavior[path] = _signal(series, span_s)
    return behavior, skipped


def _is_numeric(data: Any) -> bool:
    kind = data.dtype if hasattr(data, "dtype") else np.asarray(data).dtype
    return bool(np.issubdtype(kind, np.number) or np.issubdtype(kind, np.bool_))


def _signal(series: TimeSeries, span_s: float) -> Behavior:
    values = np.asarray(series.data[:], np.float64)
    values = values.reshape(len(values), -1)
    if series.timestamps is not None:
        t_s, data_offset = np.asarray(series.timestamps[:], np.float64), series.offset
    else:
        t_s, data_offset = _regular_times(series, len(values), span_s)
    values = values * series.conversion + data_offset
    known = np.flatnonzero(np.isfinite(t_s))
    increasing = known[np.unique(t_s[known], return_index=True)[1]]
    return Behavior(t_s[increasing], values[increasing], series.unit or "unknown")


def _regular_times(series: TimeSeries, n: int, span_s: float) -> tuple[Float64s, float]:
    """Sample times, and what to add to the data.

    FALCON's H1 files hold the *step* in `rate` and the start in the data's `offset`: taken at its
    word such a signal would outlast the spikes a thousandfold.
    """
    start_s, data_offset, step_s = series.starting_time or 0.0, series.offset, 1.0 / series.rate
    if series.rate < 1.0 and span_s > 0.0 and n * step_s > 50.0 * span_s:
        start_s, data_offset, step_s = start_s or series.offset, 0.0, series.rate
    return start_s + np.arange(n) * step_s, data_offset


def _trials(nwb: NWBFile) -> Trials | None:
    table = nwb.trials
    if table is None:
        return None
    columns = {}
    for name in table.colnames:
        column = table[name]
        ragged = isinstance(
            column, (VectorIndex, DynamicTableRegion, TimeSeriesReferenceVectorData)
        )
        if name not in ("start_time", "stop_time") and not ragged:
            values = np.asarray(column.data[:])
            columns[name] = values.astype(np.str_) if values.dtype.kind in "OS" else values
    start_s, stop_s = (
        np.asarray(table[c].data[:], np.float64) for c in ("start_time", "stop_time")
    )
    return Trials(start_s, stop_s, columns)


def _end_s(spikes: SpikeBatch, behavior: Mapping[str, Behavior], trials: Trials | None) -> float:
    ends = [float(spikes.t_us[-1]) * 1e-6] if len(spikes) else []
    ends += [float(signal.t_s[-1]) for signal in behavior.values() if len(signal.t_s)]
    if trials is not None and len(trials):
        ends += [float(stop_s) for stop_s in trials.stop_s if np.isfinite(stop_s)]
    return max(ends, default=0.0)


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


def _trials_table(trials: Trials) -> TimeIntervals:
    values = {"start_time": trials.start_s, "stop_time": trials.stop_s, **trials.columns}
    columns = [
        VectorData(name=name, description=name, data=_plain(column))
        for name, column in values.items()
    ]
    ids = ElementIdentifiers(name="id", data=np.arange(len(trials)))
    return TimeIntervals(
        name="trials", description="trials", id=ids, columns=columns, colnames=list(values)
    )


def _plain(column: np.ndarray) -> Any:
    return [str(text) for text in column] if column.dtype.kind == "U" else column


def _fix_object_ids(path: Path, identifier: str) -> None:
    """Make the random ids that pynwb gives to objects a function of the content."""
    with h5py.File(path, "r+") as file:

        def fix(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if "object_id" in item.attrs:
                fixed = str(uuid.uuid5(uuid.NAMESPACE_OID, identifier + name))
                item.attrs.modify("object_id", fixed)

        fix("", file)
        file.visititems(fix)
