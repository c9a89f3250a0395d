"""torch_brain's HDF5 recordings become `Session`s (the layout that its `temporaldata` writes).

Groups tell by their attribute `object` what they are: `spikes` with `timestamps` and `unit_index`,
`units` with `id`, series of behaviour such as `cursor` with `pos` and `vel`, intervals `trials`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from streams.messages import Float64s, SpikeBatch
from streams.session import Behavior, Session, SessionError, Trials

SUFFIXES = (".h5", ".hdf5")
SERIES = ("IrregularTimeSeries", "RegularTimeSeries")
INDEX = "timestamp_indices_1s"
UNKNOWN_DATE = "2000-01-01"


def is_torch_brain(path: Path) -> bool:
    """Whether a file is to be read here: by its suffix, and not NWB under another name."""
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return False
    try:
        with h5py.File(path, "r") as file:
            return "nwb_version" not in file.attrs
    except OSError:
        return True


def read_torch_brain(path: str | os.PathLike[str]) -> Session:
    """Read a recording; behaviour is named `GROUP/ARRAY`, for example `cursor/vel`.

    Times stay those of the file; what the file says was not recorded is NaN.

    Raises:
        SessionError: the file is missing, is not HDF5, or lacks what a decoder reads; the text
            says what, and what is there.
    """
    path = Path(path)
    try:
        with h5py.File(path, "r") as file:
            return _session(file, path)
    except FileNotFoundError as error:
        raise SessionError(f"no file {path}") from error
    except OSError as error:
        raise SessionError(f"{path} cannot be read as HDF5: {error}") from error


def _session(file: h5py.File, path: Path) -> Session:
    keys = _unit_keys(file, path)
    spikes = _spikes(file, path, len(keys))
    behavior = dict(_behavior(file))
    trials = _trials(file)
    ends_s = [float(spikes.t_us[-1]) * 1e-6] if len(spikes) else [0.0]
    ends_s += [float(signal.t_s[-1]) for signal in behavior.values() if len(signal.t_s)]
    ends_s += [float(np.nanmax(trials.stop_s))] if trials is not None and len(trials) else []
    return Session(
        id=_session_id(file, path),
        unit_keys=keys,
        spikes=spikes,
        behavior=behavior,
        trials=trials,
        duration_s=max(ends_s),
        provenance={"file": path.name, "format": "temporaldata HDF5"},
    )


def _array(file: h5py.File, path: Path, name: str) -> np.ndarray:
    """A dataset that must be there."""
    if not isinstance(file.get(name), h5py.Dataset):
        raise SessionError(
            f"{path} is no torch_brain recording of spikes: it lacks {name}; "
            f"it has: {', '.join(_contents(file)) or 'nothing'}"
        )
    held: np.ndarray = file[name][:]
    return held


def _contents(file: h5py.File) -> list[str]:
    return [
        f"{name}/{key}" if isinstance(group, h5py.Group) else name
        for name, group in sorted(file.items())
        for key in (sorted(group) if isinstance(group, h5py.Group) else [""])
    ]


def _unit_keys(file: h5py.File, path: Path) -> tuple[str, ...]:
    keys = tuple(_text(key) for key in _array(file, path, "units/id"))
    if len(set(keys)) < len(keys):
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise SessionError(f"{path} has several units of one id: {', '.join(twice[:10])}")
    return keys


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _spikes(file: h5py.File, path: Path, n_units: int) -> SpikeBatch:
    t_s = _array(file, path, "spikes/timestamps").astype(np.float64)
    unit = _array(file, path, "spikes/unit_index").astype(np.int64)
    if len(t_s) != len(unit) or not len(t_s):
        raise SessionError(f"{path}: {len(t_s)} spike times, {len(unit)} entries of unit_index")
    if unit.min() < 0 or unit.max() >= n_units:
        raise SessionError(
            f"{path}: spikes/unit_index runs from {unit.min()} to {unit.max()}, "
            f"units/id has {n_units} rows"
        )
    finite = np.isfinite(t_s)
    t_us, row = np.rint(t_s[finite] * 1e6).astype(np.int64), unit[finite].astype(np.int32)
    order = np.lexsort((row, t_us))
    return SpikeBatch(t_us[order], row[order], np.ones(len(order), np.int32))


def _behavior(file: h5py.File) -> Iterator[tuple[str, Behavior]]:
    """Every numeric array over the time of its series, but those that mark splits."""
    for name, group in sorted(file.items()):
        if name == "spikes" or _kind(group) not in SERIES:
            continue
        for key, data in sorted(group.items()):
            if not isinstance(data, h5py.Dataset) or data.ndim not in (1, 2):
                continue
            numeric = np.issubdtype(data.dtype, np.number)
            if numeric and key not in ("timestamps", INDEX):
                values = np.asarray(data[:], np.float64).reshape(len(data), -1)
                t_s, known = _times(group, len(values))
                if len(t_s) == len(values):
                    values[~known] = np.nan
                    yield (
                        f"{name}/{key}",
                        _increasing(t_s, values, _text(data.attrs.get("unit", ""))),
                    )


def _kind(item: h5py.Group | h5py.Dataset) -> str:
    return _text(item.attrs.get("object", "")).removeprefix("Lazy")


def _times(group: h5py.Group, n: int) -> tuple[Float64s, np.ndarray]:
    """(n,) seconds of each sample, and whether it lies in the series' domain."""
    starts_s, ends_s = (
        np.atleast_1d(np.asarray(group[f"domain/{edge}"][()], np.float64))
        for edge in ("start", "end")
    )
    if _kind(group) == "RegularTimeSeries":
        t_s = starts_s[0] + np.arange(n) / float(group.attrs["sampling_rate"])
    else:
        t_s = np.asarray(group["timestamps"][:], np.float64)
    i_interval = np.searchsorted(starts_s, t_s + 1e-9, side="right") - 1
    return t_s, (i_interval >= 0) & (t_s <= ends_s[np.maximum(i_interval, 0)] + 1e-9)


def _increasing(t_s: Float64s, values: Float64s, unit: str) -> Behavior:
    known = np.flatnonzero(np.isfinite(t_s))
    chosen = known[np.unique(t_s[known], return_index=True)[1]]
    return Behavior(t_s[chosen], values[chosen], unit or "unknown")


def _trials(file: h5py.File) -> Trials | None:
    group = file.get("trials")
    if not isinstance(group, h5py.Group) or not {"start", "end"} <= set(group):
        return None
    start_s, stop_s = (np.asarray(group[edge][:], np.float64) for edge in ("start", "end"))
    columns = {
        name: data[:].astype(np.str_) if data.dtype.kind in "SO" else data[:]
        for name, data in sorted(group.items())
        if isinstance(data, h5py.Dataset)
        and name not in ("start", "end")
        and data.shape[:1] == start_s.shape
    }
    return Trials(start_s, stop_s, columns)


def _session_id(file: h5py.File, path: Path) -> str:
    told = {
        name: {key: _text(value) for key, value in file[name].attrs.items()}
        for name in ("subject", "session")
        if isinstance(file.get(name), h5py.Group)
    }
    subject = told.get("subject", {}).get("id") or "unknown"
    when = told.get("session", {}).get("recording_date", "") + " " + path.stem
    found = re.search(r"(\d{4})-?(\d\d)-?(\d\d)", when)
    date = "-".join(found.groups()) if found else UNKNOWN_DATE
    return f"{subject.replace('/', '-')}/{date}/{path.stem}"
