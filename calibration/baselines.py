"""Baselines, fitted and scored like a decoder: Wiener filter, Kalman filter, GRU on bins.

All are causal, learn from the same bins and targets, and are scored by the code that scores a
bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from calibration.errors import CalibrationError
from calibration.ridge import HISTORY_S, wiener_weights, with_history
from calibration.scoring import score_outputs
from decoders.config import Split, TrainConfig, load_config
from decoders.streaming.network import LaneDropout, LaneNetwork
from decoders.streaming.stateful_sampler import Plan, Segment, Window
from decoders.streaming.trainer import Trainer
from decoders.streaming.tuning import counts_matrix
from decoders.training.optimisation import launch
from decoders.training.output_columns import output_columns
from decoders.training.outputs import normalisation
from decoders.training.reading import Say, read_sessions, say_on_stderr
from decoders.training.recordings import Recording, lead_grid_s, record
from streams.clock import MonotonicClock
from streams.sessions.session import Session

LEAST_SPREAD = 0.05
OBSERVATION_FLOOR = 1e-3
N_TIMED = 500

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Fitted:
    """A baseline on its recording.

    Attributes:
        decoded: (n_bins, dims), every bin.
        one_beat: what a live decoder would compute for bin i alone, to be timed.
    """

    decoded: Array
    one_beat: Callable[[int], object]


Fit = Callable[[TrainConfig, Recording], Fitted]
Progress = Callable[[str, str], None]


def evaluate_baselines(
    config_path: Path,
    names: Sequence[str] = ("wiener", "kalman", "gru"),
    *,
    seed: int | None = None,
    run_dir: Path | None = None,
    on_progress: Progress = lambda session, name: None,
    on_note: Say = say_on_stderr,
) -> dict[str, Any]:
    """Fit and score baselines on every session in a training config, each on its own.

    Args:
        config_path: sessions, bins, outputs, split and, for the GRU, the recipe.
        names: which.
        seed: for the GRU; the config's if None.
        run_dir: where training wrote simulated sessions; `runs/<name>` if None.
        on_progress: told session and baseline before each fit.
        on_note: hears about files that are passed over or mended.

    Returns:
        JSON-able: `sessions.ID.NAME.outputs.OUTPUT.r2` ..., as `evaluate` gives, `fit_s` and
        `decode_ms`, of one beat's features to its value.

    Raises:
        CalibrationError: an unknown baseline, a discrete output, or a split by files.
    """
    config = load_config(config_path)
    if seed is not None:
        config = config.model_copy(update={"seed": seed})
    if isinstance(config.split, Split) and config.split.test_files:
        raise CalibrationError(
            "baselines are fitted and scored within each session: split by trials or in time, not "
            "by test_files"
        )
    unknown = [name for name in names if name not in BASELINES]
    if unknown or any(output.classes for output in config.outputs):
        raise CalibrationError(
            f"no baseline {', '.join(unknown) or 'decodes classes'}; there are: "
            f"{', '.join(BASELINES)}, for continuous outputs"
        )
    torch.set_num_threads(config.devices.threads)
    run_dir = run_dir or Path("runs") / config.name
    sessions = list(read_sessions(config, config_path.parent, run_dir, on_note))
    return {"sessions": {s.id: _evaluate_session(config, s, names, on_progress) for s in sessions}}


def _evaluate_session(
    config: TrainConfig, session: Session, names: Sequence[str], on_progress: Progress
) -> dict[str, Any]:
    recording, clock, results = record(session, config), MonotonicClock(), {}
    for name in names:
        on_progress(session.id, name)
        t_start = clock.now()
        fitted = BASELINES[name](config, recording)
        fit_s = clock.now() - t_start
        results[name] = {
            "outputs": _scores(config, session, recording, fitted.decoded),
            "fit_s": round(fit_s, 2),
            "decode_ms": _decode_ms(recording, fitted),
        }
    return results


def _decode_ms(recording: Recording, fitted: Fitted) -> dict[str, float]:
    """Time the test part's first beats, one by one."""
    clock, taken_ms = MonotonicClock(), []
    for i in range(recording.test.first, min(recording.test.first + N_TIMED, recording.test.last)):
        t_start = clock.now()
        fitted.one_beat(i)
        taken_ms.append(1e3 * (clock.now() - t_start))
    p50, p99 = np.percentile(taken_ms, (50, 99)).tolist()
    return {"p50": p50, "p99": p99}


