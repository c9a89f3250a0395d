"""torch_brain's HDF5 recordings become `Session`s (the layout that its `temporaldata` writes).

Groups tell by their attribute `object` what they are: `spikes` with `timestamps` and `unit_index`,
`units` with `id`, behavioural series such as `cursor` with `pos` and `vel`, intervals `trials`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from streams.errors import SessionError
from streams.messages import Float64s
from streams.sessions.checks.beginning import begin
from streams.sessions.checks.contents import Contents, Spikes
from streams.sessions.choice import EVERYTHING, SessionChoice, TrialChoice, UnitChoice
from streams.sessions.hdf5 import open_hdf5, text_of, values_of
from streams.sessions.nwb.tables import Table
from streams.sessions.nwb.units import chosen_rows, require_own_keys
from streams.sessions.session import Behavior, Session, Trials, chosen_series

SUFFIXES = (".h5", ".hdf5")
SERIES = ("IrregularTimeSeries", "RegularTimeSeries")
INDEX = "timestamp_indices_1s"
UNKNOWN_DATE = "2000-01-01"


def is_torch_brain(path: Path) -> bool:
    """Return True for a file to read here, by its suffix, and not NWB under another name."""
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return False
    try:
        with h5py.File(path, "r") as file:
            return "nwb_version" not in file.attrs
    except OSError:
        return True


def read_torch_brain(path: str | os.PathLike[str], choice: SessionChoice = EVERYTHING) -> Session:
    """Read a recording; behaviour is named `GROUP/ARRAY`, for example `cursor/vel`.

    Times count from the session's first sample, see `begin`; what the file says was not recorded
    is NaN.

    Raises:
        SessionError: the file is missing, is not HDF5, or lacks what a decoder reads; the text
            says what, and what is there.
    """
    path = Path(path)
    with open_hdf5(path) as file:
        return begin(_contents_read(file, path, choice), choice, str(path))


def _contents_read(file: h5py.File, path: Path, choice: SessionChoice) -> Contents:
    if choice.counts:
        raise SessionError(f"{path}: counts from a series are read from NWB files alone")
    series = _Series(file, path, choice.behavior_ticks_per_s)
    return Contents(
        id=_session_id(file, path),
        spikes=_chosen_units(file, path, choice.units),
        behavior=series.named(choice) if choice.behavior is not None else series.every(choice),
        trials=_trials(file, path, choice.trials),
        provenance={"file": path.name, "format": "temporaldata HDF5"},
        notes=series.notes,
    )


def _array(file: h5py.File, path: Path, name: str) -> np.ndarray:
    """A dataset that must be there."""
    if not isinstance(file.get(name), h5py.Dataset):
        raise SessionError(
            f"{path} is no torch_brain recording of spikes: it lacks {name}; "
            f"it has: {', '.join(_contents(file)) or 'nothing'}"
        )
    return values_of(file[name])


def _contents(file: h5py.File) -> list[str]:
    return [
        f"{name}/{key}" if isinstance(group, h5py.Group) else name
        for name, group in sorted(file.items())
        for key in (sorted(group) if isinstance(group, h5py.Group) else [""])
    ]


def _chosen_units(file: h5py.File, path: Path, choice: UnitChoice) -> Spikes:
    """Read the wanted units' spikes, under the keys that are wanted."""
    if choice.table not in ("", "units"):
        raise SessionError(f"{path}: units.table = {choice.table!r}, but torch_brain has `units`")
    _array(file, path, "units/id")
    table = Table(file["units"], path)
    chosen = chosen_rows(table, choice)
    parts = [table.flat(name).tolist() for name in (choice.key or "id").split(":")]
    keys = [":".join(map(str, row)) for row in zip(*parts, strict=True)]
    named = tuple(keys[i] for i in chosen)
    require_own_keys(named, table, choice)
    t_s, unit = _spikes(file, path, len(table), choice.ticks_per_s)
    row_of = np.full(len(table), -1, np.int32)
    row_of[chosen] = np.arange(len(chosen), dtype=np.int32)
    held = row_of[unit] >= 0
    return Spikes(named, choice.key or "id", t_s[held], row_of[unit[held]])


def _spikes(
    file: h5py.File, path: Path, n_units: int, ticks_per_s: float
) -> tuple[Float64s, np.ndarray]:
    """Read (n,) seconds, and (n,) unit rows, sorted by unit and time."""
    t_s = _array(file, path, "spikes/timestamps").astype(np.float64) / ticks_per_s
    unit = _array(file, path, "spikes/unit_index").astype(np.int64)
    if len(t_s) != len(unit) or not len(t_s):
        raise SessionError(f"{path}: {len(t_s)} spike times, {len(unit)} entries of unit_index")
    if unit.min() < 0 or unit.max() >= n_units:
        raise SessionError(
            f"{path}: spikes/unit_index runs from {unit.min()} to {unit.max()}, "
            f"units/id has {n_units} rows"
        )
    order = np.argsort(unit, kind="stable")
    return t_s[order], unit[order]


