"""Training: it learns, goes on bit-exactly, and does not depend on how many processes share it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from decoders.checkpoint import load_checkpoint, save_checkpoint
from decoders.config import TrainConfig
from decoders.errors import TrainingError
from decoders.streaming.trainer import (
    Trainer,
    learning_rate,
    new_network,
    share_of_process,
    shared_keys,
    start_from,
)
from decoders.training.recordings import record
from streams.r2 import r2_score
from streams.sessions.session import Behavior
from tests.decoders import two_processes
from tests.decoders.sessions import VELOCITY, small_config, tuned_session

CONFIG = small_config()


def new_trainer(config: TrainConfig = CONFIG) -> Trainer:
    return Trainer(config, [record(tuned_session(), config)], Fabric(accelerator="cpu"))


def assert_equal(left: Any, right: Any) -> None:
    """Bit for bit, through dicts and lists."""
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_equal(left[key], right[key])
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    elif isinstance(left, list | tuple):
        for one, other in zip(left, right, strict=True):
            assert_equal(one, other)
    else:
        assert left == right


def test_it_learns_the_made_up_tuning() -> None:
    recipe = {
        "steps": 150,
        "lanes": 8,
        "window_s": 1.0,
        "context_s": 0.4,
        "dropout": 0.0,
        "unit_dropout": 0.1,
        "learning_rate": 1e-2,
    }
    trainer = new_trainer(small_config(training=recipe))
    for _ in range(150):
        trainer.step()
    (scores,) = trainer.score().values()
    assert min(scores["velocity"]) > 0.6
    assert scores["phase"][0] > 0.8


def test_resuming_is_bit_exact(tmp_path: Path) -> None:
    straight, stopped = new_trainer(), new_trainer()
    for _ in range(6):
        straight.step()
    for _ in range(3):
        stopped.step()
    save_checkpoint(tmp_path / "checkpoint.pt", stopped.progress())
    resumed = new_trainer()
    resumed.restore(load_checkpoint(tmp_path / "checkpoint.pt"))
    for _ in range(3):
        resumed.step()
    assert_equal(straight.progress(), resumed.progress())


def test_resuming_with_another_config_is_refused() -> None:
    progress = new_trainer().progress()
    other = new_trainer(small_config(seed=4))
    with pytest.raises(TrainingError, match="config has changed"):
        other.restore(progress)


def test_two_processes_give_the_losses_of_one(tmp_path: Path) -> None:
    alone, _, _ = two_processes.losses()
    script = Path(two_processes.__file__)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parents[2])}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    written = sorted(tmp_path.iterdir())
    assert [path.name for path in written] == ["0-of-2.json", "1-of-2.json"]
    for path in written:
        np.testing.assert_allclose(json.loads(path.read_text()), alone, atol=1e-5)
    assert alone[0] - alone[-1] > 0.1


def test_mixed_precision_trains_nearly_the_same() -> None:
    exact, mixed = (
        Trainer(
            CONFIG,
            [record(tuned_session(), CONFIG)],
            Fabric(accelerator="cpu", precision=precision),
        )
        for precision in ("32-true", "bf16-mixed")
    )
    left, right = ([trainer.step() for _ in range(4)] for trainer in (exact, mixed))
    assert left != right
    np.testing.assert_allclose(right, left, rtol=0.05)


def test_lanes_are_shared_evenly_or_not_at_all() -> None:
    assert [share_of_process(rank, 2, 6) for rank in range(2)] == [slice(0, 3), slice(3, 6)]
    with pytest.raises(TrainingError, match="5 lanes cannot be shared evenly by 2"):
        share_of_process(0, 2, 5)


def test_learning_rate_warms_up_and_ends_at_zero() -> None:
    recipe = CONFIG.training
    rates = [learning_rate(i, recipe) for i in range(recipe.steps + 1)]
    assert max(rates) == pytest.approx(recipe.learning_rate)
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)


def test_frozen_behaviour_is_refused() -> None:
    session = tuned_session()
    signal = session.behavior[VELOCITY]
    still = Behavior(signal.t_s, np.ones_like(signal.values), signal.unit)
    session = replace(session, behavior={**session.behavior, VELOCITY: still})
    with pytest.raises(TrainingError, match="'velocity' never changes"):
        Trainer(CONFIG, [record(session, CONFIG)], Fabric(accelerator="cpu"))


def test_keys_are_shared_on_the_same_array_alone() -> None:
    recordings = [record(tuned_session(n_units=n, seed=n), CONFIG) for n in (2, 3)]
    assert shared_keys(recordings, same_array=True) == [0, 1, 0, 1, 2]
    assert shared_keys(recordings, same_array=False) == [0, 1, 2, 3, 4]


def test_a_start_keeps_the_decoder_and_the_units_it_knows() -> None:
    first = new_trainer()
    for _ in range(4):
        first.step()
    progress = first.progress()
    config = small_config(sessions={"glob": ["*"], "same_array": True})
    recordings = [record(tuned_session("two", n_units=10, seed=4), config)]
    network = new_network(config, recordings)
    start_from(network, recordings, progress, same_array=True, freeze=True)
    known = first.learner.average.tables()[:8]
    torch.testing.assert_close(network.tables()[:8], known)
    assert not any(p.requires_grad for p in network.decoder.parameters())
    trainer = Trainer(config, recordings, Fabric(accelerator="cpu"), network)
    trainer.step()
    assert_equal(network.decoder.state_dict(), first.learner.average.decoder.state_dict())
    assert not torch.allclose(network.tables()[:8], known)


def test_a_start_of_another_shape_is_refused() -> None:
    progress = new_trainer().progress()
    config = small_config(network={"n_latents": 2, "d_unit": 8, "d_value": 6, "d_memory": 16})
    recordings = [record(tuned_session(), config)]
    network = new_network(config, recordings)
    with pytest.raises(TrainingError, match="another shape"):
        start_from(network, recordings, progress, same_array=True, freeze=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"family": "poyo"}, "is poyo checkpoint"),
        ({"family": "streaming", "format": 1}, "missing keys"),
        ([1, 2], "is no checkpoint"),
    ],
)
def test_foreign_checkpoints_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match=message):
        load_checkpoint(tmp_path / "checkpoint.pt")


def test_a_checkpoint_that_is_absent_broken_or_runs_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(TrainingError, match="no checkpoint"):
        load_checkpoint(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt"):
        load_checkpoint(path)
    torch.save({"family": Path("/")}, path)
    with pytest.raises(TrainingError, match="more than tensors and numbers"):
        load_checkpoint(path)


def test_r2_is_about_the_mean_of_what_is_scored() -> None:
    actual = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [np.nan, 0.0]])
    decoded = np.array([[1.0, 0.0], [2.0, 0.0], [4.0, 0.0], [99.0, 0.0]])
    first, second = r2_score(decoded, actual)
    assert first == pytest.approx(0.5)
    assert np.isnan(second)
