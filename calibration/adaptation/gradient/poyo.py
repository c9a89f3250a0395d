"""Adaptation of POYO: unit embeddings and session vector by gradient, the network frozen.

Held-out trials decide how many steps. Then a fit to all labelled seconds takes as many.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from calibration.adaptation.adapted import Adapted, Options
from calibration.adaptation.calibration_data import CalibrationData, known_rows
from calibration.adaptation.gradient.batched_fits import Recipe, Start
from calibration.adaptation.gradient.search import step_until_no_gain
from calibration.adaptation.held_out import held_out_bins
from calibration.errors import CalibrationError
from decoders.poyo.step import PoyoStep, step_config
from decoders.poyo.tokens import PoyoBatch, PoyoWindow, batch_of, exact_s
from decoders.training.outputs import loss_sums, n_scored
from export.backends.torch_cpu import load_module
from export.bundle import DecoderBundle
from streams.messages import Int32s, SpikeBatch, TokenWindow
from streams.sessions.session import Session
from streams.spikes.tokenizer import Tokenizer

RECIPE = Recipe(n_steps=240, look_every=20, patience=3, unit_dropout=0.3, clip=1.0)
UNTESTED_STEPS = 100
RELATIVE_RATE = 0.03
"""Learning rate, as a share of the embeddings' own size."""
BATCH = 8
N_LOOKED_AT = 48


