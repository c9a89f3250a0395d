"""`spikeloop train`: from a config to a run directory with checkpoint, metrics and curves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from torch import distributed

from decoders.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from decoders.config import Simulated, TrainConfig, load_config
from decoders.errors import TrainingError
from decoders.families import FAMILIES, FamilyTrainer
from decoders.training.curves import draw_curves
from decoders.training.optimisation import launch
from decoders.training.reading import Say, read_sessions, say_on_stderr, simulated_sessions
from decoders.training.recordings import Recording, record, record_synthetic
from streams.clock import MonotonicClock
from streams.long_work import LongWork
from streams.sessions.nwb.writer import write_session
from streams.simulation.openloop import record_open_loop


def train(config_path: Path, *, resume: bool = False, out: Path | None = None) -> Path:
    """Train as a config says.

    Args:
        config_path: TOML.
        resume: go on from the run directory's checkpoint.
        out: the run directory; `runs/<name>` if None.

    Returns:
        The run directory: `config.toml`, `checkpoint.pt`, `metrics.json`, `curves.png`.

    Raises:
        ConfigError: the config cannot be used.
        TrainingError: sessions, checkpoint or run directory cannot serve.
    """
    config = load_config(config_path)
    run_dir = out or Path("runs") / config.name
    fabric = launch(config)
    if fabric.is_global_zero:
        _prepare(run_dir, config_path, resume)
        _simulate(config.sessions.simulated, run_dir)
    fabric.barrier()
    with LongWork("reading sessions", has_bar=not fabric.is_global_zero):
        recordings = load_recordings(config, config_path.parent, run_dir)
    family = FAMILIES[config.family]
    trainer = family.new_trainer(config, config_path.parent, recordings, fabric)
    if resume:
        trainer.restore(load_checkpoint(run_dir / CHECKPOINT, config.family))
    clock = MonotonicClock()
    t_start = clock.now()
    _run(trainer, run_dir)
    _finish(trainer, run_dir, clock.now() - t_start)
    # Not before the first process has written its files.
    _leave_together(fabric)
    return run_dir


def _leave_together(fabric: Fabric) -> None:
    """Wait for the other processes: one that leaves early makes them abort."""
    if fabric.world_size > 1 and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def _prepare(run_dir: Path, config_path: Path, resume: bool) -> None:
    has_run = (run_dir / CHECKPOINT).exists()
    if has_run and not resume:
        raise TrainingError(
            f"{run_dir} holds a training already: go on with --resume, or give another directory"
        )
    if resume and not has_run:
        raise TrainingError(f"{run_dir} holds no {CHECKPOINT} to resume from")
    run_dir.mkdir(parents=True, exist_ok=True)
    if not resume:
        shutil.copyfile(config_path, run_dir / "config.toml")


def _simulate(simulated: Simulated | None, run_dir: Path) -> None:
    """Write the simulated sessions that are not there yet."""
    for day, style, path in simulated_sessions(simulated, run_dir):
        if simulated is None or path.exists():
            continue
        path.parent.mkdir(exist_ok=True)
        session = record_open_loop(
            simulated.subject,
            day,
            simulated.minutes,
            simulated.n_units,
            simulated.task,
            style=style,
        )
        write_session(session, path)


def load_recordings(
    config: TrainConfig, config_dir: Path, run_dir: Path, say: Say = say_on_stderr
) -> list[Recording]:
    """Read and cut every session that the config names, ordered by id.

    Synthetic ones come first, where the config asks for some.

    Args:
        config: names them.
        config_dir: globs are relative to it.
        run_dir: where simulated sessions lie.
        say: hears about files that are passed over or mended.

    Raises:
        TrainingError: a glob matches nothing, a file cannot be read, or the sessions' outputs
            differ in length.
    """
    recordings: list[Recording] = []
    synthetic: list[Recording] = []
    for i, session in enumerate(read_sessions(config, config_dir, run_dir, say)):
        recordings.append(record(session, config))
        synthetic += record_synthetic(session, config, config.seed + i)
    recordings.sort(key=lambda recording: recording.id)
    for recording in recordings:
        if recording.dims != recordings[0].dims:
            raise TrainingError(
                f"outputs have {recording.dims} dimensions in session {recording.id} "
                f"but {recordings[0].dims} in {recordings[0].id}: name the same behaviour in all"
            )
    return [*synthetic, *recordings]


def _run(trainer: FamilyTrainer, run_dir: Path) -> None:
    recipe = trainer.learner.config.training
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    show = trainer.learner.fabric.is_global_zero
    console = Console(stderr=True)
    has_bar = show and console.is_terminal
    with (
        Progress(*columns, TimeRemainingColumn(), console=console, disable=not has_bar) as progress,
        LongWork("training", has_bar=has_bar or not show) as work,
    ):
        task = progress.add_task("training", total=1.0)
        while trainer.share_done < 1.0:
            loss = trainer.step()
            text = f"step {trainer.learner.i_step}  loss {loss:.4f}"
            progress.update(task, completed=trainer.share_done, description=text)
            work.tell(f"{trainer.share_done:.0%}, {text}")
            at_end = trainer.share_done >= 1.0
            if at_end or trainer.learner.i_step % recipe.evaluate_every == 0:
                trainer.learner.scores.append(
                    (trainer.learner.i_step, mean_scores(trainer.score()))
                )
            if at_end or trainer.learner.i_step % recipe.checkpoint_every == 0:
                # Every process takes part in this, the first writes it.
                progress_made = trainer.progress()
                if show:
                    save_checkpoint(run_dir / CHECKPOINT, progress_made)


def mean_scores(scores: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """Mean over sessions and dimensions, per output."""
    names = sorted({name for score in scores.values() for name in score})
    return {
        name: float(np.nanmean([np.nanmean(score[name]) for score in scores.values()]))
        for name in names
    }


def _finish(trainer: FamilyTrainer, run_dir: Path, train_s: float) -> None:
    scores = trainer.score()
    if not trainer.learner.fabric.is_global_zero:
        return
    metrics: dict[str, Any] = {
        "steps": trainer.learner.i_step,
        "train_s": round(train_s, 1),
        **trainer.summary(),
        "loss": trainer.learner.loss[-1] if trainer.learner.loss else None,
        "test": mean_scores(scores),
        "sessions": scores,
    }
    (run_dir / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    draw_curves(run_dir / "curves.png", trainer.learner.loss, trainer.learner.scores)
