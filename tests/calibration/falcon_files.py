"""Small files in the layouts of FALCON's tasks, written with pynwb, and decoders that fit them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.behavior import BehavioralTimeSeries
from pynwb.file import Subject

from decoders.streaming.shape import OutputSpec
from export.bundle import DecoderBundle, write_bundle
from tests.export.untrained import CONFIG, untrained_parts

MUSCLES = ("APB_rect", "ECRb", "FDI", "BCPs", "ADelt", "PECmaj", "DI4", "OPP", "LAT")
MUSCLES += ("EDC", "FCR", "FCU", "FDP", "ECU", "TCPlat", "PDelt")
"""In the order in which the files of M1 were written: HDF5 lists them by name."""
SECONDS = 24.0
N_UNITS = 12
BEHAVIOR = {"m1": "preprocessed_emg", "m2": "finger_vel", "h1": "OpenLoopKinematicsVelocity"}
DIMS = {"m1": 16, "m2": 2, "h1": 7}


def movement(t_s: np.ndarray, dims: int, seed: int) -> np.ndarray:
    """(n, dims) slow sines, the same at the same time."""
    rng = np.random.default_rng(seed)
    rate_hz, phase = rng.uniform(0.2, 0.8, dims), rng.uniform(0, 6, dims)
    size = np.linspace(0.3, 2.0, dims)
    return size * np.sin(2 * np.pi * rate_hz * t_s[:, None] + phase)


def tuned_spikes(dims: int, seed: int, since_s: float, n_units: int = N_UNITS) -> list[np.ndarray]:
    """Spike times of each unit; rounded to 0.1 ms, as M1's are, so that some stand on edges."""
    rng = np.random.default_rng(seed + 1)
    t_s = since_s + np.arange(0.0, SECONDS, 0.001)
    drive = movement(t_s, dims, seed) @ np.random.default_rng(7).normal(0, 0.4, (dims, n_units))
    fired = rng.random(drive.shape) < 0.001 * 25.0 * np.exp(np.clip(drive, -3, 1.5))
    return [
        np.unique(np.round(t_s[column] + rng.uniform(0, 0.001, column.sum()), 4))
        for column in fired.T
    ]


def nwb_file(name: str, day: str, subject: str) -> NWBFile:
    nwb = NWBFile(
        session_description="made up",
        identifier=name,
        session_start_time=datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC),
    )
    nwb.subject = Subject(subject_id=subject, species="Macaca mulatta", sex="M", age="P7Y")
    return nwb


def columns(
    name: str, names: tuple[str, ...], data: np.ndarray, t_s: np.ndarray
) -> BehavioralTimeSeries:
    """A container with a series for each column, as FALCON writes multichannel behaviour."""
    held = BehavioralTimeSeries(name=name)
    for i, one in enumerate(names):
        held.create_timeseries(name=one, data=data[:, i], unit="AU", timestamps=t_s)
    return held


def add_units(nwb: NWBFile, spikes: list[np.ndarray]) -> None:
    for i, t_s in enumerate(spikes):
        nwb.add_unit(id=i, spike_times=t_s)


def add_trials(nwb: NWBFile, t_s: np.ndarray) -> np.ndarray:
    """Trials of 2 s with pauses of 1 s. Returns (n,) bool, whether each time lies in one."""
    starts = np.arange(t_s[0] + 0.4, t_s[-1] - 2.0, 3.0)
    for start in starts:
        nwb.add_trial(start_time=start, stop_time=start + 2.0)
    return np.any([(t_s >= start) & (t_s < start + 2.0) for start in starts], axis=0)


def write_m1(folder: Path, day: str, seed: int) -> Path:
    name = f"sub-MonkeyL-held-in-minival_ses-{day}_behavior+ecephys"
    nwb = nwb_file(name, day, "MonkeyL-held-in-minival")
    t_s = np.arange(0.5137, 0.5137 + SECONDS - 0.1, 0.02).round(4)
    nwb.add_acquisition(columns("preprocessed_emg", MUSCLES, np.abs(movement(t_s, 16, seed)), t_s))
    mask = add_trials(nwb, t_s)
    nwb.add_acquisition(TimeSeries(name="eval_mask", data=mask, timestamps=t_s, unit="bool"))
    add_units(nwb, tuned_spikes(16, seed, 0.5))
    return _written(nwb, folder / f"{name}.nwb")


def write_m2(folder: Path, day: str, run: int, seed: int) -> Path:
    dashed = f"{day[:4]}-{day[4:6]}-{day[6:]}"
    name = f"sub-MonkeyN-held-in-minival_ses-{dashed}-Run{run}_behavior+ecephys"
    nwb = nwb_file(name, day, "MonkeyN-held-in-minival")
    t_s = np.arange(0.0, SECONDS - 0.1, 0.001)[19::20] + 3.0
    if run == 2:  # the recording was stopped for a while
        t_s = np.where(t_s > 15.0, t_s + 0.37, t_s)
    v = movement(t_s, 2, seed) / 100
    nwb.add_acquisition(columns("finger_pos", ("index", "mrs"), np.cumsum(v, 0), t_s))
    nwb.add_acquisition(columns("finger_vel", ("index", "mrs"), v, t_s))
    mask = add_trials(nwb, t_s)
    nwb.add_acquisition(TimeSeries(name="eval_mask", data=mask, timestamps=t_s, unit="bool"))
    add_units(nwb, tuned_spikes(2, seed, 3.0))
    return _written(nwb, folder / f"{name}.nwb")