def _scores(
    config: TrainConfig, session: Session, recording: Recording, decoded: Array
) -> dict[str, Any]:
    tested = np.flatnonzero(recording.tested)
    columns = {out.name: out.answer for out in output_columns(config, recording)}
    values = {name: decoded[tested, answer] for name, answer in columns.items()}
    t_s = (tested + 1.0) * config.beat.hop_ms / 1000
    scores = score_outputs(config.outputs, values, t_s, session, config.sessions.max_gap_s)
    return {name: asdict(score) for name, score in scores.items()}


def wiener(config: TrainConfig, recording: Recording) -> Fitted:
    """Ridge regression on 1 s of counts; its ridge chosen on the last fifth of the train part."""
    history = with_history(_counts(recording), round(HISTORY_S * 1000 / config.beat.hop_ms))
    target = _present(config, recording)
    known = np.flatnonzero(np.isfinite(target).all(axis=1))
    train = known[known < recording.train.last]
    weights = wiener_weights(history[train], target[train])
    return Fitted(_apply(weights, history), lambda i: _apply(weights, history[i]))


def _counts(recording: Recording) -> Array:
    return counts_matrix(recording.tokens, len(recording.unit_keys))


def _apply(weights: Array, features: Array) -> Array:
    decoded: Array = (features @ weights.astype(np.float32)).astype(np.float64)
    return decoded


def kalman(config: TrainConfig, recording: Recording) -> Fitted:
    """Kalman filter (Wu et al. 2006) for the targets and their change, observed in the counts."""
    target = _present(config, recording)
    hidden = np.concatenate([target, np.gradient(target, axis=0)], axis=1)
    offset, scale = np.nanmean(hidden, axis=0), np.nanstd(hidden, axis=0) + 1e-12
    hidden = (hidden - offset) / scale
    counts = _counts(recording)
    part = slice(recording.train.first, recording.train.last)
    seen = (counts - counts[part].mean(axis=0)) / (counts[part].std(axis=0) + 0.05)
    kalman_filter = _Filter(*_kalman_parameters(hidden[part], seen[part]))
    filtered = kalman_filter.run(seen)
    n_dims = target.shape[1]
    decoded: Array = filtered[:, :n_dims] * scale[:n_dims] + offset[:n_dims]
    return Fitted(decoded, lambda i: kalman_filter.beat(*kalman_filter.start, seen[i]))


def _kalman_parameters(hidden: Array, seen: Array) -> tuple[Array, Array, Array, Array]:
    """Transition, its noise, observation, its noise: least squares where the behaviour is known."""
    known = np.asarray(np.isfinite(hidden).all(axis=1))
    pairs = np.flatnonzero(known[:-1] & known[1:])
    before, after = hidden[pairs], hidden[pairs + 1]
    transition = np.linalg.lstsq(before, after, rcond=None)[0].T
    observation = np.linalg.lstsq(hidden[known], seen[known], rcond=None)[0].T
    moved = np.cov((after - before @ transition.T).T)
    left = np.cov((seen[known] - hidden[known] @ observation.T).T)
    left = left + OBSERVATION_FLOOR * np.eye(len(left))
    return transition, np.atleast_2d(moved), observation, left


class _Filter:
    """Information form, as the observations are many."""

    def __init__(self, transition: Array, moved: Array, observation: Array, left: Array) -> None:
        self._transition, self._moved = transition, moved
        self._weighed = observation.T @ np.linalg.inv(left)
        self._information = self._weighed @ observation
        n = len(transition)
        self.start: tuple[Array, Array] = (np.zeros(n), np.eye(n))

    def beat(self, mean: Array, spread: Array, seen: Array) -> tuple[Array, Array]:
        """Mean and spread after one bin more."""
        transition, evidence = self._transition, self._weighed @ seen
        mean, spread = transition @ mean, transition @ spread @ transition.T + self._moved
        # Units are many and dimensions few: inverting the small matrix is cheap.
        spread = np.linalg.inv(np.linalg.inv(spread) + self._information)
        return mean + spread @ (evidence - self._information @ mean), spread

    def run(self, seen: Array) -> Array:
        """Filtered estimate for every bin."""
        mean, spread = self.start
        path = np.zeros((len(seen), len(mean)))
        for i, counts in enumerate(seen):
            mean, spread = self.beat(mean, spread, counts)
            path[i] = mean
        return path


