"""Evaluation: the live tokenizer and the exported graph give what training measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.baselines import evaluate_baselines
from calibration.errors import CalibrationError
from calibration.evaluate import evaluate
from decoders.train import train
from export.graphs.streaming import export_run
from streams.errors import SessionError
from streams.sessions.nwb.writer import write_session
from tests.calibration.small_training import SMALL
from tests.decoders.sessions import PHASE, tuned_session

CONFIG = (
    """
name = "made-up"
split = "last:0.25"
[sessions]
glob = ["one.nwb"]
[[outputs]]
name = "speed"
behavior = "velocity"
unit = "cm/s"
lag_s = 0.04
"""
    + SMALL
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and exported decoder beside its session."""
    folder = tmp_path_factory.mktemp("evaluate")
    session = tuned_session()
    write_session(session, folder / "one.nwb")
    strangers = replace(session, unit_keys=tuple(f"u{i + 50}" for i in range(8)))
    write_session(strangers, folder / "strangers.nwb")
    phase_alone = replace(session, behavior={PHASE: session.behavior[PHASE]})
    write_session(phase_alone, folder / "no-velocity.nwb")
    (folder / "train.toml").write_text(CONFIG)
    export_run(train(folder / "train.toml", out=folder / "run"), folder / "bundle")
    return folder


def test_evaluation_gives_the_r2_that_training_measured(folder: Path) -> None:
    figure = folder / "figure.png"
    result = evaluate(folder / "bundle", [folder / "one.nwb"], split="last:0.25", figure=figure)
    measured = json.loads((folder / "run" / "metrics.json").read_text())["test"]["speed"]
    speed = json.loads(json.dumps(result))["outputs"]["speed"]
    assert np.mean(speed["r2"]) == pytest.approx(measured, abs=1e-3)
    assert min(speed["r2"]) > 0.5
    assert all(low < r2 < high for r2, (low, high) in zip(speed["r2"], speed["ci"], strict=True))
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_intervals_choose_what_is_scored(folder: Path) -> None:
    one = [folder / "one.nwb"]
    last = evaluate(folder / "bundle", one, split="last:0.25")
    same = evaluate(folder / "bundle", one, split="30-40")
    other = evaluate(folder / "bundle", one, split="5-10,12-20")
    assert same["outputs"] == last["outputs"]
    (scored,) = other["sessions"].values()
    assert scored["seconds"] == pytest.approx(13.0)
    assert other["outputs"] != last["outputs"]


def test_several_sessions_give_their_mean(folder: Path) -> None:
    session = replace(tuned_session(seed=9), id="made-up/2026-01-02/two")
    write_session(session, folder / "two.nwb")
    result = evaluate(folder / "bundle", [folder / "one.nwb", folder / "two.nwb"])
    each = [held["outputs"]["speed"]["r2"] for held in result["sessions"].values()]
    assert len(each) == 2
    np.testing.assert_allclose(result["outputs"]["speed"]["r2"], np.mean(each, axis=0))


def test_unknown_units_and_missing_behaviour_are_refused(folder: Path) -> None:
    with pytest.raises(CalibrationError, match=r"none of the 8 units .*u50.*adapt"):
        evaluate(folder / "bundle", [folder / "strangers.nwb"])
    with pytest.raises(SessionError, match=r"no behaviour .*'velocity'"):
        evaluate(folder / "bundle", [folder / "no-velocity.nwb"])


def test_baselines_are_scored_alike(folder: Path) -> None:
    result = evaluate_baselines(folder / "train.toml")
    (session,) = result["sessions"].values()
    assert list(session) == ["wiener", "kalman", "gru"]
    for name, held in session.items():
        assert min(held["outputs"]["speed"]["r2"]) > 0.4, name
    with pytest.raises(CalibrationError, match="no baseline lstm"):
        evaluate_baselines(folder / "train.toml", names=["lstm"])
