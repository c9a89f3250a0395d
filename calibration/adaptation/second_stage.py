"""An explicit second stage: the whole network learns too, where held-out trials gain by it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np

from calibration.adaptation.learning import Attempts, Recipe, Start
from calibration.adaptation.material import Material
from calibration.adaptation.search import Found, Progress, held_out_bins, recipe_for
from calibration.adaptation.starts import Base
from decoders.streaming.decoder import StreamingDecoder

LANES = 8


@dataclass(frozen=True, slots=True)
class Unfrozen:
    """What the second stage came to.

    Attributes:
        decoder: with its own weights, or the base's where `n_steps` is 0.
        end: embeddings and session vector.
        n_steps: gradient steps; 0 where held-out trials gained nothing.
    """

    decoder: StreamingDecoder
    end: Start
    n_steps: int


def second_stage(
    base: Base,
    material: Material,
    found: Found,
    *,
    seed: int,
    on_progress: Progress | None = None,
) -> Unfrozen:
    """Learn the network's weights beside the embeddings, beginning where the first stage ended.

    Held-out trials tell for how many steps; then everything labelled is learnt from for as many.

    Args:
        base: the decoder; it is not changed.
        material: the session.
        found: by the first stage.
        seed: of everything that is drawn.
        on_progress: told steps done, and steps at most.
    """
    recipe = replace(recipe_for(material), lanes=LANES)
    if not found.without:
        return Unfrozen(base.decoder, found.end, 0)
    fitted = material.labelled & ~held_out_bins(material, material.labelled)[0]
    fold = _attempt(base, material, found.without[0], fitted, recipe, seed)
    n_steps = _best_length(fold, recipe, on_progress)
    if n_steps == 0:
        return Unfrozen(base.decoder, found.end, 0)
    whole = _attempt(base, material, found.end, material.labelled, recipe, seed)
    for _ in range(n_steps):
        whole.step()
    return Unfrozen(whole.slow.decoder, whole.ends()[0], n_steps)


def _attempt(
    base: Base, material: Material, start: Start, fitted: np.ndarray, recipe: Recipe, seed: int
) -> Attempts:
    decoder = copy.deepcopy(base.decoder).requires_grad_(True)
    return Attempts(decoder, material, [start], fitted[None], recipe, seed)


def _best_length(fold: Attempts, recipe: Recipe, on_progress: Progress | None) -> int:
    losses = [float(fold.held_out_losses()[0])]
    for i_step in range(1, recipe.n_steps + 1):
        fold.step()
        if i_step % recipe.look_every == 0:
            losses.append(float(fold.held_out_losses()[0]))
            if on_progress is not None:
                on_progress(i_step, recipe.n_steps)
            if len(losses) - 1 - int(np.argmin(losses)) >= recipe.patience:
                break
    return int(np.argmin(losses)) * recipe.look_every
