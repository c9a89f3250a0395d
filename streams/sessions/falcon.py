"""FALCON's files as its evaluator reads them: counts in 20 ms bins, and the sample each scores by.

The benchmark (falcon_challenge 1.0.2) gives a decoder no spike times: it counts the spikes between
the behaviour's samples, and compares the n-th decode with the n-th sample. Read like this, a
file's bins are its beats, so that training, adaptation and evaluation see what the benchmark sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from streams.errors import SessionError
from streams.messages import Float64s, Int64s, SpikeBatch
from streams.sessions.hdf5 import member_at, open_hdf5, require_nwb2, text_of, values_of
from streams.sessions.nwb.reader import session_id
from streams.sessions.nwb.tables import find_table
from streams.sessions.session import Behavior, Session, Trials

BIN_S = 0.02
BIN_US = 20_000
MASK = "acquisition/eval_mask"
NOT_MOVEMENT = {
    "h2": "it asks for the written sentence of each trial",
    "b1": "it asks for the spectrogram of a whole trial of raw samples",
}


@dataclass(frozen=True, slots=True)
class FalconTask:
    """A task whose behaviour is numbers over time.

    Attributes:
        name: as the benchmark calls it.
        dims: numbers in a behaviour sample.
        behavior: where the files hold it: a series, or a container with a series a dimension.
        stamped_at: the end of its bin that a sample's stamp is.
    """

    name: str
    dims: int
    behavior: str
    stamped_at: str = "end"

    @property
    def lag_s(self) -> float:
        """From a bin's end to the stamp of the sample that scores it."""
        return 0.0 if self.stamped_at == "end" else -BIN_S


TASKS = {
    "m1": FalconTask("m1", 16, "acquisition/preprocessed_emg"),
    "m2": FalconTask("m2", 2, "acquisition/finger_vel", stamped_at="start"),
    "h1": FalconTask("h1", 7, "acquisition/OpenLoopKinematicsVelocity"),
}
H1_CLOCK = "acquisition/OpenLoopKinematics"
"""H1's samples begin at the `offset` of this series' data, and its `rate` is the step."""


def falcon_task(name: str) -> FalconTask:
    """Find a task by name.

    Raises:
        SessionError: there is none, or it asks for no numbers over time.
    """
    if name in NOT_MOVEMENT:
        raise SessionError(
            f"FALCON's task {name} cannot be decoded: {NOT_MOVEMENT[name]}, and a bundle gives a "
            f"value every bin; the tasks that can are {', '.join(TASKS)}"
        )
    if name not in TASKS:
        raise SessionError(f"FALCON has no task {name!r}; those read are {', '.join(TASKS)}")
    return TASKS[name]


def read_falcon(path: Path, task: FalconTask) -> Session:
    """Read a file as counts.

    Bin i is `(i * 20 ms, (i + 1) * 20 ms]` in session time, whatever its time in the file:
    its counts are stamped at its end, and so is the sample that scores it. The unit key of
    the file's row i is `u<i>`, as the benchmark numbers its channels.

    Returns:
        The session, with the task's behaviour, masked by `eval_mask`.

    Raises:
        SessionError: the file is not laid out as the task's.
    """
    with open_hdf5(path) as file:
        require_nwb2(file, path)
        series, ends_s = _behavior(file, task)
        mask = _values(file, f"{MASK}/data").astype(np.bool_)
        lengths = {len(values) for values, _ in series.values()} | {len(ends_s), len(mask)}
        if len(lengths) > 1 or len(mask) < 2:
            raise SessionError(
                f"{path}: {task.behavior} has {len(ends_s)} stamps and {MASK} {len(mask)} values, "
                "which do not fit its samples; download the file again"
            )
        counts = _counts(file, ends_s, path)
        t_s = np.asarray(np.arange(1, len(ends_s) + 1) * BIN_US * 1e-6, np.float64)
        i_bin, channel = np.nonzero(counts)
        return Session(
            id=session_id(file, path),
            unit_keys=channel_keys(counts.shape[1]),
            spikes=SpikeBatch(
                (i_bin + 1).astype(np.int64) * BIN_US,
                channel.astype(np.int32),
                counts[i_bin, channel].astype(np.int32),
            ),
            behavior={
                place: Behavior(t_s, values, unit, mask) for place, (values, unit) in series.items()
            },
            trials=_trials(file, path, ends_s, t_s),
            duration_s=float(t_s[-1]),
            provenance={"file": path.name, "falcon": task.name},
        )


def channel_keys(n_channels: int) -> tuple[str, ...]:
    """Return the unit keys for so many channels."""
    return tuple(f"u{i}" for i in range(n_channels))


