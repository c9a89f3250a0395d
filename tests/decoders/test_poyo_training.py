"""Training of POYO: it learns, goes on bit-exactly, ends in time; what it gives decodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from calibration.evaluate import evaluate
from decoders.checkpoint import load_checkpoint, save_checkpoint
from decoders.config import TrainConfig, load_config, parse_config
from decoders.errors import ConfigError, TrainingError
from decoders.poyo.tokens import END, SPIKE
from decoders.poyo.trainer import PoyoTrainer, learning_rate
from decoders.poyo.windows import Stretch, WindowCorpus
from decoders.train import train
from decoders.training.recordings import record
from export.bundle import open_bundle
from export.errors import ExportError
from export.graphs.runs import export_trained
from streams.sessions.nwb.writer import write_session
from streams.spikes.tokenizer import cut_bins
from tests.decoders.sessions import tuned_session
from tests.decoders.test_trainer import assert_equal

TINY = """
name = "tiny"
split = "last:0.25"
[sessions]
glob = ["*.nwb"]
[beat]
hop_ms = 50
bin_ms = 50
[[outputs]]
name = "velocity"
behavior = "velocity"
unit = "cm/s"
[poyo]
sequence_s = 0.5
n_latents_per_step = 4
dim = 16
depth = 1
dim_head = 16
self_heads = 2
ffn_dropout = 0.0
lin_dropout = 0.0
learning_rate = 5e-3
[training]
steps = 120
unit_dropout = 0.2
average = 0.9
"""


def tiny_config(path: Path, extra: str = "", **changes: Any) -> TrainConfig:
    path.write_text(TINY + extra)
    config = load_config(path)
    assert config.poyo is not None
    return config.model_copy(update={"poyo": config.poyo.model_copy(update=changes)})


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return tiny_config(tmp_path / "train.toml")


def trainer_of(config: TrainConfig, n_sessions: int = 1) -> PoyoTrainer:
    sessions = [tuned_session(str(i), n_units=8 + i, seed=i) for i in range(n_sessions)]
    recordings = [record(session, config) for session in sessions]
    return PoyoTrainer(config, recordings, Fabric(accelerator="cpu"))


def test_windows_hold_the_spikes_of_their_second_and_no_dropped_unit(config: TrainConfig) -> None:
    session = tuned_session()
    corpus = WindowCorpus([record(session, config)], hop_us=50_000, n_hops=10)
    kept = np.array([True, False] + [True] * 6)
    batch = corpus.batch([Stretch(0, 0, 99)], [kept])
    rows = np.where(kept, np.arange(8), -1).astype(np.int32)
    bins = cut_bins(session.spikes, rows, np.array([5_000_000]), 500_000)
    spikes = batch.kind[0] == SPIKE
    np.testing.assert_array_equal(np.sort(batch.unit[0, spikes]), np.sort(bins.unit + 1))
    np.testing.assert_allclose(np.sort(batch.t_s[0, spikes]), np.sort(bins.t_rel), atol=1e-9)
    assert sorted(batch.unit[0, batch.kind[0] == END].tolist()) == [1, 3, 4, 5, 6, 7, 8]
    np.testing.assert_allclose(batch.query_s[0], np.arange(1, 11) * 0.05)
    target = corpus.targets([Stretch(0, 0, 99)])[0, -1]
    np.testing.assert_allclose(target, session.signal("velocity").at(np.array([5.0]))[0], rtol=1e-6)


def test_no_window_reaches_into_the_test_part(config: TrainConfig) -> None:
    recording = record(tuned_session(), config)
    corpus = WindowCorpus([recording], hop_us=50_000, n_hops=10)
    drawn = corpus.draw(4000, torch.Generator().manual_seed(0))
    assert {at.cut for at in drawn} == {0, 1, 2, 3}
    assert min(at.last for at in drawn) == 9
    assert max(at.last for at in drawn if at.cut == 0) == recording.train.last - 1
    assert max(at.last for at in drawn if at.cut) == recording.train.last - 2


def test_it_learns_the_made_up_tuning_of_two_sessions(config: TrainConfig) -> None:
    trainer = trainer_of(config, n_sessions=2)
    while trainer.share_done < 1.0:
        trainer.step()
    scores = trainer.score()
    assert len(scores) == 2
    for of_session in scores.values():
        assert min(of_session["velocity"]) > 0.5
    assert trainer.summary()["epochs"] == pytest.approx(120 * 8 * 0.5 / 59.1, abs=0.1)


def test_resuming_is_bit_exact(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "train.toml", lin_dropout=0.3)
    stopped = trainer_of(config)
    for _ in range(4):
        stopped.step()
    save_checkpoint(tmp_path / "checkpoint.pt", stopped.progress())
    resumed = trainer_of(config)
    resumed.restore(load_checkpoint(tmp_path / "checkpoint.pt", "poyo"))
    for _ in range(2):
        resumed.step()
    straight = trainer_of(config)
    for _ in range(6):
        straight.step()
    told, expected = resumed.progress(), straight.progress()
    assert_equal(told | {"taken_s": 0.0}, expected | {"taken_s": 0.0})


def test_a_time_budget_ends_the_training_and_leads_the_rate(config: TrainConfig) -> None:
    assert config.poyo is not None
    poyo = config.poyo.model_copy(update={"time_budget_s": 0.5})
    trainer = trainer_of(config.model_copy(update={"poyo": poyo}))
    while trainer.share_done < 1.0:
        trainer.step()
    assert trainer.taken_s >= 0.5
    assert trainer.learner.optimizer.param_groups[0]["lr"] < poyo.learning_rate
    rates = [learning_rate(share, poyo) for share in (0.0, poyo.warmup, 0.4, 0.75, 1.0)]
    assert rates[0] < rates[1] == rates[2] > rates[3] > rates[4]
    assert rates[4] == pytest.approx(0.0, abs=1e-12)


def test_from_a_config_to_an_evaluated_bundle(tmp_path: Path) -> None:
    """Training's own reading at the windows' ends, and the exported graph over all beats, agree."""
    write_session(tuned_session("one"), tmp_path / "one.nwb")
    tiny_config(tmp_path / "train.toml")
    run_dir = train(tmp_path / "train.toml", out=tmp_path / "run")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["steps"] == 120
    assert metrics["n_units"] == 8
    assert (run_dir / "curves.png").read_bytes().startswith(b"\x89PNG")
    manifest = export_trained(run_dir, tmp_path / "bundle").manifest
    assert (manifest.family, manifest.hop_s, manifest.bin_s) == ("poyo", 0.05, 0.5)
    assert manifest.session == "made-up/2026-01-01/one"
    assert (manifest.lead_s.min, manifest.lead_s.max) == (-0.45, 0.0)
    result = evaluate(tmp_path / "bundle", [tmp_path / "one.nwb"], split="last:0.25")
    assert min(result["outputs"]["velocity"]["r2"]) > 0.5
    measured = np.mean(metrics["sessions"]["made-up/2026-01-01/one"]["velocity"])
    assert np.mean(result["outputs"]["velocity"]["r2"]) == pytest.approx(measured, abs=1e-3)


def test_a_run_of_one_family_is_no_checkpoint_of_the_other(tmp_path: Path) -> None:
    trainer = trainer_of(tiny_config(tmp_path / "train.toml"), n_sessions=2)
    save_checkpoint(tmp_path / "checkpoint.pt", trainer.progress())
    with pytest.raises(TrainingError, match=r"poyo checkpoint, not .*'streaming' family"):
        load_checkpoint(tmp_path / "checkpoint.pt")
    with pytest.raises(ExportError, match=r"not trained on session 'x'; it has: made-up"):
        export_trained(tmp_path, tmp_path / "bundle", session="x")
    first = export_trained(tmp_path, tmp_path / "bundle", session="made-up/2026-01-01/0")
    assert len(open_bundle(first.path).row_of_key) == 8


@pytest.mark.parametrize(
    ("section", "change", "text"),
    [
        ("training", {"lanes": 4}, r"\[training\] lanes do not concern \[poyo\]"),
        ("network", {"d_model": 8}, r"\[network\] and \[start\] do not concern"),
        ("lead", {"max_s": 0.1}, r"by an output's lag_s"),
        ("beat", {"hop_ms": 50, "bin_ms": 100}, r"needs bin_ms = hop_ms"),
        ("beat", {"hop_ms": 30, "bin_ms": 30}, r"whole number of hops"),
        ("poyo", {"sequence": 1.0}, r"unknown key 'poyo.sequence'; did you mean 'sequence_s'"),
    ],
)
def test_what_cannot_be_said_of_poyo_is_refused(
    tmp_path: Path, section: str, change: dict[str, Any], text: str
) -> None:
    fields = tiny_config(tmp_path / "train.toml").model_dump(mode="json")
    fields[section] = (fields[section] or {}) | change
    with pytest.raises(ConfigError, match=text):
        parse_config(fields, "the test")


def test_too_little_to_learn_from_is_named(config: TrainConfig) -> None:
    recordings = [record(tuned_session("short", duration_s=0.6), config)]
    with pytest.raises(TrainingError, match=r"session .*short has no window of 0.5 s"):
        PoyoTrainer(config, recordings, Fabric(accelerator="cpu"))


def test_torchrun_s_processes_share_a_training_and_leave_together(tmp_path: Path) -> None:
    """Through the command line; two processes see the windows that one would see."""
    write_session(tuned_session("one"), tmp_path / "one.nwb")
    (tmp_path / "train.toml").write_text(TINY.replace("steps = 120", "steps = 3"))
    config = load_config(tmp_path / "train.toml")
    torchrun = "-m torch.distributed.run --standalone --nproc-per-node 2 -m service.cli train"
    paths = [str(tmp_path / "train.toml"), "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, *torchrun.split(), *paths],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    shared = load_checkpoint(tmp_path / "run" / "checkpoint.pt", "poyo")["loss"]
    alone = PoyoTrainer(config, [record(tuned_session("one"), config)], Fabric(accelerator="cpu"))
    np.testing.assert_allclose(shared, [alone.step() for _ in range(3)], rtol=1e-5)
