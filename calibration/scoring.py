"""Scores: R2 with its interval, the best lag, accuracy for classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from calibration.errors import CalibrationError
from decoders.config import OutputChoice, Split, written_out
from streams.messages import Float64s, Int64s
from streams.r2 import r2_columns, r2_of_sums, r2_score
from streams.sessions.conditions import trials_where
from streams.sessions.session import Behavior, Interval, Session

BLOCK_S = 10.0
N_RESAMPLES = 1000
FEWEST_TRIALS = 5
LARGEST_LAG_S = 0.5


@dataclass(frozen=True, slots=True)
class Score:
    """One output on one session.

    Attributes:
        r2: per dimension, 1 - SSE/SST, SST about the mean over the scored part.
        ci: per dimension, 95 % bootstrap interval over blocks.
        best_lag_s: the shift of behaviour that fits the decodes best; > 0 is the future.
        r2_at_best_lag: per dimension.
        n: decodes scored.
        blocks: "trials", or "10 s blocks" where there are too few trials.
        n_blocks: how many.
    """

    r2: list[float]
    ci: list[list[float]]
    best_lag_s: float
    r2_at_best_lag: list[float]
    n: int
    blocks: str
    n_blocks: int


def scored_intervals(split: str, session: Session) -> list[Interval]:
    """Find the scored part.

    Args:
        split: as of `parse_split`; or `trials:COLUMN`, the trials with "val" or "test" there; or
            `trials:CONDITION` on the trial table's columns.
        session: has the trials.

    Raises:
        CalibrationError: it is none of these, or no trial meets the condition.
        streams.session.SessionError: the session has no such trials.
    """
    if not split.startswith("trials:"):
        return parse_split(split, session.duration_s)
    condition = split.removeprefix("trials:").strip()
    if condition.isidentifier():
        named = written_out(f"trials:{condition}")
        condition = named.test if isinstance(named, Split) else condition
    intervals = trials_where(session, condition)
    if not intervals:
        raise CalibrationError(
            f"session {session.id}: none of its trials meets {condition!r}: nothing to score"
        )
    return intervals


def class_accuracy(logits: np.ndarray, t_s: Float64s, signal: Behavior) -> tuple[float, int]:
    """Share of decodes whose class is the newest that behaviour shows, and how many they are."""
    newest = np.maximum(np.searchsorted(signal.t_s, t_s, side="right") - 1, 0)
    kept = np.ones(len(t_s), np.bool_)
    if signal.masked_in is not None:
        kept = signal.masked_in[newest]
    right = logits[kept].argmax(axis=1) == signal.values[newest[kept], 0]
    return float(right.mean()) if len(right) else float("nan"), len(right)


def parse_split(split: str, duration_s: float) -> list[tuple[float, float]]:
    """The scored intervals: `last:0.2`, `all`, or `10-20,35-60` in seconds.

    Raises:
        CalibrationError: none of these.
    """
    if split == "all":
        return [(0.0, duration_s)]
    try:
        if split.startswith("last:"):
            share = float(split.removeprefix("last:"))
            if 0.0 < share <= 1.0:
                return [(duration_s * (1.0 - share), duration_s)]
        else:
            pairs = [tuple(float(t) for t in part.split("-")) for part in split.split(",")]
            if all(len(pair) == 2 and pair[0] < pair[1] for pair in pairs):
                return [(pair[0], pair[1]) for pair in pairs]
    except ValueError:
        pass
    raise CalibrationError(
        f"cannot score split {split!r}: give last:SHARE, all, START-STOP[,START-STOP...] seconds, "
        "or trials:CONDITION"
    )


def blocks_of(session: Session, t_s: Float64s) -> tuple[Int64s, str]:
    """Number the block of each time: its trial (up to the next one's start), or its 10 s.

    Fewer than five trials count only where there are still fewer stretches of 10 s.
    """
    stretch = (t_s // BLOCK_S).astype(np.int64)
    if session.trials is not None:
        starts = np.sort(session.trials.start_s)
        block = np.searchsorted(starts, t_s, side="right").astype(np.int64)
        n_trials = len(np.unique(block))
        if n_trials >= FEWEST_TRIALS or n_trials > len(np.unique(stretch)):
            return block, "trials"
    return stretch, f"{BLOCK_S:.0f} s blocks"


def score_output(
    decoded: np.ndarray, t_s: Float64s, signal: Behavior, session: Session, max_gap_s: float = 0.1
) -> Score:
    """Score one output.

    Args:
        decoded: (n, dims).
        t_s: (n,) the time that each decode estimates, seconds from the session's start.
        signal: the behaviour.
        session: gives the trials.
        max_gap_s: behaviour is not bridged across longer gaps.

    Raises:
        CalibrationError: no behaviour there, one that does not vary, or a single trial.
    """
    actual = signal.at(t_s, max_gap_s)
    if actual.shape != decoded.shape:
        raise CalibrationError(
            f"the decoder gives {decoded.shape[1]} dimensions, the behaviour of session "
            f"{session.id} has {actual.shape[1]}: name the behaviour that it was trained on"
        )
    known = np.isfinite(actual).all(axis=1)
    if np.count_nonzero(known) < 2 or not (np.ptp(actual[known], axis=0) > 0).all():
        raise CalibrationError(
            f"session {session.id}: the behaviour has {np.count_nonzero(known)} usable samples in "
            "the scored part, or does not vary there; choose another --split"
        )
    block, kind = blocks_of(session, t_s[known])
    n_blocks = len(np.unique(block))
    if n_blocks < 2:
        raise CalibrationError(
            f"session {session.id}: the scored part holds one trial only (or one stretch of "
            f"{BLOCK_S:.0f} s), which tells nothing of how sure R2 is: score a longer part"
        )
    r2 = resampled_r2(decoded[known], actual[known], block)
    lag_s, at_lag = best_lag(decoded, t_s, signal, max_gap_s)
    return Score(
        r2=r2[0].tolist(),
        ci=interval_95(r2[1:]).T.tolist(),
        best_lag_s=lag_s,
        r2_at_best_lag=at_lag,
        n=int(np.count_nonzero(known)),
        blocks=kind,
        n_blocks=n_blocks,
    )


def score_outputs(
    choices: Iterable[OutputChoice],
    decoded: Mapping[str, np.ndarray],
    t_s: Float64s,
    session: Session,
    max_gap_s: float,
) -> dict[str, Score]:
    """Score every continuous output by the behaviour that it was trained on; see `score_output`."""
    return {
        choice.name: score_output(
            decoded[choice.name],
            np.asarray(t_s + choice.lag_s, np.float64),
            session.signal(choice.behavior),
            session,
            max_gap_s,
        )
        for choice in choices
        if not choice.classes
    }


def best_lag(
    decoded: np.ndarray, t_s: Float64s, signal: Behavior, max_gap_s: float
) -> tuple[float, list[float]]:
    """The shift of behaviour at which the mean R2 is highest, and R2 there."""
    step_s = max(float(np.median(np.diff(t_s))) if len(t_s) > 1 else 0.01, 0.005)
    n_steps = round(LARGEST_LAG_S / step_s)
    lags_s = [i * step_s for i in range(-n_steps, n_steps + 1)]
    scores = [r2_score(decoded, signal.at(t_s + lag_s, max_gap_s)) for lag_s in lags_s]
    best = int(np.argmax([np.nan_to_num(np.mean(score), nan=-np.inf) for score in scores]))
    return round(lags_s[best], 6), scores[best]


def resampled_r2(
    decoded: np.ndarray,
    actual: np.ndarray,
    block: Int64s,
    *,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Float64s:
    """R2 over everything, then over blocks drawn with replacement (block bootstrap).

    Args:
        decoded: (n, dims).
        actual: (n, dims), all known.
        block: (n,) which block each row belongs to.
        seed: decoders scored with the same seed are compared on the same draws.
        n_resamples: draws.

    Returns:
        (1 + n_resamples, dims), NaN where what was drawn does not vary.
    """
    sums = sums_of_blocks(r2_columns(decoded, actual), block)
    times = drawn_blocks(len(sums), seed, n_resamples)
    return r2_of_sums(np.tensordot(times, sums, axes=1))


def interval_95(drawn: Float64s) -> Float64s:
    """(2, ...) low and high end along the first axis."""
    interval: Float64s = np.nanquantile(drawn, (0.025, 0.975), axis=0)
    return interval


def drawn_blocks(n_blocks: int, seed: int, n_resamples: int = N_RESAMPLES) -> Float64s:
    """(1 + n_resamples, n_blocks) how often each block counts; first each once."""
    rng = np.random.default_rng(seed)
    times = rng.multinomial(n_blocks, np.full(n_blocks, 1.0 / n_blocks), n_resamples)
    return np.concatenate([np.ones((1, n_blocks)), times])


def sums_of_blocks(columns: Float64s, block: Int64s) -> Float64s:
    """(n, ...) summed over each block: (n_blocks, ...)."""
    _, i_block = np.unique(block, return_inverse=True)
    sums = np.zeros((int(i_block.max()) + 1, *columns.shape[1:]))
    np.add.at(sums, i_block, columns)
    return sums
