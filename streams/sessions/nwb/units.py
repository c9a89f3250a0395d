"""Spikes and unit keys from an NWB file: from its units, or from a series with binned counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from streams.errors import SessionError
from streams.messages import Float64s, Int64s
from streams.sessions.checks.contents import Spikes
from streams.sessions.choice import CountChoice, UnitChoice
from streams.sessions.conditions import rows_where
from streams.sessions.nwb.tables import Table, find_table, table_paths
from streams.sessions.session import Behavior

KEY_COLUMN = "unit_key"
COARSEST_S = 0.005
"""Spike times that are not told apart more finely say little."""
RESTART_SHARE, FEWEST_SPIKES = 0.5, 20
"""A step back by such a share in a unit's whole time is a clock that starts again."""
PROBES = (
    "probe",
    "probe_name",
    "probe_id",
    "electrode_group_name",
    "electrode_group",
    "group_name",
    "device_name",
    "device",
)
"""Columns that say which probe a unit is from, best first."""
MOST_COUNTED = 100_000
"""Spikes in a bin; more are no counts."""


def read_units(
    file: h5py.File, path: Path, choice: UnitChoice, contents: Callable[[h5py.File], str]
) -> Spikes:
    """Read spikes, in the file's ticks.

    Args:
        file: open.
        path: the file's, for messages.
        choice: which units.
        contents: tells what the file has, for messages.

    Raises:
        SessionError: no such table or units, or not a distinct key for each.
    """
    table = find_table(file, path, choice.table, "units")
    if table is None or "spike_times" not in table.group or not len(table):
        others = [one for one in table_paths(file) if "spike_times" in file[one]]
        hint = '; if a series of counts stands for units, name it: [sessions] counts = "PATH"'
        if others:
            hint = f'; name their table: [sessions] units.table = "{others[0]}"'
        raise SessionError(
            f"{path} has no units with spike times, which is what a decoder reads; "
            f"it has: {contents(file)}{hint}"
        )
    chosen = chosen_rows(table, choice)
    keys, kind = _keys(table, choice)
    times, ends = _times(table)
    starts = np.concatenate([[0], ends[:-1]])
    trains = [np.asarray(times[starts[i] : ends[i]], np.float64) for i in chosen]
    named = tuple(keys[i] for i in chosen)
    require_own_keys(named, table, choice)
    _require_one_start(named, trains, path)
    lengths = [len(train) for train in trains]
    return Spikes(
        keys=named,
        key_kind=kind,
        t_s=np.concatenate(trains) / choice.ticks_per_s,
        unit=np.repeat(np.arange(len(trains), dtype=np.int32), lengths),
    )


def _times(table: Table) -> tuple[np.ndarray, Int64s]:
    """All spike times, and where each unit's end."""
    times, ends = table.ragged("spike_times")
    if times.dtype.kind not in "iuf":
        raise SessionError(f"{table.path}: {table.name}/spike_times are no times: {times.dtype}")
    if times.dtype.itemsize < 8 and times.dtype.kind == "f" and np.isfinite(times).any():
        latest = np.abs(times[np.isfinite(times)]).max()
        if (step_s := float(np.spacing(latest))) > COARSEST_S:
            raise SessionError(
                f"{table.path}: {table.name}/spike_times are {times.dtype}, which at {latest:.0f} "
                f"s tells times {step_s:.2g} s apart: they must be written again as float64"
            )
    if "spike_times_index" not in table.group:
        if len(table) != 1 or times.ndim != 1:
            raise SessionError(
                f"{table.path}: {table.name} has spike_times of {times.shape} for {len(table)} "
                "units and no spike_times_index, which says whose each is: write it with pynwb's "
                "add_unit"
            )
        ends = np.array([len(times)], np.int64)
    return times, ends


def _require_one_start(keys: tuple[str, ...], trains: list[Float64s], path: Path) -> None:
    """Refuse units whose times start again, as where recordings were put end to end."""
    for key, train in zip(keys, trains, strict=True):
        times = train[np.isfinite(train)]
        if len(times) < FEWEST_SPIKES:
            continue
        back = np.flatnonzero(np.diff(times) < -RESTART_SHARE * np.ptp(times))
        if not 1 <= len(back) <= 3:
            continue
        if min(back[0] + 1, len(times) - 1 - back[-1]) > len(times) / 10:
            raise SessionError(
                f"{path}: the spike times of {key} start again at {times[back[0] + 1]:.1f} after "
                f"{times[back[0]]:.1f} s: recordings seem put end to end, each on its own clock; "
                "give each a file of its own, or leave such units out by units.where"
            )