def _values(file: h5py.File, place: str) -> np.ndarray:
    """Read the values at a path."""
    held = member_at(file, place)
    if not isinstance(held, h5py.Dataset):
        raise SessionError(
            f"{file.filename} has no {place}, which files of FALCON's task have: is it of another "
            "task, or of the older format?"
        )
    return values_of(held)


def _behavior(
    file: h5py.File, task: FalconTask
) -> tuple[dict[str, tuple[Float64s, str]], Float64s]:
    """Read each series' (n, d) values and unit as they stand in the file; (n,) bin ends.

    A container's series are sorted by name, as HDF5 lists them.
    """
    holder = member_at(file, task.behavior)
    if isinstance(holder, h5py.Group) and "data" not in holder:
        places = [f"{task.behavior}/{name}" for name in sorted(holder)]
        stamps = [np.asarray(_values(file, f"{one}/timestamps"), np.float64) for one in places]
        if not all(np.array_equal(one, stamps[0]) for one in stamps):
            raise SessionError(
                f"{file.filename}: the series of {task.behavior} have different timestamps, where "
                "FALCON's have the same; download the file again"
            )
        ends_s = stamps[0] + BIN_S if task.stamped_at == "start" else stamps[0]
        return {one: _series(file, one) for one in places}, ends_s
    values, unit = _series(file, task.behavior)
    start_s = float(_clock(file, "data").attrs.get("offset", 0.0))
    step_s = float(_clock(file, "starting_time").attrs["rate"])
    if not np.isclose(step_s, BIN_S):
        raise SessionError(
            f"{file.filename}: the `rate` of {H1_CLOCK} is {step_s:g}, where FALCON's files hold "
            "the step, 0.02: the benchmark cannot bin it"
        )
    ends_s = np.asarray(start_s + np.arange(len(values)) * step_s, np.float64)
    return {task.behavior: (values, unit)}, ends_s


def _series(file: h5py.File, place: str) -> tuple[Float64s, str]:
    values = np.asarray(_values(file, f"{place}/data"), np.float64)
    unit = text_of(file[f"{place}/data"].attrs.get("unit", "unknown"))
    return values.reshape(len(values), -1), unit


def _clock(file: h5py.File, name: str) -> h5py.Dataset:
    _values(file, f"{H1_CLOCK}/{name}")
    return file[f"{H1_CLOCK}/{name}"]


def bin_starts(ends_s: Float64s) -> Float64s:
    """Compute where the bins with (n,) ends begin: at the end before, at most 20 ms back.

    Raises:
        SessionError: the times do not increase.
    """
    gaps_s = np.diff(ends_s)
    if not (gaps_s > 0).all():
        raise SessionError("the timestamps of the behaviour do not increase: nothing can be binned")
    starts_s: Float64s = ends_s - BIN_S
    joins = np.isclose(gaps_s, BIN_S) | (gaps_s < BIN_S)
    starts_s[1:][joins] = ends_s[:-1][joins]
    return starts_s


def count_in_bins(t_s: Float64s, starts_s: Float64s, ends_s: Float64s) -> Int64s:
    """(n,) spikes in each `[start, end)`; the last bin holds its end too, as in `np.histogram`."""
    ordered = np.sort(t_s)
    below: Int64s = np.searchsorted(ordered, ends_s, side="left")
    below[-1] = np.searchsorted(ordered, ends_s[-1], side="right")
    return below - np.searchsorted(ordered, starts_s, side="left")


def _counts(file: h5py.File, ends_s: Float64s, path: Path) -> Int64s:
    """(n_bins, n_channels) spikes."""
    stops = np.asarray(_values(file, "units/spike_times_index"), np.int64)
    t_s = np.asarray(_values(file, "units/spike_times"), np.float64)
    starts_s = bin_starts(ends_s)
    counts = np.zeros((len(ends_s), len(stops)), np.int64)
    for i, part in enumerate(np.split(t_s, stops[:-1])):
        counts[:, i] = count_in_bins(part[np.isfinite(part)], starts_s, ends_s)
    if not counts.any():
        raise SessionError(
            f"{path}: none of {len(t_s)} spikes lies within {ends_s[0]:g} to {ends_s[-1]:g} s, "
            "where the behaviour is: are the spike times in seconds?"
        )
    return counts


def _trials(file: h5py.File, path: Path, ends_s: Float64s, t_s: Float64s) -> Trials | None:
    """Read the trials in session time; None where the file has no such table."""
    table = find_table(file, path, "", "intervals/trials")
    if table is None:
        return None
    start_s, stop_s = (
        np.interp(np.asarray(table.flat(name), np.float64), ends_s, t_s)
        for name in ("start_time", "stop_time")
    )
    return Trials(start_s, stop_s)
