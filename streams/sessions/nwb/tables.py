"""NWB tables (units, trials, electrodes) read column by column."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np

from streams.errors import SessionError
from streams.messages import Int64s
from streams.sessions.hdf5 import member, member_at, text_of, values_of


class Table:
    """One table.

    Args:
        group: its group in the file.
        path: the file's, for messages.
    """

    def __init__(self, group: h5py.Group, path: Path) -> None:
        self.group, self.path = group, path
        self.name = str(group.name).strip("/")
        ids = member(group, "id")
        if not isinstance(ids, h5py.Dataset):
            raise SessionError(f"{path}: {self.name} is no table of NWB: it has no column `id`")
        self.ids = values_of(ids)
        if self.ids.ndim != 1:
            raise SessionError(f"{path}: {self.name}/id holds {self.ids.shape}, not one id a row")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def columns(self) -> list[str]:
        """Column names, `id` first."""
        told = [text_of(name) for name in np.ravel(self.group.attrs.get("colnames", []))]
        held = [name for name, item in _datasets(self.group) if not name.endswith("_index")]
        named = [name for name in told if name in self.group]
        return ["id", *dict.fromkeys([*named, *(name for name in held if name != "id")])]

    def flat(self, name: str) -> np.ndarray:
        """A column with one value a row: numbers, booleans or texts.

        Raises:
            SessionError: there is no such column, or it has not one value a row.
        """
        if name not in self.columns:
            raise self._refusal(f" has no column {name!r}; it has: {', '.join(self.columns)}")
        data = member(self.group, name)
        if not isinstance(data, h5py.Dataset) or f"{name}_index" in self.group:
            raise self._refusal(f"/{name} has not one value a row")
        values = _plain(data, values_of(data))
        if values.shape[:1] != (len(self),):
            n = values.shape[0] if values.ndim else 1
            raise self._refusal(f"/{name} holds {n} values for {len(self)} rows")
        return values

    def flat_columns(self) -> dict[str, np.ndarray]:
        """Every column with one number, boolean, text or vector a row."""
        found = {}
        for name in self.columns:
            try:
                values = self.flat(name)
            except SessionError:
                continue
            if values.dtype.kind in "biufU":
                found[name] = values
        return found

    def ragged(self, name: str) -> tuple[np.ndarray, Int64s]:
        """A column with several values a row.

        Returns:
            (n_values,) and (n_rows,), where each row's values end.

        Raises:
            SessionError: there is no such column, or its index cannot be.
        """
        data, index = member(self.group, name), member(self.group, f"{name}_index")
        if not isinstance(data, h5py.Dataset):
            raise self._refusal(f" has no column {name!r}")
        if not isinstance(index, h5py.Dataset):
            return values_of(data), np.arange(1, len(self) + 1, dtype=np.int64)
        held = values_of(index)
        ends = held.astype(np.int64) if held.dtype.kind in "iu" else np.zeros(0, np.int64)
        if len(ends) != len(self) or (np.diff(ends, prepend=0) < 0).any():
            raise self._refusal(
                f"/{name}_index does not fit {len(self)} rows: ask the file's makers, or write it "
                "again with pynwb"
            )
        values = values_of(data)
        if len(ends) and ends[-1] > len(values):
            raise self._refusal(
                f"/{name}_index ends at {ends[-1]}, but there are {len(values)} values: ask the "
                "file's makers"
            )
        return values, ends

    def electrode_ids(self) -> np.ndarray:
        """Read (n_rows,) the id of each row's first electrode.

        Raises:
            SessionError: the table names no electrodes, or a row has none.
        """
        rows, ends = self.ragged("electrodes")
        if (np.diff(ends, prepend=0) < 1).any():
            raise SessionError(f"{self.path}: some units name no electrode: use units.key = 'id'")
        electrodes = self.electrodes()
        if electrodes is None:
            raise SessionError(f"{self.path}: there is no table of electrodes")
        first = rows[np.concatenate([[0], ends[:-1]]).astype(np.int64)].astype(np.int64)
        if len(first) and not 0 <= first.min() <= first.max() < len(electrodes):
            raise self._refusal(
                f"/electrodes names rows {first.min()} to {first.max()}, but the table of "
                f"electrodes has {len(electrodes)}: use units.key = 'id'"
            )
        ids: np.ndarray = electrodes.ids[first]
        return ids

    def _refusal(self, text: str) -> SessionError:
        return SessionError(f"{self.path}: {self.name}{text}")

    def electrodes(self) -> Table | None:
        """The file's electrode table."""
        group = self.group.file.get("general/extracellular_ephys/electrodes")
        return Table(group, self.path) if isinstance(group, h5py.Group) else None


def _datasets(group: h5py.Group) -> Iterator[tuple[str, h5py.Dataset]]:
    for name in group:
        if isinstance(group.get(name, getlink=True), h5py.HardLink):
            item = group[name]
            if isinstance(item, h5py.Dataset):
                yield name, item


def _plain(data: h5py.Dataset, values: np.ndarray) -> np.ndarray:
    """Return texts as texts; references as the last part in the path that they point to."""
    if values.dtype.kind not in "SO":
        return values
    names = [
        (str(data.file[value].name).rpartition("/")[2] if value else "")
        if isinstance(value, h5py.Reference)
        else text_of(value)
        for value in values.ravel()
    ]
    return np.array(names).reshape(values.shape)


def find_table(file: h5py.File, path: Path, name: str, usual: str) -> Table | None:
    """Find a table by its path or a path's end.

    Args:
        file: open.
        path: the file's, for messages.
        name: as in `processing/ecephys/units` or `intervals/reach_trials`; "" for the usual one.
        usual: where that lies.

    Raises:
        SessionError: a table was named and is not there; the text lists those that are.
    """
    group = member_at(file, name.strip("/") or usual)
    if isinstance(group, h5py.Group):
        return Table(group, path)
    if not name:
        return None
    tables = [place for place in table_paths(file) if f"/{place}".endswith(f"/{name.strip('/')}")]
    if len(tables) != 1:
        have = ", ".join(table_paths(file)) or "none"
        what = "several tables that end in" if tables else "no table"
        raise SessionError(f"{path} has {what} {name!r}; it has: {have}")
    return Table(file[tables[0]], path)


def table_paths(file: h5py.File) -> list[str]:
    """List every table in the file."""
    found: list[str] = []

    def look(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group) and "colnames" in item.attrs:
            found.append(name)

    # For messages: what cannot be looked into is not told.
    with suppress(RuntimeError, KeyError, OSError):
        file.visititems(look)
    return found