def chosen_rows(table: Table, choice: UnitChoice) -> Int64s:
    """Find the rows that `units.where` leaves.

    Raises:
        SessionError: none, or it is no condition on the table's columns.
    """
    columns = table.flat_columns() if choice.where else {}
    flat = {name: column for name, column in columns.items() if column.ndim == 1}
    whose = f"{table.path}, {table.name}: "
    chosen = np.flatnonzero(rows_where(choice.where, flat, len(table), whose))
    if not len(chosen):
        raise SessionError(f"{table.path}: units.where = {choice.where!r} leaves no unit")
    return chosen


def _keys(table: Table, choice: UnitChoice) -> tuple[list[str], str]:
    """Return each row's key, and its kind."""
    if not choice.key and KEY_COLUMN in table.columns:
        return [str(key) for key in table.flat(KEY_COLUMN)], KEY_COLUMN
    if choice.key == "electrodes":
        return _by_electrode(table), "electrodes"
    parts = [_named(table, name) for name in (choice.key or "id").split(":")]
    is_row_number = not choice.key and np.array_equal(table.ids, np.arange(len(table)))
    kind = "row numbers" if is_row_number else choice.key or "id"
    return [":".join(row) for row in zip(*parts, strict=True)], kind


def _named(table: Table, name: str) -> list[str]:
    """Return one part of each row's key."""
    if name == "probe" and name not in table.columns:
        found = [one for one in PROBES if one in table.columns]
        if not found:
            return _probe_of_electrodes(table)
        name = found[0]
    values = table.flat(name)
    return [f"u{value}" if values.dtype.kind in "iu" else str(value) for value in values.tolist()]


def _by_electrode(table: Table) -> list[str]:
    """Return `ch12/u1` and so on: an electrode's units are numbered in row order."""
    seen: dict[int, int] = {}
    keys = []
    for electrode in table.electrode_ids().tolist():
        seen[electrode] = seen.get(electrode, 0) + 1
        keys.append(f"ch{electrode}/u{seen[electrode]}")
    return keys


def _probe_of_electrodes(table: Table) -> list[str]:
    electrodes = table.electrodes()
    if electrodes is None or "electrodes" not in table.columns:
        raise SessionError(
            f"{table.path}: {table.name} has no column of probes "
            f"({', '.join(PROBES)}); it has: {', '.join(table.columns)}"
        )
    group = dict(zip(electrodes.ids.tolist(), electrodes.flat("group_name").tolist(), strict=True))
    return [group[i] for i in table.electrode_ids().tolist()]


def require_own_keys(keys: tuple[str, ...], table: Table, choice: UnitChoice) -> None:
    """Refuse units that share a key.

    Raises:
        SessionError: with a choice of keys that tells them apart.
    """
    if len(set(keys)) == len(keys):
        return
    twice = sorted({key for key in keys if keys.count(key) > 1})
    probes = [name for name in PROBES if name in table.columns]
    hint = "name a column that tells them apart: units.key"
    if not choice.key:
        hint = f'[sessions] units.key = "{probes[0] if probes else "probe"}:id" tells probes apart'
    raise SessionError(
        f"{table.path} has several units of one id: {', '.join(twice[:10])}; {hint}; "
        f"columns: {', '.join(table.columns)}"
    )


def spikes_of_counts(signal: Behavior, choice: CountChoice, file: str) -> Spikes:
    """Turn binned counts, as in FALCON's H2, into entries for several spikes at a bin's end.

    Args:
        signal: (n_bins, n_units) counts.
        choice: tells which end of a bin its time stamp is.
        file: for messages.

    Raises:
        SessionError: the values are no counts, or there are fewer than two bins.
    """
    values = signal.values
    if len(values) < 2:
        raise SessionError(f"{file}: {choice.series} has {len(values)} bins: too few")
    are_counts = (values >= 0) & (values <= MOST_COUNTED) & (values == np.rint(values))
    if not are_counts.all():
        raise SessionError(
            f"{file}: {choice.series} holds values that are no counts (negative, fractions or not "
            f"finite, for example {values[~are_counts][0]:g}): name a series of whole spike counts"
        )
    step_s = float(np.median(np.diff(signal.t_s))) if choice.stamp == "start" else 0.0
    unit, i_bin = np.nonzero(values.T)
    return Spikes(
        keys=tuple(f"ch{i}" for i in range(values.shape[1])),
        key_kind="columns of counts",
        t_s=signal.t_s[i_bin] + step_s,
        unit=unit.astype(np.int32),
        count=values[i_bin, unit].astype(np.int32),
    )