def write_h1(folder: Path, started: str, seed: int) -> Path:
    name = f"sub-HumanPitt-held-in-minival_ses-{started}"
    nwb = nwb_file(name, started[:8], "HumanPitt-held-in-minival")
    begin_s = 10.0
    t_s = begin_s + np.arange(round((SECONDS - 0.2) / 0.02)) * 0.02
    v = movement(t_s, 7, seed)
    timing = {"rate": 0.02, "starting_time": 0.0, "offset": begin_s}  # `rate` is the step
    for series, data in (
        ("OpenLoopKinematics", np.cumsum(v, 0) * 0.02),
        ("OpenLoopKinematicsVelocity", v),
        ("TrialNum", t_s // 4),
        ("eval_mask", np.arange(len(t_s)) % 3 > 0),
    ):
        nwb.add_acquisition(TimeSeries(name=series, data=data, unit="arbitrary", **timing))
    add_units(nwb, tuned_spikes(7, seed, begin_s))
    return _written(nwb, folder / f"{name}.nwb")


def _written(nwb: NWBFile, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with NWBHDF5IO(str(path), "w") as io:
        io.write(nwb)
    return path


H1_STARTS = ("19250101T111740", "19250101T112404", "19250108T110520", "19250108T111022")
H1_STARTS += ("19250108T111455", "19250113T120811", "19250113T121303", "19250115T110633")
H1_STARTS += ("19250115T111328", "19250119T113543", "19250119T114045", "19250120T115044")
H1_STARTS += ("19250120T115537",)
M2_RUNS = (("20201019", 1), ("20201019", 2), ("20201020", 1), ("20201020", 2))
M2_RUNS += (("20201027", 1), ("20201027", 2), ("20201028", 1))
M1_DAYS = ("20120924", "20120926", "20120927", "20120928")

MINIVAL: Mapping[str, Callable[[Path], list[Path]]] = {
    "m1": lambda folder: [write_m1(folder, day, i) for i, day in enumerate(M1_DAYS)],
    "m2": lambda folder: [write_m2(folder, *run, i) for i, run in enumerate(M2_RUNS)],
    "h1": lambda folder: [write_h1(folder, start, i) for i, start in enumerate(H1_STARTS)],
}
"""Every held-in session of a task: the evaluator wants them all."""


@dataclass(frozen=True)
class Wanted:
    """A decoder with random weights.

    Attributes:
        outputs: name and dims of each.
        behaviors: what each was trained on; None for a bundle that says nothing of its training.
    """

    outputs: tuple[tuple[str, int], ...]
    behaviors: tuple[str, ...] | None = None
    lags_s: tuple[float, ...] = ()
    sessions: Mapping[str, str] | None = None
    n_frequencies: int = 0
    n_units: int = N_UNITS
    first_unit: int = 0
    fields: Mapping[str, object] | None = None


@cache
def network_parts(
    outputs: tuple[tuple[str, int], ...], n_frequencies: int, n_units: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    config = replace(
        CONFIG,
        outputs=tuple(OutputSpec(name, dims) for name, dims in outputs),
        n_frequencies=n_frequencies,
    )
    return untrained_parts(config, [f"u{i}" for i in range(n_units)])


def random_bundle(path: Path, wanted: Wanted) -> DecoderBundle:
    fields, parts = network_parts(wanted.outputs, wanted.n_frequencies, wanted.n_units)
    fields = deepcopy(fields)
    fields["units"] = [
        {"key": f"u{wanted.first_unit + row}", "row": row} for row in range(wanted.n_units)
    ]
    fields["outputs"] = [
        {"name": name, "dims": n, "unit": "AU", "low": [-9.0] * n, "high": [9.0] * n}
        for name, n in wanted.outputs
    ]
    if wanted.behaviors is not None:
        lags_s = wanted.lags_s or (0.0,) * len(wanted.outputs)
        fields["training"]["recipe"] = {
            "outputs": [
                {"name": name, "behavior": behavior, "lag_s": lag_s, "classes": 0}
                for (name, _), behavior, lag_s in zip(
                    wanted.outputs, wanted.behaviors, lags_s, strict=True
                )
            ],
            "sessions": dict(wanted.sessions or {}),
            "beat": {"rotary": wanted.n_frequencies > 0},
        }
    fields |= {"lead_s": {"min": 0.0, "max": 0.0, "default": 0.0}} | dict(wanted.fields or {})
    return write_bundle(path, fields, **parts)
