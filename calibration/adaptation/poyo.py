"""Adaptation of POYO: unit embeddings and session vector by gradient, the network frozen.

Held-out trials tell how many steps are good; then everything is learnt from for so many.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from calibration.adaptation.adapted import Adapted, Options
from calibration.adaptation.material import Material
from calibration.adaptation.search import held_out_bins
from calibration.errors import CalibrationError
from decoders.learning.loss import loss_sums, n_scored
from decoders.poyo.step import PoyoStep, step_config
from decoders.poyo.tokens import PoyoBatch, PoyoWindow, batch_of, exact_s
from export.bundle import DecoderBundle
from export.torch_backend import load_module
from streams.messages import Int32s, SpikeBatch, TokenWindow
from streams.sessions.session import Session
from streams.spikes.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the steps are taken; the rate is a share of the embeddings' own size."""

    n_steps: int = 240
    look_every: int = 20
    patience: int = 3
    relative_rate: float = 0.03
    batch: int = 8
    unit_dropout: float = 0.3
    clip: float = 1.0
    untested_steps: int = 100
    n_looked_at: int = 48


@dataclass(frozen=True, slots=True)
class Learnt:
    """What adaptation of a POYO came to.

    Attributes:
        start: what the embeddings began with.
        embedding: (U, dim).
        session: (dim,).
        n_steps: gradient steps behind them.
    """

    start: str
    embedding: Tensor
    session: Tensor
    n_steps: int


class Windows:
    """Whole windows of a session, cut by the live tokenizer.

    Args:
        session: the recording.
        window_s: length of a window.
    """

    def __init__(self, session: Session, window_s: float) -> None:
        self.spikes, self.window_us = session.spikes, round(window_s * 1e6)
        self.n_units = len(session.unit_keys)

    def cut(self, end_us: int, row_of: Int32s) -> TokenWindow:
        """The tokens of the window that ends there; units of row -1 are left out."""
        t_us = self.spikes.t_us
        first, last = np.searchsorted(t_us, (end_us - self.window_us, end_us), side="right")
        held = slice(int(first), int(last))
        batch = SpikeBatch(t_us[held], self.spikes.unit[held], self.spikes.count[held])
        return Tokenizer(self.window_us, row_of).cut(batch, end_us, end_us * 1e-6)[0]

    def for_network(self, end_us: int, kept: np.ndarray) -> PoyoWindow:
        """The same for torch, of some units (U,) bool; unit i has row 1 + i of the vocabulary."""
        row_of = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
        window = self.cut(end_us, row_of)
        return PoyoWindow(
            units=1 + np.flatnonzero(kept),
            unit=window.unit.astype(np.int64),
            t_s=exact_s(window.t_rel),
            count=window.count.astype(np.float64),
            session=1,
        )


