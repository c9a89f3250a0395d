"""Choose the start and how many steps, by trials held out from the labelled seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from calibration.adaptation.calibration_data import CalibrationData
from calibration.adaptation.gradient.batched_fits import BatchedFits, Recipe, Start
from calibration.adaptation.gradient.starts import Base, Starts
from calibration.adaptation.held_out import held_out_bins, likelihood_weights
from streams.messages import Float64s

N_TRIAL_STEPS = 10
KNOWN_ARE_TRUSTED = 0.85
STEPS_UNTESTED = 30
USUAL_S = 60.0
MOST_MINUTES = 4.0

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Found:
    """Search result.

    Attributes:
        end: embeddings and session vector.
        n_steps: gradient steps at the best held-out loss.
        without: each fold's `end`, learnt without its held-out trials; none where these are too
            few.
    """

    end: Start
    n_steps: int
    without: tuple[Start, ...] = ()


def search(
    base: Base,
    data: CalibrationData,
    *,
    same_array: bool,
    seed: int,
    on_progress: Progress | None = None,
) -> Found:
    """Learn embeddings and session vector for a session.

    Args:
        base: the decoder.
        data: the session.
        same_array: whether the last day's rows are a start to consider.
        seed: for all draws.
        on_progress: told steps done, and steps at most.
    """
    recipe = recipe_for(data)
    starts = Starts(base, data, same_array)
    labelled = data.labelled
    held_out = held_out_bins(data)
    if not len(held_out):
        # A fixed number of steps from the most specific start.
        begin = starts.from_bins(labelled)[-1:]
        fits = BatchedFits(base.decoder, data, begin, labelled[None], recipe, seed)
        for _ in range(STEPS_UNTESTED):
            fits.step()
        return Found(fits.ends()[0], STEPS_UNTESTED)
    candidates = [starts.from_bins(labelled & ~left) for left in held_out]
    chosen = _best_start(base, data, candidates, held_out, recipe, seed)
    begin = [*(fold[chosen] for fold in candidates), starts.from_bins(labelled)[chosen]]
    fitted = np.stack([*(labelled & ~left for left in held_out), labelled])
    fits = BatchedFits(base.decoder, data, begin, fitted, recipe, seed)
    return _run(fits, recipe, on_progress)


def recipe_for(data: CalibrationData) -> Recipe:
    """Take more steps where there is more to learn from; a minute and less take the fewest."""
    part, usual = data.recording.train, Recipe()
    share = (part.last - part.first) * data.hop_s / USUAL_S
    n_steps = round(usual.n_steps * min(max(share, 1.0), MOST_MINUTES))
    return replace(usual, n_steps=n_steps - n_steps % usual.look_every)


def _run(fits: BatchedFits, recipe: Recipe, on_progress: Progress | None) -> Found:
    """Step until held-out trials stop gaining; average the checkpoints.

    Held-out trials are few and seldom tell checkpoints apart. So each counts by how likely it makes
    those trials.
    """
    checkpoints = []

    def loss() -> float:
        checkpoints.append(fits.ends())
        return float(np.nanmean(fits.held_out_losses()))

    losses = step_until_no_gain(fits.step, loss, recipe, on_progress)
    weights = likelihood_weights(losses, fits.held_out_s)
    *without, end = (_mean(ends, weights) for ends in zip(*checkpoints, strict=True))
    n_steps = int(np.argmin(losses)) * recipe.look_every
    return Found(end, n_steps, tuple(without))


def step_until_no_gain(
    step: Callable[[], None],
    loss: Callable[[], float],
    recipe: Recipe,
    on_progress: Progress | None,
) -> list[float]:
    """Step until the held-out loss stops falling; give it before and at every look."""
    losses = [loss()]
    for i_step in range(1, recipe.n_steps + 1):
        step()
        if i_step % recipe.look_every == 0:
            losses.append(loss())
            if on_progress is not None:
                on_progress(i_step, recipe.n_steps)
            if len(losses) - 1 - int(np.argmin(losses)) >= recipe.patience:
                break
    return losses


def _mean(ends: Sequence[Start], share: Float64s) -> Start:
    weight = torch.from_numpy(share).float()
    embedding = torch.einsum("l,lud->ud", weight, torch.stack([end.embedding for end in ends]))
    session = weight @ torch.stack([end.session for end in ends])
    return Start(ends[0].name, embedding, session)


def _best_start(
    base: Base,
    data: CalibrationData,
    candidates: list[list[Start]],
    held_out: np.ndarray,
    recipe: Recipe,
    seed: int,
) -> int:
    """Take a few steps from every start in every fold, and choose the best.

    Few held-out trials tell little. So on the same array, units are taken for new ones only if that
    is clearly better.
    """
    n_starts = len(candidates[0])
    if n_starts == 1:
        return 0
    begin = [start for fold in candidates for start in fold]
    fitted = np.repeat(data.labelled & ~held_out, n_starts, axis=0)
    fits = BatchedFits(base.decoder, data, begin, fitted, recipe, seed)
    for _ in range(N_TRIAL_STEPS):
        fits.step()
    losses = fits.held_out_losses().reshape(len(candidates), n_starts).mean(axis=0)
    # All starts but the first take keys for known channels.
    losses[1:] *= KNOWN_ARE_TRUSTED
    return int(np.argmin(losses))
