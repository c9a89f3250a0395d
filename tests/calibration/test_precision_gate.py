"""The precision gate, from the command line to the builds: a real recording, a real loss."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from calibration.precision_gate import PrecisionGate
from export.backends.onnxruntime_cpu import open_cpu
from export.bundle import open_bundle
from export.shipped import bundle_path
from service.cli import main

DEMO = "shipped:demo"
FP16 = ("build", DEMO, "--backend", "onnxruntime-cpu", "--precision", "fp16", "--split", "all")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A third of a minute of the subject that the shipped decoder knows, on its next day."""
    path = tmp_path_factory.mktemp("gate") / "day8.nwb"
    assert main(["simulate", "--day", "8", "--minutes", "0.3", "--write", str(path)]) == 0
    return path


@pytest.fixture
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPIKELOOP_BUILDS", str(tmp_path / "builds"))
    return tmp_path / "builds"


def test_fp16_that_costs_little_is_built(
    session: Path, builds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*FP16, "--session", str(session), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    verdict = record["verdict"]
    assert verdict["drop"] <= verdict["r2_bound"] == 0.01
    assert verdict["r2"]["velocity"] != verdict["r2_fp32"]["velocity"]
    assert min(verdict["r2_fp32"]["velocity"]) > 0.3
    assert Path(record["path"]).parent == builds


def test_what_costs_more_than_the_bound_ends_with_8(
    session: Path, builds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*FP16, "--session", str(session), "--bound", "-1"]) == 8
    assert "more than the -1 allowed: nothing was built" in capsys.readouterr().err
    assert not list(builds.glob("*"))


def test_without_a_recording_it_ends_with_2(
    builds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*FP16]) == 2
    assert "--session" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="a machine without a GPU")
def test_engines_for_other_machines_are_judged_by_their_rounding(
    session: Path, builds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["build", DEMO, "--backend", "tensorrt", "--precision", "fp16", "--json"]
    assert main([*command, "--session", str(session)]) == 0
    told = capsys.readouterr()
    record = json.loads(told.out)
    assert record["targets"] == ["sm86", "sm89", "sm120"]
    assert 0 < abs(record["verdict"]["drop"]) < 0.01
    assert "engine 1 of 1, 128 tokens" in told.err
    assert main([*command, "--session", str(session), "--bound", "-1"]) == 8
    assert main(["build", DEMO, "--backend", "tensorrt", "--target", "sm90"]) == 5


def test_a_worse_decoder_is_seen_to_be_worse(session: Path) -> None:
    bundle = open_bundle(bundle_path(DEMO))
    gate, spoilt = PrecisionGate(bundle, session, "all"), open_cpu(bundle)
    assert gate.judge(open_cpu(bundle))["drop"] == 0.0
    spoilt.set_tables({**bundle.tables, "table": np.roll(bundle.tables["table"], 7, axis=0)})
    assert gate.judge(spoilt)["drop"] > 0.2
