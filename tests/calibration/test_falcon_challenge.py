"""The benchmark's own evaluator gives the R2 that `spikeloop evaluate --falcon` gives."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from calibration.errors import FalconError
from calibration.falcon.decoders import open_decoders
from calibration.falcon.names import tag_of
from calibration.falcon.scoring import evaluate_falcon
from service.cli import main
from streams.sessions.falcon import falcon_task
from tests.calibration.falcon_files import BEHAVIOR, DIMS, MINIVAL, N_UNITS, Wanted, random_bundle

pytest.importorskip("falcon_challenge.evaluator", reason="the extra `falcon` is not installed")
from falcon_challenge.config import FalconConfig, FalconTask
from falcon_challenge.evaluator import evaluate

from calibration.falcon.challenge import (
    file_tag,
    run_challenge,
    score_files,
    wrap_bundle,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `m1`, `m2` and `h1` as the benchmark looks for them, and a bundle for each."""
    data = tmp_path_factory.mktemp("data")
    for task, write in MINIVAL.items():
        write(data / task / "minival")
        wanted = Wanted((("value", DIMS[task]),), (BEHAVIOR[task],), sessions={"falcon": task})
        random_bundle(data / f"bundle-{task}", wanted)
    return data


@pytest.mark.parametrize("task", ["m1", "m2", "h1"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_evaluators_r2_is_ours(data: Path, task: str, batch_size: int) -> None:
    decoders = open_decoders(data / f"bundle-{task}", falcon_task(task))
    metrics = run_challenge(decoders, data=data, batch_size=batch_size)
    files = sorted((data / task / "minival").glob("*.nwb"))
    ours = evaluate_falcon(data / f"bundle-{task}", files, task)
    assert metrics is not None
    for name in ("R2 Mean", "R2 Std."):
        assert ours["falcon"][name] == pytest.approx(metrics[f"Held In {name}"], rel=1e-9, abs=1e-6)
    assert metrics["Normalized Latency"] < 1


def test_a_decoder_for_each_session(data: Path, tmp_path: Path) -> None:
    files = sorted((data / "m2" / "minival").glob("*.nwb"))
    wanted = Wanted((("value", 2),), ("finger_vel",), sessions={"falcon": "m2"})
    for i, session in enumerate(("20201019", "20201020", "20201027", "Run1_20201028")):
        fields = {"token_buckets": [64 + i]}
        random_bundle(tmp_path / session, Wanted(**{**vars(wanted), "fields": fields}))
    metrics = run_challenge(open_decoders(tmp_path, falcon_task("m2")), data=data)
    ours = evaluate_falcon(tmp_path, files, "m2")
    assert metrics is not None
    expected = pytest.approx(metrics["Held In R2 Mean"], rel=1e-9)
    assert ours["falcon"]["R2 Mean"] == expected
    assert len({held["checksum"] for held in ours["files"].values()}) == 4


@pytest.mark.parametrize("task", ["m1", "m2", "h1"])
def test_tags_are_the_benchmarks(data: Path, task: str) -> None:
    config = FalconConfig(task=FalconTask[task])
    files = sorted((data / task / "minival").glob("*.nwb"))
    assert [file_tag(config, file) for file in files] == [tag_of(file) for file in files]


def test_missing_files_and_decoders_are_told_before_anything_is_decoded(
    data: Path, tmp_path: Path
) -> None:
    decoders = open_decoders(data / "bundle-m1", falcon_task("m1"))
    with pytest.raises(FalconError, match=r"were not found \(.*absent.*--data .* m1 or 000941"):
        run_challenge(decoders, data=tmp_path / "absent")
    some = tmp_path / "m1" / "minival"
    some.mkdir(parents=True)
    files = sorted((data / "m1" / "minival").glob("*.nwb"))
    for file in files[:2]:
        (some / file.name).symlink_to(file)
    with pytest.raises(FalconError, match=r"lack 20120927, 20120928; name the files"):
        run_challenge(decoders, data=tmp_path)
    (some / "recording_val.nwb").symlink_to(files[0])
    with pytest.raises(FalconError, match="no session 'val': remove its file"):
        run_challenge(decoders, data=tmp_path)
    random_bundle(
        tmp_path / "folder" / "20120924",
        Wanted((("value", 16),), ("preprocessed_emg",), sessions={"falcon": "m1"}),
    )
    with pytest.raises(FalconError, match="no decoder for FALCON's session '20120926'"):
        run_challenge(open_decoders(tmp_path / "folder", falcon_task("m1")), data=data)


def test_the_interface_takes_files_and_tags(data: Path) -> None:
    decoder = wrap_bundle(data / "bundle-m1", "m1", batch_size=2)
    files = sorted((data / "m1" / "minival").glob("*.nwb"))
    counts = np.ones((2, N_UNITS), np.uint8)
    with pytest.raises(FalconError, match="2 observations for 0 files"):
        decoder.predict(counts)
    decoder.reset(dataset_tags=files[:2])
    first = decoder.predict(counts)
    decoder.observe(counts)
    decoder.on_done(np.zeros(2))
    assert first.shape == (2, 16)
    assert not np.array_equal(decoder.predict(counts), first)
    decoder.reset(dataset_tags=["20120924", "20120926"])
    np.testing.assert_array_equal(decoder.predict(counts), first)
    with pytest.raises(FalconError, match=r"x\.nwb is not named as FALCON's files of m1"):
        decoder.reset(dataset_tags=[Path("x.nwb"), files[0]])


def test_the_command_prints_metrics_and_leaves_no_files(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    command = ["falcon", str(data / "bundle-m1"), "--task", "m1", "--data", str(data)]
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"Held In R2 Mean", "Held In R2 Std.", "Normalized Latency"} <= set(told["metrics"])
    assert list(tmp_path.iterdir()) == []
    assert dict(os.environ) == before


def test_remote_writes_the_predictions_that_evalai_scores(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("falcon_challenge.evaluator.sleep", waited.append)
    monkeypatch.setenv("PREDICTION_PATH", str(tmp_path / "submission.csv"))
    monkeypatch.setenv("GT_PATH", str(tmp_path / "truth.pkl"))
    decoders = open_decoders(data / "bundle-m1", falcon_task("m1"))
    assert run_challenge(decoders, data=data, remote=True) is None
    assert waited == [300]
    predicted = pickle.loads((tmp_path / "submission.csv").read_bytes())["m1"]
    assert predicted.pop("normalized_latency") > 0
    assert sorted(predicted) == ["20120924", "20120926", "20120927", "20120928"]
    told = evaluate(
        test_annotation_file=str(tmp_path / "truth.pkl"),
        user_submission_file=str(tmp_path / "submission.csv"),
        phase_codename="minival",
    )
    ours = evaluate_falcon(
        data / "bundle-m1", sorted((data / "m1" / "minival").glob("*.nwb")), "m1"
    )
    (metrics,) = told["submission_result"].values()
    assert ours["falcon"]["R2 Mean"] == pytest.approx(metrics["Held In R2 Mean"], rel=1e-9)


@pytest.mark.parametrize(("task", "n"), [("m1", 2), ("m2", 3), ("h1", 4)])
def test_a_part_of_a_task_is_scored_alike(data: Path, task: str, n: int) -> None:
    files = sorted((data / task / "minival").glob("*.nwb"))[:n]
    decoders = open_decoders(data / f"bundle-{task}", falcon_task(task))
    theirs = score_files(decoders, files, batch_size=2)
    ours = evaluate_falcon(data / f"bundle-{task}", files, task)
    assert ours["falcon"]["R2 Mean"] == pytest.approx(theirs["R2 Mean"], rel=1e-9)
    told = {name.removesuffix(" R2"): r2 for name, r2 in theirs.items() if name.endswith(" R2")}
    assert told == pytest.approx(ours["sessions"], rel=1e-9)


def test_files_are_named_on_the_command_line(
    data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    files = [str(file) for file in sorted((data / "m2" / "minival").glob("*.nwb"))[:2]]
    command = ["falcon", str(data / "bundle-m2"), *files, "--task", "m2"]
    assert main(command) == 0
    assert "20201019 R2" in json.loads(capsys.readouterr().out)["metrics"]
    assert main([*command, "--data", "x"]) == 2
    assert "leave out --phase, --data" in capsys.readouterr().err
    assert main(["falcon", str(data / "bundle-m2"), str(tmp_path / "x.nwb"), "--task", "m2"]) == 2
    assert "x.nwb is not named as FALCON's files of m2" in capsys.readouterr().err
    absent = tmp_path / Path(files[0]).name
    assert main(["falcon", str(data / "bundle-m2"), str(absent), "--task", "m2"]) == 2
    assert "evaluator stopped (FileNotFoundError" in capsys.readouterr().err
