"""From FALCON's calibration files to a score: train, export, adapt, and both ways of evaluating."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.adaptation.adapt import adapt
from calibration.evaluate import evaluate
from calibration.falcon.decoders import fit_bundle, open_decoders, reads_spike_times
from calibration.falcon.scoring import evaluate_falcon
from decoders.config import load_config
from decoders.errors import ConfigError
from decoders.train import train
from export.bundle import open_bundle
from export.graphs.streaming import export_run
from streams.sessions.falcon import falcon_task
from tests.calibration.falcon_files import BEHAVIOR, MINIVAL, write_m2
from tests.calibration.small_training import SMALL

CONFIG = """
name = "falcon-{task}"
split = "none"
[sessions]
glob = ["{task}/minival/*.nwb"]
falcon = "{task}"
same_array = true
[beat]
rotary = false
[[outputs]]
name = "movement"
behavior = "{behavior}"
""" + SMALL.replace("steps = 120", "steps = 60")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of M1, M2 and H1, and a decoder that was trained on each."""
    data = tmp_path_factory.mktemp("trained")
    for task, write in MINIVAL.items():
        write(data / task / "minival")
        (data / f"{task}.toml").write_text(CONFIG.format(task=task, behavior=BEHAVIOR[task]))
        export_run(train(data / f"{task}.toml", out=data / f"run-{task}"), data / f"b-{task}")
    return data


def files_of(data: Path, task: str) -> list[Path]:
    return sorted((data / task / "minival").glob("*.nwb"))


@pytest.mark.parametrize("task", ["m1", "m2", "h1"])
def test_the_evaluators_r2_is_that_of_evaluate(data: Path, task: str) -> None:
    challenge = pytest.importorskip(
        "calibration.falcon.challenge", reason="the extra `falcon` is not installed"
    )
    decoders = open_decoders(data / f"b-{task}", falcon_task(task))
    metrics = challenge.run_challenge(decoders, data=data)
    ours = evaluate_falcon(data / f"b-{task}", files_of(data, task), task)["falcon"]
    assert abs(ours["R2 Mean"] - metrics["Held In R2 Mean"]) <= 1e-6
    assert abs(ours["R2 Std."] - metrics["Held In R2 Std."]) <= 1e-6
    assert ours["R2 Mean"] > -1.0


def test_plain_evaluation_reads_files_as_the_decoder_was_trained(data: Path) -> None:
    files = files_of(data, "m1")
    plain = evaluate(data / "b-m1", files[:1], split="all")["outputs"]["movement"]
    ours = evaluate_falcon(data / "b-m1", files[:1], "m1")["files"][files[0].stem]
    assert plain["r2"] == ours["r2"]
    assert plain["ci"] == ours["ci"]
    assert not reads_spike_times(open_bundle(data / "b-m1"))


def test_a_decoder_is_adapted_to_a_held_out_session(data: Path, tmp_path: Path) -> None:
    calibration = write_m2(tmp_path, "20201030", 1, 40)
    adapt(
        data / "b-m2",
        calibration,
        out=tmp_path / "decoders" / "20201030",
        seconds=15.0,
        same_array=True,
        on_note=lambda text: None,
    )
    decoders = open_decoders(tmp_path / "decoders", falcon_task("m2"))
    assert decoders.of("Run2_20201030").lead_s == 0.0
    result = evaluate_falcon(tmp_path / "decoders", [calibration], "m2")
    assert np.isfinite(result["sessions"]["20201030"])


def test_a_decoder_of_the_plain_files_is_scored_at_the_benchmarks_time(
    data: Path, tmp_path: Path
) -> None:
    text = CONFIG.format(task="m2", behavior="finger_vel").replace(
        'falcon = "m2"', 'mask = "eval_mask"'
    )
    text = text.replace('"m2/minival', f'"{data}/m2/minival')
    (tmp_path / "plain.toml").write_text(text.replace("[network]", "lag_s = -0.02\n[network]"))
    bundle = export_run(train(tmp_path / "plain.toml", out=tmp_path / "run"), tmp_path / "bundle")
    assert fit_bundle(bundle, falcon_task("m2")).lead_s == 0.0
    challenge = pytest.importorskip(
        "calibration.falcon.challenge", reason="the extra `falcon` is not installed"
    )
    decoders = open_decoders(tmp_path / "bundle", falcon_task("m2"))
    metrics = challenge.run_challenge(decoders, data=data)
    ours = evaluate_falcon(tmp_path / "bundle", files_of(data, "m2"), "m2")["falcon"]
    assert abs(ours["R2 Mean"] - metrics["Held In R2 Mean"]) <= 1e-6


@pytest.mark.parametrize(
    ("given", "instead", "why"),
    [
        ("rotary = false", "", "rotary = false"),
        ("rotary = false", "rotary = false\nhop_ms = 10", "hop_ms = 20"),
        ("rotary = false", "rotary = false\nhop_ms = 20\nbin_ms = 30", "bin_ms = 20"),
        ("same_array = true", 'mask = "eval_mask"', "leave out mask"),
        ("same_array = true", 'units.key = "electrodes"', "leave out units"),
        ('falcon = "m2"', 'falcon = "h2"', "'m1', 'm2' or 'h1'"),
    ],
)
def test_configs_that_contradict_the_benchmark_are_refused(
    tmp_path: Path, given: str, instead: str, why: str
) -> None:
    text = CONFIG.format(task="m2", behavior="finger_vel")
    (tmp_path / "train.toml").write_text(text.replace(given, instead))
    with pytest.raises(ConfigError, match=why):
        load_config(tmp_path / "train.toml")


def test_the_config_of_the_documentation_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "falcon.md").read_text()
    (tmp_path / "m1.toml").write_text(text.partition("```toml\n")[2].partition("```")[0])
    config = load_config(tmp_path / "m1.toml")
    assert config.sessions.falcon == "m1"
    assert falcon_task("m1").behavior.endswith(config.outputs[0].behavior)
