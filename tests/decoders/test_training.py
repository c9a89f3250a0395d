"""`train` from a TOML file to a run directory."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from decoders.checkpoint import load_checkpoint
from decoders.errors import TrainingError
from decoders.train import train
from streams import long_work
from streams.sessions.nwb.writer import write_session
from tests.decoders.sessions import tuned_session

CONFIG = """
name = "made-up"
[sessions]
glob = ["*.nwb"]
[[outputs]]
name = "velocity"
behavior = "velocity"
unit = "cm/s"
[network]
n_latents = 3
d_model = 12
d_memory = 16
[training]
steps = {steps}
lanes = 4
window_s = 0.8
context_s = 0.4
checkpoint_every = 3
evaluate_every = 3
"""


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    """A config beside two sessions."""
    for i, name in enumerate(("one", "two")):
        write_session(tuned_session(name, seed=i), tmp_path / f"{name}.nwb")
    path = tmp_path / "train.toml"
    path.write_text(CONFIG.format(steps=6))
    return path


def test_a_run_directory_holds_config_checkpoint_metrics_and_curves(config_path: Path) -> None:
    run_dir = train(config_path, out=config_path.parent / "run")
    assert (run_dir / "config.toml").read_text() == config_path.read_text()
    assert (run_dir / "curves.png").read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["steps"] == 6
    assert sorted(metrics["sessions"]) == ["made-up/2026-01-01/one", "made-up/2026-01-01/two"]
    assert all(len(s["velocity"]) == 2 for s in metrics["sessions"].values())
    checkpoint = load_checkpoint(run_dir / "checkpoint.pt")
    assert len(checkpoint["loss"]) == 6
    assert [step for step, _ in checkpoint["scores"]] == [3, 6]


def test_a_finished_run_is_not_trained_over(config_path: Path) -> None:
    run_dir = train(config_path, out=config_path.parent / "run")
    with pytest.raises(TrainingError, match="holds a training already"):
        train(config_path, out=run_dir)
    before = load_checkpoint(run_dir / "checkpoint.pt")["loss"]
    train(config_path, out=run_dir, resume=True)
    assert load_checkpoint(run_dir / "checkpoint.pt")["loss"] == before


def test_there_must_be_something_to_resume(config_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no checkpoint.pt to resume from"):
        train(config_path, out=config_path.parent / "run", resume=True)


def test_a_glob_that_matches_nothing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_text(CONFIG.format(steps=6).replace("*.nwb", "nowhere/*.nwb"))
    with pytest.raises(TrainingError, match=r"'nowhere/\*\.nwb' matches no file"):
        train(path, out=tmp_path / "run")


def test_simulated_days_are_written_first(tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    simulated = "[sessions.simulated]\nsubject = 3\ndays = [0, 2]\nminutes = 0.5\nn_units = 12\n"
    text = CONFIG.format(steps=2).replace('glob = ["*.nwb"]\n', simulated)
    path.write_text(text.replace('behavior = "velocity"', 'behavior = "cursor_velocity"'))
    run_dir = train(path, out=tmp_path / "run")
    names = sorted(p.name for p in (run_dir / "sessions").iterdir())
    assert names == ["day-000-reach.nwb", "day-002-reach.nwb"]
    assert len(json.loads((run_dir / "metrics.json").read_text())["sessions"]) == 2


def test_a_training_without_a_terminal_says_how_far_it_is(
    config_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(long_work, "EVERY_S", 1e-3)
    train(config_path, out=config_path.parent / "run")
    told = capsys.readouterr().err
    assert re.search(r"^training for 0 min: \d+%, step \d+  loss [\d.]+$", told, flags=re.M)