@dataclass(slots=True)
class _Series:
    """Reads every numeric array over its series' time, except those that mark splits."""

    file: h5py.File
    path: Path
    ticks_per_s: float
    notes: list[str] = field(default_factory=list)

    def named(self, choice: SessionChoice) -> dict[str, Behavior]:
        """Those that are named, and no other."""
        paths = list(self.paths())
        names = [*(choice.behavior or ()), *([choice.mask] if choice.mask else [])]
        chosen = [path for name in names for path in chosen_series(name, paths, str(self.path))]
        return {path: self.one(path) for path in chosen}

    def every(self, choice: SessionChoice) -> dict[str, Behavior]:
        """Those that can be read; the others are noted."""
        found = {}
        for path in self.paths():
            if path.rpartition("/")[2].endswith("_mask") and path != choice.mask:
                continue
            try:
                found[path] = self.one(path)
            except SessionError as error:
                self.notes.append(str(error).removeprefix(f"{self.path}: "))
        return found

    def paths(self) -> Iterator[str]:
        """Walk every array in a series."""
        for name, group in sorted(self.file.items()):
            if name == "spikes" or _kind(group) not in SERIES:
                continue
            for key, data in sorted(group.items()):
                if isinstance(data, h5py.Dataset) and data.ndim in (1, 2):
                    is_kind = data.dtype.kind in "iufb" and key not in ("timestamps", INDEX)
                    if is_kind:
                        yield f"{name}/{key}"

    def one(self, path: str) -> Behavior:
        """Read one array."""
        group = self.file[path.rpartition("/")[0]]
        data = self.file[path]
        values = np.asarray(values_of(data), np.float64).reshape(len(data), -1)
        t_s, known = _times(group, len(values), self.ticks_per_s)
        if len(t_s) != len(values):
            raise SessionError(
                f"{self.path}: {path} has {len(t_s)} timestamps for {len(values)} samples "
                f"(data of {data.shape}): it must be written again"
            )
        values[~known] = np.nan
        return _increasing(t_s, values, text_of(data.attrs.get("unit", "")))


def _kind(item: h5py.Group | h5py.Dataset) -> str:
    return text_of(item.attrs.get("object", "")).removeprefix("Lazy")


def _times(group: h5py.Group, n: int, ticks_per_s: float) -> tuple[Float64s, np.ndarray]:
    """Read (n,) sample times in seconds, and whether each lies in the series' domain."""
    starts_s, ends_s = (
        np.atleast_1d(np.asarray(group[f"domain/{edge}"][()], np.float64))
        for edge in ("start", "end")
    )
    if _kind(group) == "RegularTimeSeries":
        t_s = starts_s[0] + np.arange(n) / float(group.attrs["sampling_rate"])
    else:
        t_s = np.asarray(values_of(group["timestamps"]), np.float64)
        if len(t_s) != n:
            return t_s, np.ones(len(t_s), np.bool_)
    i_interval = np.searchsorted(starts_s, t_s + 1e-9, side="right") - 1
    known = (i_interval >= 0) & (t_s <= ends_s[np.maximum(i_interval, 0)] + 1e-9)
    return t_s / ticks_per_s, known


def _increasing(t_s: Float64s, values: Float64s, unit: str) -> Behavior:
    known = np.flatnonzero(np.isfinite(t_s))
    chosen = known[np.unique(t_s[known], return_index=True)[1]]
    return Behavior(t_s[chosen], values[chosen], unit or "unknown")


def _trials(file: h5py.File, path: Path, choice: TrialChoice) -> Trials | None:
    group = file.get(choice.table or "trials")
    if not isinstance(group, h5py.Group) or not {"start", "end"} <= set(group):
        if choice.table:
            raise SessionError(f"{path} has no intervals {choice.table!r} with start and end")
        return None
    start_s, stop_s = (
        np.asarray(values_of(group[edge]), np.float64) / choice.ticks_per_s
        for edge in ("start", "end")
    )
    columns = {
        name: values_of(data).astype(np.str_) if data.dtype.kind in "SO" else values_of(data)
        for name, data in sorted(group.items())
        if isinstance(data, h5py.Dataset)
        and name not in ("start", "end")
        and data.shape[:1] == start_s.shape
    }
    return Trials(start_s, stop_s, columns)


def _session_id(file: h5py.File, path: Path) -> str:
    told = {
        name: {key: text_of(value) for key, value in file[name].attrs.items()}
        for name in ("subject", "session")
        if isinstance(file.get(name), h5py.Group)
    }
    subject = told.get("subject", {}).get("id") or "unknown"
    when = told.get("session", {}).get("recording_date", "") + " " + path.stem
    found = re.search(r"(\d{4})-?(\d\d)-?(\d\d)", when)
    date = "-".join(found.groups()) if found else UNKNOWN_DATE
    return f"{subject.replace('/', '-')}/{date}/{path.stem}"
