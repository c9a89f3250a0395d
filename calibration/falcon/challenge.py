"""The benchmark's interface and its evaluator, as the package `falcon_challenge` has them.

Imported only where that package is installed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from falcon_challenge.config import FalconConfig
from falcon_challenge.config import FalconTask as Split
from falcon_challenge.evaluator import (
    DANDI_FOLDER_MAP,
    DATASET_HELDINOUT_MAP,
    FalconEvaluator,
    reduce_key,
)
from falcon_challenge.interface import BCIDecoder

from calibration.errors import FalconError
from calibration.falcon.decoders import Decoders, Stepper, SteppersOfBatch, open_decoders
from streams.messages import Float64s
from streams.sessions.falcon import falcon_task

LOCAL_FILES = {"PREDICTION_PATH_LOCAL": "prediction.pkl", "GT_PATH": "truth.pkl"}
"""What the evaluator writes on this machine, each into the file that a variable names."""


class SpikeloopDecoder(BCIDecoder):  # type: ignore[misc]  # the package has no types
    """Bundles as a decoder for the benchmark.

    Args:
        task_config: for the task that the bundles were opened for.
        decoders: each session's decoder.
        batch_size: files that are decoded side by side.
    """

    def __init__(self, task_config: Any, decoders: Decoders, batch_size: int = 1) -> None:
        super().__init__(task_config=task_config, batch_size=batch_size)
        self._steppers_of = SteppersOfBatch(decoders)
        self._steppers: list[Stepper] = []

    def reset(self, dataset_tags: Sequence[str | Path] = ("",)) -> None:
        """Begin files, each with its session's decoder and from zero memory.

        Args:
            dataset_tags: for each place in the batch, the file or its tag.

        Raises:
            FalconError: no decoder for one.
        """
        tags = [self._tag(tag) for tag in dataset_tags]
        self._steppers = self._steppers_of.begin(tags)

    def predict(self, neural_observations: np.ndarray) -> Float64s:
        """Decode the next 20 ms.

        Args:
            neural_observations: (batch, n_channels) counts.

        Returns:
            (batch, dims) in the files' units.

        Raises:
            FalconError: the counts do not fit the files that were begun.
        """
        if len(neural_observations) != len(self._steppers):
            raise FalconError(
                f"{len(neural_observations)} observations for {len(self._steppers)} files: call "
                "reset with a tag for each place in the batch"
            )
        pairs = zip(self._steppers, np.asarray(neural_observations), strict=True)
        return np.stack([stepper.step(counts) for stepper, counts in pairs])

    def on_done(self, dones: np.ndarray) -> None:
        """Do nothing at a trial's end: a decoder that runs live does not hear about it."""

    def _tag(self, tag: str | Path) -> str:
        """The benchmark's tag for a file; a text without a suffix is one already."""
        if not Path(tag).suffix:
            return str(tag)
        return file_tag(self._task_config, Path(tag))


def file_tag(config: Any, path: Path) -> str:
    """The benchmark's tag for a file.

    Raises:
        FalconError: it is not named as the task's files are.
    """
    try:
        return str(config.hash_dataset(path.stem))
    except (IndexError, KeyError, ValueError) as error:
        raise FalconError(
            f"{path.name} is not named as FALCON's files of {config.task.name} are: keep the names "
            "that they have on DANDI"
        ) from error


def wrap_bundle(path: Path, task_name: str, batch_size: int = 1) -> SpikeloopDecoder:
    """Wrap a bundle, or a folder with bundles named by FALCON's sessions, for the benchmark.

    Raises:
        FalconError: it does not fit the task.
        export.errors.ExportError: a bundle is refused.
        streams.errors.SessionError: there is no such task.
    """
    decoders = open_decoders(path, falcon_task(task_name))
    return SpikeloopDecoder(FalconConfig(task=Split[task_name]), decoders, batch_size)


def score_files(
    decoders: Decoders, files: Sequence[Path], *, batch_size: int = 1
) -> dict[str, Any]:
    """Let the benchmark's evaluator decode and score any files.

    Returns:
        `R2 Mean` and `R2 Std.` over sessions, as the package names them, and R2 per session.

    Raises:
        FalconError: a name that tells no session, no decoder for one, or the evaluator stopped.
    """
    config = FalconConfig(task=Split[decoders.task.name])
    for path in files:
        decoders.of(file_tag(config, path))
    evaluator = FalconEvaluator(split=decoders.task.name, dataloader_workers=0)
    with _quiet(), _told():
        held = evaluator.predict_files(SpikeloopDecoder(config, decoders, batch_size), files)
        r2 = _r2_of_sessions(*held[:3])
    values = list(r2.values())
    spread = {"R2 Mean": float(np.mean(values)), "R2 Std.": float(np.std(values))}
    return spread | {f"{session} R2": value for session, value in r2.items()}


