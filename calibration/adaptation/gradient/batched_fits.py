"""Gradient steps on unit embeddings, session vector, and the network where it is not frozen.

Several fits learn side by side in one batch. Some leave out trials, which tell how many steps are
good. The last one learns from everything and is stopped there.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from calibration.adaptation.calibration_data import CalibrationData
from decoders.streaming.decoder import LaneTokens, StreamingDecoder
from decoders.training.outputs import loss_sums, n_scored

BINS_AT_ONCE = 500


class WindowDecoder:
    """Decode a session's windows with any embeddings.

    Args:
        decoder: the network.
        data: the session.
    """

    def __init__(self, decoder: StreamingDecoder, data: CalibrationData) -> None:
        self.decoder = decoder
        tokens = data.recording.tokens
        self.n_units = len(data.recording.unit_keys)
        self.offsets = torch.from_numpy(tokens.offsets)
        self.unit = torch.from_numpy(tokens.unit.astype(np.int64))
        self.t_rel = torch.from_numpy(tokens.t_rel)
        self.count = torch.from_numpy(tokens.count)
        self.spikes_per_bin = torch.from_numpy(data.recording.spikes_per_bin).float()

    def __call__(
        self,
        embedding: Tensor,
        session: Tensor,
        starts: Tensor,
        n_bins: int,
        kept: Tensor | None = None,
    ) -> Tensor:
        """Normalised outputs per window, each from zero memory.

        Args:
            embedding: (A, U, d_unit), A fits.
            session: (A, d_readout).
            starts: (B,) each window's first bin.
            n_bins: T, window length.
            kept: (B, U) 1 where a unit is used in a window, else 0; all if None.

        Returns:
            (A, B, T, n_dims).
        """
        encoder = self.decoder.encoder
        tables = encoder.fold(embedding)
        kept = torch.ones(len(starts), self.n_units) if kept is None else kept
        tokens = self._tokens(starts, n_bins, kept)
        sums = torch.cat([encoder.sums(table, tokens) for table in tables])
        centre = encoder.centre(tables.unsqueeze(1), kept * self.spikes_per_bin).flatten(0, 1)
        sessions = session.repeat_interleave(len(starts), 0)
        answer, _ = self.decoder(sums, centre, sessions, torch.zeros(len(sessions)))
        by_fit: Tensor = answer.unflatten(0, (len(embedding), len(starts)))
        return by_fit

    @torch.no_grad()
    def tables(self, embedding: Tensor, session: Tensor) -> dict[str, np.ndarray]:
        """Graph tables for (U, d_unit) embeddings and a (d_readout,) session vector."""
        table = self.decoder.encoder.fold(embedding)
        centre = self.decoder.encoder.centre(table, self.spikes_per_bin)
        tables = {"table": table, "session": session, "centre": centre}
        return {name: value.numpy() for name, value in tables.items()}

    @torch.no_grad()
    def usual_latents(self, embedding: Tensor, first: int, last: int) -> np.ndarray:
        """(n_pooled,) latents' mean over bins `first .. last`."""
        table, every_unit = self.decoder.encoder.fold(embedding), torch.ones(1, self.n_units)
        total = torch.zeros(self.decoder.config.n_pooled)
        for start in range(first, last, BINS_AT_ONCE):
            n_bins = min(BINS_AT_ONCE, last - start)
            tokens = self._tokens(torch.tensor([start]), n_bins, every_unit)
            sums = self.decoder.encoder.sums(table, tokens)
            total += self.decoder.encoder.pool(sums)[0].sum(dim=0)
        mean: np.ndarray = (total / (last - first)).numpy()
        return mean

    def _tokens(self, starts: Tensor, n_bins: int, kept: Tensor) -> LaneTokens:
        """Tokens in (B,) windows, without the units that are not kept."""
        bins = (starts[:, None] + torch.arange(n_bins)).flatten()
        n_each = self.offsets[bins + 1] - self.offsets[bins]
        cell = torch.repeat_interleave(torch.arange(len(bins)), n_each)
        before = torch.cumsum(n_each, 0) - n_each
        token = torch.arange(len(cell)) + (self.offsets[bins] - before)[cell]
        lane, unit = cell // n_bins, self.unit[token]
        count = self.count[token] * kept[lane, unit]
        shape = (len(starts), n_bins)
        return LaneTokens(lane, cell % n_bins, unit, self.t_rel[token], count, shape)


