"""A file in FALCON's layout, at Unix times: trained, scored and adapted as its config chooses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from calibration.adaptation.adapt import adapt
from calibration.baselines import evaluate_baselines
from calibration.errors import CalibrationError
from calibration.evaluate import decode_session, evaluate
from decoders.train import train
from export.backends.onnxruntime_cpu import open_cpu
from export.bundle import open_bundle
from export.graphs.streaming import export_run
from streams.errors import SessionError
from streams.r2 import r2_score
from streams.sessions.reading import read_session
from streams.sessions.session import Session
from tests.calibration.small_training import SMALL
from tests.decoders.sessions import VELOCITY, tuned_session
from tests.streams.foreign_nwb import add_ragged, add_series, add_table, write

STARTED_S = 1.6e9
FINGERS = ("index", "mrs")
CONFIG = (
    """
name = "falcon"
split = "trials:split"
[sessions]
glob = ["finger*.nwb"]
mask = "acquisition/eval_mask"
trials = "intervals/reaches"
units.where = "quality != 'noise'"
units.key = "electrodes"
[beat]
rotary = false
[[outputs]]
name = "fingers"
behavior = "acquisition/finger_vel"
"""
    + SMALL
)


def write_falcon(path: Path, session: Session, order: Sequence[int] = range(8)) -> Path:
    """Two one-dimensional series in a container, a mask, trials in a table of their own.

    `order`: of the units' rows; each keeps its electrode.
    """
    spikes, velocity = session.spikes, session.behavior[VELOCITY]
    trains = [spikes.t_us[spikes.unit == i] * 1e-6 for i in order]
    noise = np.sort(np.random.default_rng(0).uniform(0.0, session.duration_s, 5000))
    quality = np.array([b"good"] * len(trains) + [b"noise"])
    write(
        path,
        units=[*trains, noise],
        unit_columns={"quality": quality},
        shift_s=STARTED_S,
        series=False,
    )
    t_s = velocity.t_s[::2]
    with h5py.File(path, "r+") as file:
        group = file.create_group("acquisition/finger_vel")
        group.attrs["neurodata_type"] = "BehavioralTimeSeries"
        for i, finger in enumerate(FINGERS):
            values = velocity.values[::2, i]
            add_series(file, f"acquisition/finger_vel/{finger}", values, t_s + STARTED_S)
        add_series(file, "acquisition/eval_mask", t_s % 4.0 < 3.0, t_s + STARTED_S, unit="bool")
        n = len(quality)
        add_table(
            file, "general/extracellular_ephys/electrodes", n, {}, ids=list(range(40, 40 + n))
        )
        add_ragged(file["units"], "electrodes", [*(8 - i for i in order), 0], [1] * n)
        starts = np.arange(20.0) * 2.0 + STARTED_S
        kinds = np.resize(np.array([b"train", b"train", b"val"]), 20)
        columns = {"start_time": starts, "stop_time": starts + 1.8, "split": kinds}
        add_table(file, "intervals/reaches", 20, columns)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    write_falcon(folder / "finger_vel.nwb", tuned_session())
    (folder / "train.toml").write_text(CONFIG)
    export_run(train(folder / "train.toml", out=folder / "run"), folder / "bundle")
    return folder


def scored_bins() -> np.ndarray:
    """Bins of 20 ms whose end lies in a test trial and, by the sample there, in the mask."""
    t_s = np.arange(1, 2001) * 0.02
    in_trial = ((t_s - 1e-9) // 2.0 % 3 == 2) & ((t_s - 1e-9) % 2.0 <= 1.8)
    return in_trial & (np.round(t_s % 4.0, 6) < 3.0) & (t_s < 39.98)


def test_evaluation_scores_the_test_trials_within_the_mask(folder: Path) -> None:
    result = evaluate(folder / "bundle", [folder / "finger_vel.nwb"])
    (session,) = result["sessions"].values()
    fingers = session["outputs"]["fingers"]
    assert (result["mask"], session["begins_at_s"]) == ("acquisition/eval_mask", STARTED_S)
    assert result["split"] == "trials:split in ['val', 'test']"
    assert fingers["n"] == np.count_nonzero(scored_bins())
    measured = json.loads((folder / "run" / "metrics.json").read_text())["test"]["fingers"]
    assert np.mean(fingers["r2"]) == pytest.approx(measured, abs=1e-3)
    assert min(fingers["r2"]) > 0.5


def test_r2_equals_the_one_by_hand(folder: Path) -> None:
    bundle, session = open_bundle(folder / "bundle"), tuned_session()
    result = evaluate(folder / "bundle", [folder / "finger_vel.nwb"])
    keys = dict(zip(session.unit_keys, (f"ch{48 - i}/u1" for i in range(8)), strict=True))
    assert {unit.key for unit in bundle.manifest.units} == set(keys.values())
    named = Session(session.id, tuple(keys.values()), session.spikes, session.behavior, None, 40.0)
    decoded = decode_session(bundle, open_cpu(bundle), named, 40.0, 0.0)
    bins = scored_bins()
    velocity = session.behavior[VELOCITY]
    actual = velocity.values[np.rint(decoded.t_s[bins] * 100).astype(int)]
    by_hand = r2_score(decoded.values["fingers"][bins], actual)
    np.testing.assert_allclose(result["outputs"]["fingers"]["r2"], by_hand, atol=1e-6)


def test_cells_that_were_sorted_anew_are_told_by_their_electrodes(
    folder: Path, tmp_path: Path
) -> None:
    """Rows in another order: by row number every unit would be another cell."""
    path = folder / "finger_vel.nwb"
    anew = write_falcon(
        tmp_path / "finger_anew.nwb", tuned_session(), order=[4, 0, 6, 1, 7, 2, 5, 3]
    )
    said: list[str] = []
    same, new = (evaluate(folder / "bundle", [p], on_note=said.append) for p in (path, anew))
    assert new["outputs"] == same["outputs"]
    assert said == []
    (tmp_path / "train.toml").write_text(
        CONFIG.replace('"finger*.nwb"', f'"{path}"').replace('units.key = "electrodes"\n', "")
    )
    export_run(train(tmp_path / "train.toml", out=tmp_path / "run"), tmp_path / "by-row")
    wrong = evaluate(tmp_path / "by-row", [anew], on_note=said.append)
    assert max(wrong["outputs"]["fingers"]["r2"]) < 0.5
    assert len(said) == 1
    assert "finger_anew.nwb" in said[0]
    assert "row numbers" in said[0]


def test_a_small_file_chooses_otherwise(folder: Path, tmp_path: Path) -> None:
    choose = tmp_path / "choose.toml"
    keys = 'units.key = "electrodes"\ntrials = "intervals/reaches"\n'
    choose.write_text(f"[sessions]\n{keys}")
    path = folder / "finger_vel.nwb"
    result = evaluate(folder / "bundle", [path], split="all", sessions_config=choose)
    (session,) = result["sessions"].values()
    assert session["outputs"]["fingers"]["n"] == 1999
    assert session["unknown_units"] == 1
    choose.write_text("[sessions]\nmsk = 'x'\n")
    with pytest.raises(CalibrationError, match=r"sessions\.msk'; did you mean 'mask'"):
        evaluate(folder / "bundle", [path], sessions_config=choose)


@pytest.mark.parametrize(
    ("split", "text"),
    [
        ("trials:split == 'held-out'", "none of its trials meets"),
        ("trials:fold", "names 'fold', which is no column"),
        ("trials:split ==", "cannot read the condition"),
    ],
)
def test_trials_that_cannot_be_scored_are_named(folder: Path, split: str, text: str) -> None:
    with pytest.raises((CalibrationError, SessionError), match=text):
        evaluate(folder / "bundle", [folder / "finger_vel.nwb"], split=split)


def test_baselines_score_the_same_bins(folder: Path) -> None:
    result = evaluate_baselines(folder / "train.toml", ["wiener"])
    (session,) = result["sessions"].values()
    fingers = session["wiener"]["outputs"]["fingers"]
    assert fingers["n"] == np.count_nonzero(scored_bins())
    assert min(fingers["r2"]) > 0.5


def test_adaptation_reads_as_the_training_did(folder: Path, tmp_path: Path) -> None:
    other = write_falcon(tmp_path / "finger_other.nwb", tuned_session("two", seed=5))
    result = adapt(folder / "bundle", other, out=tmp_path / "adapted", seconds=20.0)
    assert result["n_units"] == 8
    assert min(result["outputs"]["fingers"]["r2"]) > 0.3
    adapted = open_bundle(tmp_path / "adapted")
    assert {unit.key for unit in adapted.manifest.units} == {f"ch{40 + i}/u1" for i in range(1, 9)}


def test_a_whole_file_can_be_held_out(folder: Path, tmp_path: Path) -> None:
    for name in ("finger-run1.nwb", "finger-run2.nwb"):
        write_falcon(tmp_path / name, tuned_session())
    split = "[split]\ntest_files = ['*run2*']\n"
    text = CONFIG.replace('split = "trials:split"\n', "").replace("steps = 120", "steps = 40")
    (tmp_path / "train.toml").write_text(text + split)
    export_run(train(tmp_path / "train.toml", out=tmp_path / "run"), tmp_path / "bundle")
    result = evaluate(tmp_path / "bundle", [tmp_path / "finger-run2.nwb"])
    assert result["split"] == "all"
    choice = read_session(tmp_path / "finger-run2.nwb").signal("eval_mask").values
    (session,) = result["sessions"].values()
    assert session["outputs"]["fingers"]["n"] == pytest.approx(choice.sum(), abs=2)
