"""NWB files written with h5py alone, so that they can be wrong in any way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

DURATION_S = 30.0
STEP_S = 0.02


def trains(n_units: int = 4, seed: int = 0) -> list[np.ndarray]:
    """Spike times of each unit, seconds, from near 0 to `DURATION_S`."""
    rng = np.random.default_rng(seed)
    return [np.sort(rng.uniform(0.001, DURATION_S - 0.001, 300)) for _ in range(n_units)]


def stamps() -> np.ndarray:
    return np.arange(round(DURATION_S / STEP_S)) * STEP_S


def wave(t_s: np.ndarray, n: int = 2) -> np.ndarray:
    """(len(t_s), n) smooth signals."""
    return np.stack([np.sin(t_s + i) for i in range(n)], axis=1)


def write(
    path: Path,
    *,
    units: Sequence[np.ndarray] | None = None,
    unit_columns: Mapping[str, Any] | None = None,
    units_at: str = "units",
    ids: Sequence[int] | None = None,
    shift_s: float = 0.0,
    series: bool = True,
) -> Path:
    """A file with units and, at processing/behavior/cursor_vel, 50 Hz of two dimensions."""
    held = trains() if units is None else list(units)
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.7.0"
        file["session_start_time"] = "2021-05-06T10:00:00+00:00"
        file["general/subject/subject_id"] = "M"
        table = add_table(file, units_at, len(held), unit_columns or {}, ids=ids)
        times = np.concatenate([np.asarray(one, np.float64) + shift_s for one in held])
        add_ragged(table, "spike_times", times, [len(one) for one in held])
        file.require_group("acquisition")
        file.require_group("processing/behavior")
        if series:
            t_s = stamps()
            add_series(file, "processing/behavior/cursor_vel", wave(t_s), t_s + shift_s)
    return path


def add_series(
    file: h5py.File, path: str, data: Any, t_s: Any = None, *, kind: str = "TimeSeries", **more: Any
) -> h5py.Group:
    """A series with stamps or, without them, `rate` and `start`."""
    group = file.create_group(path)
    group.attrs["neurodata_type"] = kind
    values = group.create_dataset("data", data=data)
    values.attrs["unit"] = more.pop("unit", "cm/s")
    if t_s is not None:
        group.create_dataset("timestamps", data=t_s)
    if "rate" in more:
        start = group.create_dataset("starting_time", data=more.pop("start", 0.0))
        start.attrs["rate"] = more.pop("rate")
    for name, value in more.items():
        values.attrs[name] = value
    return group


def add_table(
    file: h5py.File,
    path: str,
    n_rows: int,
    columns: Mapping[str, Any],
    ids: Sequence[int] | None = None,
) -> h5py.Group:
    table = file.create_group(path)
    table.attrs["neurodata_type"] = "DynamicTable"
    table.attrs["colnames"] = np.array([*columns, ""], dtype="S40")[:-1]
    table["id"] = np.arange(n_rows) if ids is None else np.asarray(ids)
    for name, values in columns.items():
        table[name] = values
    return table


def add_ragged(table: h5py.Group, name: str, values: Any, lengths: Sequence[int]) -> None:
    table[name] = values
    table[f"{name}_index"] = np.cumsum(lengths).astype(np.uint32)


def add_trials(file: h5py.File, n: int, columns: Mapping[str, Any], at: str = "trials") -> None:
    """Trials of 2.5 s, one every 3 s, from 0 on."""
    starts = np.arange(n) * 3.0
    edges = {"start_time": starts, "stop_time": starts + 2.5}
    add_table(file, f"intervals/{at}", n, {**edges, **columns})
