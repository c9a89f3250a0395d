"""What a decoder must beat, fitted and scored like it: Wiener filter, Kalman filter, GRU on bins.

All are causal, learn from the same train part of the same bins and targets, and are scored by the
code that scores a bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calibration.errors import CalibrationError
from calibration.scoring import r2_score, score_output
from decoders.config import TrainConfig, load_config
from decoders.learning.gru_on_bins import GruOnBins
from decoders.learning.recordings import Recording, lead_grid_s, record
from decoders.learning.trainer import Trainer, normalisation, scored_outputs
from decoders.learning.training import launch, session_paths
from streams.clock import MonotonicClock
from streams.nwb import read_session
from streams.session import Session

HISTORY_S = 1.0
RIDGES = (1e0, 1e1, 1e2, 1e3, 1e4, 1e5)
HELD_OUT_OF_TRAIN = 0.2
OBSERVATION_FLOOR = 1e-3

Array = np.ndarray
Fit = Callable[[TrainConfig, Recording], Array]


def evaluate_baselines(
    config_path: Path, names: Sequence[str] = ("wiener", "kalman", "gru")
) -> dict[str, Any]:
    """Fit and score baselines on every session of a training config, each on its own.

    Args:
        config_path: sessions, bins, outputs, split and, for the GRU, the recipe.
        names: which.

    Returns:
        JSON-able: `sessions.ID.NAME.outputs.OUTPUT.r2` ..., as `evaluate` gives, and `fit_s`.

    Raises:
        CalibrationError: an unknown baseline, or an output of classes.
    """
    config = load_config(config_path)
    unknown = [name for name in names if name not in BASELINES]
    if unknown or any(output.classes for output in config.outputs):
        raise CalibrationError(
            f"no baseline {', '.join(unknown) or 'decodes classes'}; there are: "
            f"{', '.join(BASELINES)}, for continuous outputs"
        )
    run_dir = Path("runs") / config.name
    sessions = [read_session(p) for p in session_paths(config, config_path.parent, run_dir)]
    return {"sessions": {s.id: _evaluate_session(config, s, names) for s in sessions}}


def _evaluate_session(
    config: TrainConfig, session: Session, names: Sequence[str]
) -> dict[str, Any]:
    recording, clock, results = record(session, config), MonotonicClock(), {}
    for name in names:
        t_start = clock.now()
        decoded = BASELINES[name](config, recording)
        results[name] = {
            "outputs": _scores(config, session, recording, decoded),
            "fit_s": round(clock.now() - t_start, 2),
        }
    return results


def _scores(
    config: TrainConfig, session: Session, recording: Recording, decoded: Array
) -> dict[str, Any]:
    hop_s = config.beat.hop_ms / 1000
    tested = np.arange(recording.test.first, recording.test.last)
    t_s = (tested + 1) * hop_s
    gap_s = config.sessions.max_gap_s
    return {
        choice.name: asdict(
            score_output(
                decoded[tested, scored.answer],
                np.asarray(t_s + choice.lag_s, np.float64),
                session.signal(choice.behavior),
                session,
                gap_s,
            )
        )
        for choice, scored in zip(config.outputs, scored_outputs(config, recording), strict=True)
    }


def counts_of(recording: Recording) -> Array:
    """(n_bins, n_units) spikes."""
    tokens, n_units = recording.tokens, len(recording.unit_keys)
    i_bin = np.repeat(np.arange(len(tokens)), np.diff(tokens.offsets))
    cell = i_bin * n_units + tokens.unit
    counts = np.bincount(cell, weights=tokens.count, minlength=len(tokens) * n_units)
    return counts.reshape(len(tokens), n_units)


def wiener(config: TrainConfig, recording: Recording) -> Array:
    """Ridge regression on 1 s of counts; the ridge is chosen on the last fifth of the train part.

    Returns:
        (n_bins, dims) for every bin of the recording.
    """
    history = with_history(counts_of(recording), round(HISTORY_S * 1000 / config.beat.hop_ms))
    target = _present(config, recording)
    known = np.flatnonzero(np.isfinite(target).all(axis=1))
    train = known[known < recording.train.last]
    fitted, held_out = np.split(train, [round(len(train) * (1 - HELD_OUT_OF_TRAIN))])
    candidates = ridge_weights(history[fitted], target[fitted], RIDGES)
    scores = [np.mean(r2_score(_apply(w, history[held_out]), target[held_out])) for w in candidates]
    chosen = RIDGES[int(np.argmax(scores))]
    return _apply(ridge_weights(history[train], target[train], (chosen,))[0], history)


def with_history(counts: Array, n_lags: int) -> Array:
    """(n_bins, n_lags * n_units + 1) float32: each bin with those before it, and a one."""
    n_bins, n_units = counts.shape
    padded = np.concatenate([np.zeros((n_lags - 1, n_units)), counts]).astype(np.float32)
    views = np.lib.stride_tricks.sliding_window_view(padded, n_lags, axis=0)
    flat = views.reshape(n_bins, n_lags * n_units)
    return np.concatenate([flat, np.ones((n_bins, 1), np.float32)], axis=1)


def ridge_weights(features: Array, target: Array, ridges: Sequence[float]) -> list[Array]:
    """Ridge regression for several ridges; the last feature, a one, is not penalised."""
    gram = (features.T @ features).astype(np.float64)
    moment = features.T.astype(np.float64) @ target
    penalty = np.ones(len(gram))
    penalty[-1] = 0.0
    return [np.linalg.solve(gram + np.diag(ridge * penalty), moment) for ridge in ridges]


def _apply(weights: Array, features: Array) -> Array:
    decoded: Array = (features @ weights.astype(np.float32)).astype(np.float64)
    return decoded


def kalman(config: TrainConfig, recording: Recording) -> Array:
    """Kalman filter (Wu et al. 2006) of the targets and their change, observed through the counts.

    Returns:
        (n_bins, dims) for every bin of the recording.
    """
    target = _present(config, recording)
    hidden = np.concatenate([target, np.gradient(target, axis=0)], axis=1)
    offset, scale = np.nanmean(hidden, axis=0), np.nanstd(hidden, axis=0) + 1e-12
    hidden = (hidden - offset) / scale
    counts = counts_of(recording)
    part = slice(recording.train.first, recording.train.last)
    seen = (counts - counts[part].mean(axis=0)) / (counts[part].std(axis=0) + 0.05)
    transition, moved, observation, left = _kalman_parameters(hidden[part], seen[part])
    filtered = _filter(transition, moved, observation, left, seen)
    n_dims = target.shape[1]
    decoded: Array = filtered[:, :n_dims] * scale[:n_dims] + offset[:n_dims]
    return decoded


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


def _filter(
    transition: Array,
    moved: Array,
    observation: Array,
    left: Array,
    seen: Array,
) -> Array:
    """The filtered estimate of every bin; information form, as the observations are many."""
    weighed = observation.T @ np.linalg.inv(left)
    information = weighed @ observation
    n = len(transition)
    path = np.zeros((len(seen), n))
    mean: Array = np.zeros(n)
    spread: Array = np.eye(n)
    for i, evidence in enumerate(seen @ weighed.T):
        mean, spread = transition @ mean, transition @ spread @ transition.T + moved
        spread = np.linalg.inv(np.linalg.inv(spread) + information)
        mean = mean + spread @ (evidence - information @ mean)
        path[i] = mean
    return path


def gru(config: TrainConfig, recording: Recording) -> Array:
    """A GRU on binned counts, trained by the config's recipe.

    Returns:
        (n_bins, dims) for every bin of the recording.
    """
    offset, scale = normalisation([recording], scored_outputs(config, recording))
    counts = counts_of(recording)[recording.train.first : recording.train.last]
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
    while trainer.i_step < config.training.steps:
        trainer.step()
    return trainer.decode(0, 0, recording.n_bins).astype(np.float64)


def _present(config: TrainConfig, recording: Recording) -> Array:
    """(n_bins, n_columns) targets at lead 0."""
    i_present = lead_grid_s(config.lead).index(0.0)
    target: Array = recording.targets[i_present].astype(np.float64)
    return target


BASELINES: Mapping[str, Fit] = {"wiener": wiener, "kalman": kalman, "gru": gru}