class Tuner:
    """Gradient steps on one session's embeddings.

    Args:
        step: the frozen network.
        material: the session.
        start: where to begin.
        fitted: (n_bins,) bool, the bins to learn from.
        recipe: how.
        seed: of windows and unit dropout.
    """

    def __init__(
        self,
        step: PoyoStep,
        material: Material,
        start: Learnt,
        fitted: np.ndarray,
        recipe: Recipe,
        seed: int,
    ) -> None:
        self.step, self.material, self.recipe = step, material, recipe
        self.fitted, self.start = fitted, start
        self.windows = Windows(material.session, step.config.sequence_s)
        self.rng = np.random.default_rng(seed)
        self.embedding = start.embedding.clone().requires_grad_()
        self.session = start.session.clone().requires_grad_()
        rates = [
            recipe.relative_rate * float(p.detach().square().mean().sqrt()) + 1e-6
            for p in (self.embedding, self.session)
        ]
        pairs = zip((self.embedding, self.session), rates, strict=True)
        self.optimizer = torch.optim.AdamW(
            [{"params": [p], "lr": rate} for p, rate in pairs], weight_decay=0.0
        )
        self.n_hops = max(1, math.floor(step.config.sequence_s / material.hop_s + 1e-9))
        self.n_steps = 0

    def end(self) -> Learnt:
        """What has been learnt so far."""
        embedding, session = self.embedding.detach().clone(), self.session.detach().clone()
        return Learnt(self.start.start, embedding, session, self.n_steps)

    def learn(self) -> None:
        """One step."""
        bins = self.rng.choice(np.flatnonzero(self.fitted), self.recipe.batch)
        rates = self.rng.uniform(0.0, self.recipe.unit_dropout, len(bins))
        kept = self.rng.random((len(bins), self.windows.n_units)) >= rates[:, None]
        kept[~kept.any(axis=1)] = True
        loss = self._loss(bins, kept, self.fitted)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([self.embedding, self.session], self.recipe.clip)
        self.optimizer.step()
        self.n_steps += 1

    @torch.no_grad()
    def loss_on(self, scored: np.ndarray) -> float:
        """Mean loss at some of the windows that end in `scored` (n_bins,) bins."""
        bins = np.flatnonzero(scored)
        bins = bins[:: max(1, len(bins) // self.recipe.n_looked_at)]
        parts = np.array_split(bins, math.ceil(len(bins) / self.recipe.batch))
        everything = np.ones((len(bins), self.windows.n_units), bool)
        losses = [float(self._loss(p, everything[: len(p)], scored)) * len(p) for p in parts]
        return sum(losses) / len(bins)

    def _loss(self, bins: np.ndarray, kept: np.ndarray, scored: np.ndarray) -> Tensor:
        """Over the labelled bins inside the windows that end at `bins`."""
        offset, scale = self.step.offset, self.step.scale
        inside = bins[:, None] - np.arange(self.n_hops)
        targets = self.material.targets[np.maximum(inside, 0)]
        targets[(inside < 0) | ~scored[np.maximum(inside, 0)]] = np.nan
        wanted = torch.from_numpy(targets.astype(np.float32))
        units = torch.cat([torch.zeros_like(self.embedding[:1]), self.embedding])
        sessions = self.session.expand(2, -1)
        answer = self.step.decoder.answer(self._batch(bins, kept), units, sessions)
        outputs = self.material.outputs
        sums = loss_sums(answer, wanted, offset, scale, outputs)
        return (sums / n_scored(wanted, outputs).clamp(min=1)).sum()

    def _batch(self, bins: np.ndarray, kept: np.ndarray) -> PoyoBatch:
        """Windows, queried at their end first and then a hop earlier each time."""
        hop_us = round(self.material.hop_s * 1e6)
        windows = [
            self.windows.for_network((int(i) + 1) * hop_us, mask)
            for i, mask in zip(bins, kept, strict=True)
        ]
        sequence_s = self.step.config.sequence_s
        query_s = sequence_s - np.arange(self.n_hops) * self.material.hop_s
        return batch_of(windows, np.tile(query_s, (len(bins), 1)), sequence_s)


def load_step(bundle: DecoderBundle) -> PoyoStep:
    """The bundle's network, frozen.

    Raises:
        CalibrationError: the bundle is not a POYO's.
        export.errors.ExportError: its weights are not those of its network.
    """
    module = load_module(bundle)
    if not isinstance(module, PoyoStep):
        raise CalibrationError(f"decoder {bundle.manifest.name!r} is no POYO")
    module.tabulate()
    return module.eval().requires_grad_(False)


def learn(
    bundle: DecoderBundle,
    step: PoyoStep,
    material: Material,
    options: Options,
    recipe: Recipe | None = None,
) -> Learnt:
    """Learn embeddings and session vector for a session.

    Args:
        bundle: the decoder.
        step: its network.
        material: the session.
        options: with `same_array` the embeddings of known keys are the start.
        recipe: how the steps are taken.

    Raises:
        CalibrationError: the array is said to be the same, and no key is known.
    """
    recipe = recipe or Recipe()
    start, labelled = _start(bundle, step, material, options.same_array), material.labelled
    folds = held_out_bins(material, labelled)
    n_steps = recipe.untested_steps
    tell = options.on_progress or (lambda done, most: None)
    if len(folds):
        tuner = Tuner(step, material, start, labelled & ~folds[0], recipe, options.seed)
        n_steps = _best_n_steps(tuner, folds[0], lambda n: tell(n, 2 * recipe.n_steps))
    final = Tuner(step, material, start, labelled, recipe, options.seed)
    for i in range(n_steps):
        final.learn()
        if (i + 1) % recipe.look_every == 0:
            tell(recipe.n_steps + i + 1, recipe.n_steps + n_steps)
    return final.end()


def _best_n_steps(tuner: Tuner, held_out: np.ndarray, tell: Callable[[int], None]) -> int:
    """Steps until the held-out trials have not gained for long; how many were best."""
    recipe, losses = tuner.recipe, [tuner.loss_on(held_out)]
    for i_step in range(1, recipe.n_steps + 1):
        tuner.learn()
        if i_step % recipe.look_every == 0:
            losses.append(tuner.loss_on(held_out))
            tell(i_step)
            if len(losses) - 1 - int(np.argmin(losses)) >= recipe.patience:
                break
    return int(np.argmin(losses)) * recipe.look_every


def _start(bundle: DecoderBundle, step: PoyoStep, material: Material, same_array: bool) -> Learnt:
    """Every unit as the mean of those that the decoder knows, or where it knows it as itself."""
    known = step.decoder.unit_emb.weight[1:].detach()
    keys = material.recording.unit_keys
    embedding = known.mean(dim=0).expand(len(keys), -1).clone()
    row = [bundle.row_of_key.get(key, -1) if same_array else -1 for key in keys]
    if same_array and max(row) < 0:
        raise CalibrationError(
            f"--same-array, but the decoder knows none of the units {', '.join(keys[:3])}, "
            "...: adapt without it"
        )
    for i, r in enumerate(row):
        if r >= 0:
            embedding[i] = known[r]
    name = "same array" if same_array else "mean unit"
    return Learnt(name, embedding, step.decoder.session_emb.weight[1].detach().clone(), 0)


def weights_of(learnt: Learnt) -> dict[str, np.ndarray]:
    """The network's vocabularies of this session, named as in a bundle."""
    padding = torch.zeros_like(learnt.embedding[:1])
    return {
        "decoder.unit_emb.weight": torch.cat([padding, learnt.embedding]).numpy(),
        "decoder.session_emb.weight": torch.stack([padding[0], learnt.session]).numpy(),
    }


@torch.no_grad()
def tables_of(step: PoyoStep, learnt: Learnt) -> dict[str, np.ndarray]:
    """The graph's tables."""
    return {"table": step.fold(learnt.embedding).numpy(), "session": learnt.session.numpy()}


def adapt_poyo(bundle: DecoderBundle, material: Material, options: Options) -> Adapted:
    """Adapt a POYO to a session; see `learn`."""
    step = load_step(bundle)
    learnt = learn(bundle, step, material, options)
    windows, hop_us = Windows(material.session, step.config.sequence_s), round(material.hop_s * 1e6)
    own, part = np.arange(windows.n_units, dtype=np.int32), material.recording.train
    some = range(part.first, part.last, max(1, int(step.config.sequence_s / material.hop_s)))
    return Adapted(
        graph=bundle.graph_path.read_bytes(),
        tables=tables_of(step, learnt),
        spikes_per_bin=material.recording.spikes_per_bin,
        learnt=weights_of(learnt),
        window_of=lambda i, row_of: windows.cut((i + 1) * hop_us, row_of),
        lead_in_s=0.0,
        start=learnt.start,
        n_steps=learnt.n_steps,
        n_steps_unfrozen=0,
        n_tokens=np.array([len(windows.cut((i + 1) * hop_us, own)) for i in some]),
        training={"config": step_config(step.config, step.outputs, windows.n_units)},
    )