def _r2_of_sessions(
    preds: Mapping[str, np.ndarray],
    targets: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
) -> dict[str, float]:
    """Each session's files together, in the evaluator's own measure."""
    sessions: dict[str, list[str]] = {}
    for tag in preds:
        sessions.setdefault(reduce_key(tag), []).append(tag)
    scores = {}
    for session, tags in sorted(sessions.items()):
        pred, target, mask = (np.concatenate([d[t] for t in tags]) for d in (preds, targets, masks))
        lengths = {session: [len(mask)]}
        told = FalconEvaluator.compute_metrics_regression(pred, target[mask], mask, lengths)
        scores[session] = float(told["R2 Mean"])
    return scores


def run_challenge(
    decoders: Decoders,
    *,
    phase: str = "minival",
    remote: bool = False,
    batch_size: int = 1,
    data: Path | None = None,
) -> dict[str, Any] | None:
    """Run the benchmark's evaluator.

    Args:
        decoders: what decodes.
        phase: `minival` or `test`.
        remote: write predictions for EvalAI, where the package then waits 5 minutes.
        batch_size: files side by side.
        data: the folder that holds a folder a task; by default the variable `EVAL_DATA_PATH`, then
            `data`.

    Returns:
        The metrics as the package names them; None if remote, where EvalAI computes them.

    Raises:
        FalconError: files are missing or no decoder fits one, before anything is decoded; or the
            evaluator stopped.
    """
    config = FalconConfig(task=Split[decoders.task.name])
    evaluator = FalconEvaluator(eval_remote=remote, split=decoders.task.name, dataloader_workers=0)
    variables = {} if data is None else {"EVAL_DATA_PATH": str(data)}
    with tempfile.TemporaryDirectory() as folder:
        # What nobody asked for goes into files that go with the process.
        unset = {} if remote else {k: v for k, v in LOCAL_FILES.items() if k not in os.environ}
        variables |= {name: str(Path(folder) / file) for name, file in unset.items()}
        with _environment(variables), _quiet():
            tags = [file_tag(config, path) for path in _files(evaluator, decoders.task.name, phase)]
            for tag in tags:
                decoders.of(tag)
            if not remote:
                _require_all(decoders.task.name, tags)
            with _told():
                decoder = SpikeloopDecoder(config, decoders, batch_size)
                told = evaluator.evaluate(decoder, phase=phase)
    if remote:
        return None
    (split,) = told["submission_result"].values()
    return {name: float(value) for name, value in split.items()}


def _files(evaluator: Any, task: str, phase: str) -> list[Path]:
    try:
        files: list[Path] = evaluator.get_eval_files(phase=phase)
    except FileNotFoundError as error:
        raise FalconError(
            f"FALCON's files were not found ({error}): name with --data the folder that holds the "
            f"task's folder, {task} or {DANDI_FOLDER_MAP[task]}, as it was downloaded"
        ) from error
    return files


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Send what the package prints to stderr, so that a command's output is its result."""
    logging.getLogger("falcon_challenge").setLevel(logging.WARNING)
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Make one sentence from what the package raises for files that it cannot use."""
    try:
        yield
    except (AssertionError, KeyError, OSError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise FalconError(f"FALCON's evaluator stopped ({what})") from error


def _require_all(task: str, tags: Sequence[str]) -> None:
    """Refuse incomplete files, which the evaluator would refuse only after decoding them."""
    known: dict[str, list[str]] = DATASET_HELDINOUT_MAP[task]
    strange = [tag for tag in tags if not any(tag in of_side for of_side in known.values())]
    if strange:
        raise FalconError(f"FALCON's task {task} has no session {strange[0]!r}: remove its file")
    for of_side in known.values():
        missing = [tag for tag in of_side if tag not in tags]
        if missing and len(missing) < len(of_side):
            raise FalconError(
                f"FALCON's evaluator wants all of task {task}, the files lack "
                f"{', '.join(missing)}; name the files after BUNDLE to score those alone"
            )


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