@dataclass(frozen=True, slots=True)
class Start:
    """A fit's embeddings, at its start or end.

    Attributes:
        name: its origin.
        embedding: (U, d_unit) float32.
        session: (d_readout,) float32.
    """

    name: str
    embedding: Tensor
    session: Tensor


@dataclass(frozen=True, slots=True)
class Recipe:
    """Recipe for the steps; lengths in seconds.

    A window has at most `most_bins`, because bins run one after another and take the time. The
    result is a running mean over the steps, weighted by `memory`, because single steps are noisy
    where labels are few.
    """

    n_steps: int = 80
    look_every: int = 20
    patience: int = 2
    learning_rate: float = 5e-3
    weights_rate: float = 5e-4
    weight_decay: float = 1e-2
    lanes: int = 4
    window_s: float = 2.0
    most_bins: int = 60
    burn_in_s: float = 0.5
    unit_dropout: float = 0.7
    memory: float = 0.95
    clip: float = 1.0


class BatchedFits:
    """Several fits at one session, each with its own embeddings and its own labels.

    Args:
        decoder: the network; where it is not frozen, a single fit changes it.
        data: the session.
        starts: one per fit.
        fitted: (A, n_bins) bool, bins that each may learn from.
        recipe: for the steps.
        seed: for windows and unit dropout.
    """

    def __init__(
        self,
        decoder: StreamingDecoder,
        data: CalibrationData,
        starts: Sequence[Start],
        fitted: np.ndarray,
        recipe: Recipe,
        seed: int,
    ) -> None:
        self.data = data
        self.recipe = recipe
        self.starts = list(starts)
        self.fitted = torch.from_numpy(fitted)
        self.weights = [p for p in decoder.parameters() if p.requires_grad]
        self.network = WindowDecoder(decoder, data)
        self.slow = self.network
        if self.weights:
            self.slow = WindowDecoder(copy.deepcopy(decoder).requires_grad_(False), data)
        self.targets = torch.from_numpy(data.targets.astype(np.float32))
        self.generator = torch.Generator().manual_seed(seed)
        self.embedding = torch.stack([start.embedding for start in starts]).requires_grad_()
        self.session = torch.stack([start.session for start in starts]).requires_grad_()
        self.mean_embedding = self.embedding.detach().clone()
        self.mean_session = self.session.detach().clone()
        groups = [
            {"params": [self.embedding, self.session], "lr": recipe.learning_rate},
            {
                "params": self.weights,
                "lr": recipe.weights_rate,
                "weight_decay": recipe.weight_decay,
            },
        ]
        self.optimizer = torch.optim.AdamW(groups[: 2 if self.weights else 1], weight_decay=0.0)

    def ends(self) -> list[Start]:
        """Give what each fit has learnt so far."""
        learnt = zip(self.starts, self.mean_embedding, self.mean_session, strict=True)
        return [Start(start.name, e.clone(), s.clone()) for start, e, s in learnt]

    def step(self) -> None:
        """Take one step with every fit, on the same windows."""
        n_bins, _ = self._lengths()
        part, n_lanes = self.data.recording.train, self.recipe.lanes
        room = max(1, part.last - part.first - n_bins + 1)
        starts = part.first + torch.randint(room, (n_lanes,), generator=self.generator)
        rate = torch.rand(n_lanes, 1, generator=self.generator) * self.recipe.unit_dropout
        drawn = torch.rand(n_lanes, self.network.n_units, generator=self.generator)
        kept = (drawn >= rate).float()
        learnt = (self.embedding, self.session)
        loss = self._losses(self.network, *learnt, starts, self.fitted, kept).sum()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._clip()
        self.optimizer.step()
        self._follow()

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the running means."""
        share = 1.0 - self.recipe.memory
        self.mean_embedding.lerp_(self.embedding, share)
        self.mean_session.lerp_(self.session, share)
        for slow, fast in zip(self.slow.decoder.parameters(), self.weights, strict=False):
            slow.lerp_(fast, share)

    @torch.no_grad()
    def held_out_losses(self) -> np.ndarray:
        """(A,) loss on the labelled bins that each leaves out; NaN where it has none."""
        part = self.data.recording.train
        left_out = ~self.fitted
        left_out[:, : part.first] = left_out[:, part.last :] = False
        losses = [self._held_out_loss(i, left) for i, left in enumerate(left_out)]
        return np.array(losses)

    @property
    def held_out_s(self) -> float:
        """Labelled seconds that some fit leaves out."""
        left_out = ~self.fitted.numpy() & self.data.labelled
        return float(left_out.sum()) * self.data.hop_s

    def _held_out_loss(self, i_fit: int, left_out: Tensor) -> float:
        """Over the windows that hold such bins behind their burn-in."""
        n_bins, n_burn_in = self._lengths()
        part, one = self.data.recording.train, slice(i_fit, i_fit + 1)
        starts = torch.arange(part.first, part.last, n_bins - n_burn_in) - n_burn_in
        starts = starts.clamp(min=0, max=max(0, part.last - n_bins))
        starts = starts[left_out[starts[:, None] + torch.arange(n_burn_in, n_bins)].any(dim=1)]
        if not len(starts):
            return float("nan")
        # The running means are what a fit gives, so they are what is judged.
        embedding, session = self.mean_embedding[one], self.mean_session[one]
        answer = self._losses(self.slow, embedding, session, starts, left_out[None], kept=None)
        return float(answer)

    def _lengths(self) -> tuple[int, int]:
        """Bins in a window, and how many only fill the memory."""
        part, hop_s = self.data.recording.train, self.data.hop_s
        n_bins = min(round(self.recipe.window_s / hop_s), self.recipe.most_bins)
        n_bins = min(n_bins, part.last - part.first)
        return n_bins, min(round(self.recipe.burn_in_s / hop_s), n_bins // 4)

    def _losses(
        self,
        network: WindowDecoder,
        embedding: Tensor,
        session: Tensor,
        starts: Tensor,
        scored: Tensor,
        kept: Tensor | None,
    ) -> Tensor:
        """(A,) mean loss over the windows that begin at `starts`, memory filled."""
        n_bins, n_burn_in = self._lengths()
        answer = network(embedding, session, starts, n_bins, kept)
        bins = starts[:, None] + torch.arange(n_burn_in, n_bins)
        decoder, outputs = network.decoder, self.data.outputs
        losses = []
        for given, counted in zip(answer[:, :, n_burn_in:], scored, strict=True):
            wanted = torch.where(counted[bins].unsqueeze(-1), self.targets[bins], torch.nan)
            sums = loss_sums(given, wanted, decoder.offset, decoder.scale, outputs)
            losses.append((sums / n_scored(wanted, outputs).clamp(min=1)).sum())
        return torch.stack(losses)

    def _clip(self) -> None:
        """Bound each fit's gradient on its own."""
        # One wild fit must not shrink the steps of the others.
        for i in range(len(self.starts)):
            grads = [p.grad[i] for p in (self.embedding, self.session) if p.grad is not None]
            grads += [p.grad for p in self.weights if p.grad is not None]
            norm = torch.cat([grad.flatten() for grad in grads]).norm()
            for grad in grads:
                grad.mul_((self.recipe.clip / (norm + 1e-6)).clamp(max=1.0))