class GruOnBins(LaneNetwork):
    """Standardised counts -> linear -> GRU -> linear; takes and gives the same as `SessionNetwork`.

    Args:
        counts: (n_bins, n_units) in the train part, for each unit's mean and gain.
        offset: (n_dims,), the outputs'.
        scale: (n_dims,), the outputs'.
        d_model: width before the GRU.
        d_memory: GRU width.
    """

    offset: Tensor
    scale: Tensor
    count_mean: Tensor
    count_gain: Tensor

    def __init__(
        self,
        counts: Tensor,
        offset: Tensor,
        scale: Tensor,
        d_model: int,
        d_memory: int,
    ) -> None:
        super().__init__()
        self.d_memory = d_memory
        self.widen = nn.Linear(counts.shape[1], d_model)
        self.gru = nn.GRU(d_model, d_memory, batch_first=True)
        self.readout = nn.Linear(d_memory, len(offset))
        self.register_buffer("offset", offset)
        self.register_buffer("scale", scale)
        self.register_buffer("count_mean", counts.mean(dim=0))
        self.register_buffer("count_gain", 1.0 / counts.std(dim=0).clamp(min=LEAST_SPREAD))

    @property
    def normalisation(self) -> tuple[Tensor, Tensor]:
        """(n_dims,) offset and scale of the outputs."""
        return self.offset, self.scale

    @property
    def shape(self) -> dict[str, Any]:
        """Sizes, as plain JSON types."""
        return {"n_units": self.widen.in_features, "n_dims": self.readout.out_features}

    def forward(
        self, window: Window, memory: Tensor, dropout: LaneDropout | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run a window; see `SessionNetwork.forward` for arguments and result."""
        memory = memory * (~window.fresh).unsqueeze(-1)
        counts = (self._counts(window) - self.count_mean) * self.count_gain
        if dropout is not None:
            counts = counts * dropout.kept_units(counts.shape[-1]).to(counts.device).unsqueeze(1)
        x = torch.relu(self.widen(counts))
        x = x if dropout is None else dropout.drop(x)
        path, last = self.gru(x, memory.unsqueeze(0))
        path = path if dropout is None else dropout.drop(path)
        return self.readout(path), last.squeeze(0)

    def _counts(self, window: Window) -> Tensor:
        """(B, T, n_units) spikes."""
        n_lanes, n_units = len(window.session), self.widen.in_features
        cell = (window.lane * window.n_bins + window.bin) * n_units + window.unit
        dense = torch.zeros(n_lanes * window.n_bins * n_units, device=window.count.device)
        return dense.index_add(0, cell, window.count).view(n_lanes, window.n_bins, n_units)


def gru(config: TrainConfig, recording: Recording) -> Fitted:
    """A GRU on binned counts, trained by the config's recipe."""
    offset, scale = normalisation([recording], output_columns(config, recording))
    counts = _counts(recording)[recording.train.first : recording.train.last]
    fabric = launch(config)
    torch.manual_seed(config.seed)
    network = GruOnBins(
        torch.from_numpy(counts).float(),
        offset,
        scale,
        d_model=config.network.d_model,
        d_memory=config.network.d_memory,
    )
    trainer = Trainer(config, [recording], fabric, network)
    while trainer.learner.i_step < config.training.steps:
        trainer.step()
    decoded = trainer.decode(0, 0, recording.n_bins).astype(np.float64)
    return Fitted(decoded, lambda i: _one_gru_beat(trainer, i))


@torch.no_grad()
def _one_gru_beat(trainer: Trainer, i_bin: int) -> object:
    plan = Plan(0, 0, trainer.corpus.i_present, i_bin + 1, (Segment(0, i_bin, 1),))
    return trainer.learner.average(trainer.corpus.window([plan], 1), trainer.memory[:1])


def _present(config: TrainConfig, recording: Recording) -> Array:
    """(n_bins, n_columns) targets at lead 0."""
    i_present = lead_grid_s(config.lead).index(0.0)
    target: Array = recording.targets[i_present].astype(np.float64)
    return target


BASELINES: Mapping[str, Fit] = {"wiener": wiener, "kalman": kalman, "gru": gru}
