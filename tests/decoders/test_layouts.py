"""Recordings as others lay them out: named in the config as the shipped one shows, and trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.behavior import BehavioralTimeSeries
from pynwb.file import Subject

from decoders.train import train
from streams.sessions.session import Session
from tests.decoders.sessions import VELOCITY, tuned_session
from tests.streams.test_torch_brain import write as write_torch_brain

SHIPPED = Path(__file__).parents[2] / "configs" / "train-multisession.toml"
CONFIG = """
name = "layout"
[sessions]
glob = ["*.{suffix}"]
[beat]
hop_ms = 20
{outputs}
[network]
d_model = 12
d_memory = 16
[training]
steps = 2
lanes = 2
window_s = 0.4
context_s = 0.2
"""
Fill = Callable[[NWBFile, np.ndarray, np.ndarray], None]


def series(name: str, t_s: np.ndarray, values: np.ndarray) -> TimeSeries:
    return TimeSeries(name=name, data=values, timestamps=t_s, unit="cm/s")


def fill_perich(nwb: NWBFile, t_s: np.ndarray, values: np.ndarray) -> None:
    module = nwb.create_processing_module(name="behavior", description="-")
    held = BehavioralTimeSeries(name="Velocity", time_series=series("cursor_vel", t_s, values))
    module.add(held)


def fill_nlb(nwb: NWBFile, t_s: np.ndarray, values: np.ndarray) -> None:
    module = nwb.create_processing_module(name="behavior", description="-")
    module.add(series("hand_pos", t_s, np.cumsum(values, axis=0)))
    module.add(series("hand_vel", t_s, values))


def fill_falcon_m1(nwb: NWBFile, t_s: np.ndarray, values: np.ndarray) -> None:
    emg = np.abs(values @ np.random.default_rng(0).normal(size=(2, 16)))
    muscles = [series(f"muscle{i}", t_s, emg[:, i]) for i in range(16)]
    nwb.add_acquisition(BehavioralTimeSeries(name="preprocessed_emg", time_series=muscles))


def fill_falcon_m2(nwb: NWBFile, t_s: np.ndarray, values: np.ndarray) -> None:
    fingers = [series(name, t_s, values[:, i]) for i, name in enumerate(("index", "mrs"))]
    nwb.add_acquisition(BehavioralTimeSeries(name="finger_vel", time_series=fingers))
    mask = TimeSeries(name="eval_mask", data=np.ones(len(t_s), bool), timestamps=t_s, unit="bool")
    nwb.add_acquisition(mask)


def fill_falcon_h1(nwb: NWBFile, t_s: np.ndarray, values: np.ndarray) -> None:
    """Its `rate` holds the step, its `offset` the start."""
    seven = np.repeat(values, 4, axis=1)[:, :7]
    told: dict[str, Any] = {"rate": float(t_s[1] - t_s[0]), "offset": float(t_s[0]), "unit": "au"}
    nwb.add_acquisition(TimeSeries(name="OpenLoopKinematicsVelocity", data=seven, **told))


def write(path: Path, session: Session, fill: Fill) -> None:
    nwb = NWBFile(
        session_description="made elsewhere",
        identifier=path.stem,
        session_start_time=datetime(2013, 10, 3, tzinfo=UTC),
        subject=Subject(subject_id="C", species="Macaca mulatta"),
    )
    for i in range(len(session.unit_keys)):
        nwb.add_unit(spike_times=session.spikes.t_us[session.spikes.unit == i] * 1e-6, id=i)
    nwb.add_trial_column(name="result", description="-")
    assert session.trials is not None
    for start_s, stop_s in zip(session.trials.start_s, session.trials.stop_s, strict=True):
        nwb.add_trial(start_time=start_s, stop_time=stop_s, result="R")
    velocity = session.behavior[VELOCITY]
    fill(nwb, velocity.t_s, velocity.values)
    with NWBHDF5IO(str(path), "w") as io:
        io.write(nwb)


@pytest.mark.parametrize(
    ("fill", "behavior", "n_dims"),
    [
        (fill_perich, "processing/behavior/Velocity/cursor_vel", 2),
        (fill_nlb, "processing/behavior/hand_vel", 2),
        (fill_falcon_m1, "acquisition/preprocessed_emg", 16),
        (fill_falcon_m2, "acquisition/finger_vel", 2),
        (fill_falcon_h1, "acquisition/OpenLoopKinematicsVelocity", 7),
        (None, "cursor/vel", 2),
    ],
    ids=["perich", "nlb", "falcon-m1", "falcon-m2", "falcon-h1", "torch-brain"],
)
def test_layouts_train(tmp_path: Path, fill: Fill | None, behavior: str, n_dims: int) -> None:
    session = tuned_session(duration_s=12.0)
    if fill is None:
        write_torch_brain(tmp_path / "c_20131003_center_out_reaching.h5", session)
    else:
        write(tmp_path / "sub-C_ses-1.nwb", session, fill)
    outputs = f'[[outputs]]\nname = "o"\nbehavior = "{behavior}"'
    text = CONFIG.format(outputs=outputs, suffix="nwb" if fill else "h5")
    (tmp_path / "train.toml").write_text(text)
    run_dir = train(tmp_path / "train.toml", out=tmp_path / "run")
    (scores,) = json.loads((run_dir / "metrics.json").read_text())["sessions"].values()
    assert len(scores["o"]) == n_dims
    assert f'"{behavior}"' in SHIPPED.read_text()