class Windows:
    """Cut a session's whole windows with the live tokenizer.

    Args:
        session: the recording.
        window_s: window length.
    """

    def __init__(self, session: Session, window_s: float) -> None:
        self.spikes, self.window_us = session.spikes, round(window_s * 1e6)
        self.n_units = len(session.unit_keys)

    def cut(self, end_us: int, row_of: Int32s) -> TokenWindow:
        """Cut the window that ends there; units with row -1 are left out."""
        t_us = self.spikes.t_us
        first, last = np.searchsorted(t_us, (end_us - self.window_us, end_us), side="right")
        held = slice(int(first), int(last))
        batch = SpikeBatch(t_us[held], self.spikes.unit[held], self.spikes.count[held])
        return Tokenizer(self.window_us, row_of).cut(batch, end_us, end_us * 1e-6)[0]

    def for_network(self, end_us: int, kept: np.ndarray) -> PoyoWindow:
        """Cut for torch, with the (U,) bool units; unit i has vocabulary row 1 + i."""
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
        data: the session.
        start: first embeddings, (U, dim), and session vector, (dim,).
        fitted: (n_bins,) bool, bins to learn from.
        seed: for windows and unit dropout.
    """

    def __init__(
        self, step: PoyoStep, data: CalibrationData, start: Start, fitted: np.ndarray, seed: int
    ) -> None:
        self.step, self.data, self.start, self.fitted = step, data, start, fitted
        self.windows = Windows(data.session, step.config.sequence_s)
        self.rng = np.random.default_rng(seed)
        self.embedding = start.embedding.clone().requires_grad_()
        self.session = start.session.clone().requires_grad_()
        rates = [
            RELATIVE_RATE * float(p.detach().square().mean().sqrt()) + 1e-6
            for p in (self.embedding, self.session)
        ]
        pairs = zip((self.embedding, self.session), rates, strict=True)
        self.optimizer = torch.optim.AdamW(
            [{"params": [p], "lr": rate} for p, rate in pairs], weight_decay=0.0
        )
        self.n_hops = max(1, math.floor(step.config.sequence_s / data.hop_s + 1e-9))

    def end(self) -> Start:
        """Give what has been learnt so far."""
        embedding, session = self.embedding.detach().clone(), self.session.detach().clone()
        return Start(self.start.name, embedding, session)

    def learn(self) -> None:
        """Take one step."""
        bins = self.rng.choice(np.flatnonzero(self.fitted), BATCH)
        rates = self.rng.uniform(0.0, RECIPE.unit_dropout, len(bins))
        kept = self.rng.random((len(bins), self.windows.n_units)) >= rates[:, None]
        # A window without units would teach nothing.
        kept[~kept.any(axis=1)] = True
        loss = self._loss(bins, kept, self.fitted)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([self.embedding, self.session], RECIPE.clip)
        self.optimizer.step()

    @torch.no_grad()
    def loss_on(self, scored: np.ndarray) -> float:
        """Mean loss at some windows that end in `scored` (n_bins,) bins."""
        bins = np.flatnonzero(scored)
        bins = bins[:: max(1, len(bins) // N_LOOKED_AT)]
        parts = np.array_split(bins, math.ceil(len(bins) / BATCH))
        everything = np.ones((len(bins), self.windows.n_units), bool)
        losses = [float(self._loss(p, everything[: len(p)], scored)) * len(p) for p in parts]
        return sum(losses) / len(bins)

    def _loss(self, bins: np.ndarray, kept: np.ndarray, scored: np.ndarray) -> Tensor:
        """Loss over the labelled bins inside the windows that end at `bins`."""
        offset, scale = self.step.offset, self.step.scale
        inside = bins[:, None] - np.arange(self.n_hops)
        targets = self.data.targets[np.maximum(inside, 0)]
        targets[(inside < 0) | ~scored[np.maximum(inside, 0)]] = np.nan
        wanted = torch.from_numpy(targets.astype(np.float32))
        units = torch.cat([torch.zeros_like(self.embedding[:1]), self.embedding])
        sessions = self.session.expand(2, -1)
        answer = self.step.decoder.answer(self._batch(bins, kept), units, sessions)
        outputs = self.data.outputs
        sums = loss_sums(answer, wanted, offset, scale, outputs)
        return (sums / n_scored(wanted, outputs).clamp(min=1)).sum()

    def _batch(self, bins: np.ndarray, kept: np.ndarray) -> PoyoBatch:
        """Make windows, queried at their end first and then a hop earlier each time."""
        hop_us = round(self.data.hop_s * 1e6)
        windows = [
            self.windows.for_network((int(i) + 1) * hop_us, mask)
            for i, mask in zip(bins, kept, strict=True)
        ]
        sequence_s = self.step.config.sequence_s
        query_s = sequence_s - np.arange(self.n_hops) * self.data.hop_s
        return batch_of(windows, np.tile(query_s, (len(bins), 1)), sequence_s)


def load_step(bundle: DecoderBundle) -> PoyoStep:
    """Load the bundle's network, frozen.

    Raises:
        CalibrationError: the bundle is not a POYO's.
        export.errors.ExportError: its weights are not its network's.
    """
    module = load_module(bundle)
    if not isinstance(module, PoyoStep):
        raise CalibrationError(f"decoder {bundle.manifest.name!r} is no POYO")
    module.tabulate()
    return module.eval().requires_grad_(False)


def learn(
    bundle: DecoderBundle, step: PoyoStep, data: CalibrationData, options: Options
) -> tuple[Start, int]:
    """Learn embeddings and session vector for a session, in so many steps.

    Args:
        bundle: the decoder.
        step: its network.
        data: the session.
        options: with `same_array` known keys start from their embeddings.

    Raises:
        CalibrationError: the array is said to be the same, and no key is known.
    """
    start, labelled = _start(bundle, step, data, options.same_array), data.labelled
    folds = held_out_bins(data)
    n_steps = UNTESTED_STEPS
    tell = options.on_progress or (lambda done, most: None)
    if len(folds):
        tuner = Tuner(step, data, start, labelled & ~folds[0], options.seed)
        losses = step_until_no_gain(
            tuner.learn,
            lambda: tuner.loss_on(folds[0]),
            RECIPE,
            lambda done, most: tell(done, 2 * most),
        )
        n_steps = int(np.argmin(losses)) * RECIPE.look_every
    final = Tuner(step, data, start, labelled, options.seed)
    for i in range(n_steps):
        final.learn()
        if (i + 1) % RECIPE.look_every == 0:
            tell(RECIPE.n_steps + i + 1, RECIPE.n_steps + n_steps)
    return final.end(), n_steps


def _start(bundle: DecoderBundle, step: PoyoStep, data: CalibrationData, same_array: bool) -> Start:
    """Start known units on the same array from their embedding, others from the mean unit."""
    known = step.decoder.unit_emb.weight[1:].detach()
    keys = data.recording.unit_keys
    embedding = known.mean(dim=0).expand(len(keys), -1).clone()
    if same_array:
        row = known_rows(bundle.row_of_key, keys)
        embedding[row >= 0] = known[row[row >= 0]]
    name = "same array" if same_array else "mean unit"
    return Start(name, embedding, step.decoder.session_emb.weight[1].detach().clone())


def adapt_poyo(bundle: DecoderBundle, data: CalibrationData, options: Options) -> Adapted:
    """Adapt a POYO to a session; see `learn`.

    Raises:
        CalibrationError: the whole network is to be trained, or on the same array no key is known.
    """
    if options.unfreeze:
        raise CalibrationError("of a POYO only embeddings are learnt: adapt without --unfreeze")
    step = load_step(bundle)
    learnt, n_steps = learn(bundle, step, data, options)
    padding = torch.zeros_like(learnt.embedding[:1])
    with torch.no_grad():
        table = step.fold(learnt.embedding).numpy()
    windows, hop_us = Windows(data.session, step.config.sequence_s), round(data.hop_s * 1e6)
    own, part = np.arange(windows.n_units, dtype=np.int32), data.recording.train
    some = range(part.first, part.last, max(1, int(step.config.sequence_s / data.hop_s)))
    return Adapted(
        graph=bundle.graph_path.read_bytes(),
        tables={"table": table, "session": learnt.session.numpy()},
        spikes_per_bin=data.recording.spikes_per_bin,
        # Named as in a bundle.
        learnt={
            "decoder.unit_emb.weight": torch.cat([padding, learnt.embedding]).numpy(),
            "decoder.session_emb.weight": torch.stack([padding[0], learnt.session]).numpy(),
        },
        window_of=lambda i, row_of: windows.cut((i + 1) * hop_us, row_of),
        lead_in_s=0.0,
        start=learnt.name,
        n_steps=n_steps,
        n_steps_unfrozen=0,
        n_tokens=np.array([len(windows.cut((i + 1) * hop_us, own)) for i in some]),
        training={"config": step_config(step.config, step.outputs, windows.n_units)},
    )
