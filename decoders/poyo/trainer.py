"""Train POYO on windows from anywhere in the recordings, read at their end as live."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from decoders.config import PoyoChoice, TrainConfig
from decoders.errors import TrainingError
from decoders.poyo.attention import CrossAttention
from decoders.poyo.config import PoyoConfig
from decoders.poyo.network import Poyo
from decoders.poyo.tokens import PoyoBatch
from decoders.poyo.windows import Stretch, WindowCorpus
from decoders.training.optimisation import Learner, share_of_process
from decoders.training.output_columns import output_columns
from decoders.training.outputs import loss_sums, n_scored, normalisation
from decoders.training.recordings import Recording, session_record
from streams.clock import Clock, MonotonicClock, ThreadClock
from streams.r2 import r2_score

N_SCORED = 400
N_STARTED_FROM = 32
ENCODED_SPREAD = 0.3


class PoyoTrainer:
    """A training at some step.

    Args:
        config: the whole config, with its [poyo].
        recordings: the sessions.
        fabric: launched.
    """

    def __init__(
        self, config: TrainConfig, recordings: Sequence[Recording], fabric: Fabric
    ) -> None:
        if config.poyo is None:
            raise TrainingError("the config has no [poyo] section")
        self.config, self.recipe, self.fabric = config, config.poyo, fabric
        self.recordings = list(recordings)
        self.outputs = output_columns(config, recordings[0])
        hop_us = round(config.beat.hop_ms * 1000)
        n_hops = round(config.poyo.sequence_s * 1e6 / hop_us)
        self.corpus = WindowCorpus(recordings, hop_us, n_hops)
        _require_windows(self.corpus)
        self.offset, self.scale = normalisation(recordings, self.outputs)
        torch.manual_seed(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.network = Poyo(poyo_shape(config.poyo, len(self.offset)), *self.corpus.words())
        some = self.corpus.draw(N_STARTED_FROM, self.generator)
        centre_attention(self.network, self.corpus.batch(some, self._all_units(some)))
        groups = _parameter_groups(self.network, config.poyo.weight_decay)
        self.learner = Learner(config, self.network, groups, fabric, self.generator)
        self.mine = share_of_process(fabric.global_rank, fabric.world_size, config.poyo.batch)
        torch.manual_seed(config.seed + fabric.global_rank)
        alone = fabric.device.type == "cpu" and config.devices.threads == 1
        self.clock: Clock = ThreadClock() if alone else MonotonicClock()
        self.taken_s = 0.0

    @property
    def share_done(self) -> float:
        """Share done: time where there is a budget, else steps."""
        if self.recipe.time_budget_s is None:
            return self.learner.i_step / self.config.training.steps
        return min(1.0, self.taken_s / self.recipe.time_budget_s)

    def summary(self) -> dict[str, Any]:
        """Network sizes and epochs; an epoch is all train parts once."""
        seen_s = self.learner.i_step * self.recipe.batch * self.corpus.sequence_s
        return {
            "n_parameters": sum(p.numel() for p in self.network.parameters()),
            "n_units": len(self.network.unit_emb.words),
            "epochs": round(seen_s / self.corpus.train_s, 2),
            "steps_s": round(self.taken_s, 1),
        }

    def step(self) -> float:
        """One gradient step.

        Returns:
            The loss over all processes' windows.

        Raises:
            TrainingError: the loss is not finite.
        """
        t_start = self.clock.now()
        stretches = self.corpus.draw(self.recipe.batch, self.generator)
        kept = self._kept_units(stretches)[self.mine]
        batch = self.corpus.batch(stretches[self.mine], kept).to(self.fabric.device)
        targets = torch.from_numpy(self.corpus.targets(stretches)).to(self.fabric.device)
        loss = self._loss(self.learner.module(batch), targets)
        self.learner.step(loss, learning_rate(self.share_done, self.recipe))
        # The first process's time, which all follow, so that they stop at the same step.
        self.taken_s += float(self.fabric.broadcast(self.clock.now() - t_start, src=0))
        return self.learner.loss[-1]

    def _kept_units(self, stretches: Sequence[Stretch]) -> list[np.ndarray]:
        """Draw a rate for each window; no window loses all its units."""
        most = self.config.training.unit_dropout
        rates = torch.rand(len(stretches), generator=self.generator) * most
        kept = []
        for at, rate in zip(stretches, rates, strict=True):
            n_units = len(self.corpus.recordings[at.session].unit_keys)
            mask = (torch.rand(n_units, generator=self.generator) >= rate).numpy()
            kept.append(mask if mask.any() else ~mask)
        return kept

    def _all_units(self, stretches: Sequence[Stretch]) -> list[np.ndarray]:
        return [np.ones(len(self.recordings[at.session].unit_keys), bool) for at in stretches]

    def _loss(self, answer: Tensor, targets: Tensor) -> Tensor:
        """Loss over this process's windows, divided by all processes' known targets.

        Args:
            answer: (B in this process, n_hops, dims).
            targets: (B in all, n_hops, n_columns).
        """
        at_end = self.recipe.end_weight
        parts = ((slice(None, -1), 1.0 - at_end), (slice(-1, None), at_end))
        weights = torch.tensor([out.weight for out in self.outputs], device=answer.device)
        offset, scale = self.offset.to(answer.device), self.scale.to(answer.device)
        loss = torch.zeros((), device=answer.device)
        for hops, weight in parts:
            wanted = targets[:, hops]
            given = answer[:, hops].to(wanted.dtype)
            sums = loss_sums(given, wanted[self.mine], offset, scale, self.outputs)
            counts = n_scored(wanted, self.outputs).clamp(min=1)
            loss = loss + weight * (weights * sums / counts).sum()
        return loss

    def score(self) -> dict[str, dict[str, list[float]]]:
        """Score the averaged weights at the end of evenly chosen windows in every test part.

        Returns:
            Per session and output: R2 per dimension.
        """
        return {
            recording.id: self._score_one(i, recording)
            for i, recording in enumerate(self.recordings)
            if recording.test.last > recording.test.first
        }

    def _score_one(self, i_session: int, recording: Recording) -> dict[str, list[float]]:
        ends = np.array(self.corpus.ends(recording.test))
        ends = ends[recording.tested[ends]]
        chosen = ends[np.unique(np.linspace(0, len(ends) - 1, N_SCORED).round().astype(int))]
        stretches = [Stretch(i_session, 0, last) for last in chosen.tolist()]
        answer, actual = self._decode(stretches), recording.test_targets[chosen]
        return {
            out.name: r2_score(answer[:, out.answer], actual[:, out.target]) for out in self.outputs
        }

    @torch.no_grad()
    def _decode(self, stretches: Sequence[Stretch]) -> np.ndarray:
        """(n, dims) at the windows' ends, physical units."""
        answers = []
        for i in range(0, len(stretches), self.recipe.batch):
            some = stretches[i : i + self.recipe.batch]
            batch = self.corpus.batch(some, self._all_units(some)).to(self.fabric.device)
            answers.append(self.learner.average(batch)[:, -1].cpu() * self.scale + self.offset)
        return torch.cat(answers).numpy()

    def progress(self) -> dict[str, Any]:
        """Give everything that `restore` and export need, as tensors and plain JSON types."""
        return self.learner.progress() | {
            "network": json.dumps(self.network.config.to_dict()),
            "sessions": json.dumps([self._session_record(r) for r in self.recordings]),
            "dims": list(self.recordings[0].dims),
            "offset": self.offset,
            "scale": self.scale,
            "noise": torch.get_rng_state(),
            "taken_s": self.taken_s,
        }

    def _session_record(self, recording: Recording) -> dict[str, Any]:
        offsets = recording.tokens.offsets
        n_tokens = offsets[self.corpus.n_hops :] - offsets[: -self.corpus.n_hops]
        return session_record(recording) | {"tokens_p999": float(np.quantile(n_tokens, 0.999))}

    def restore(self, progress: dict[str, Any]) -> None:
        """Go on from a checkpoint with the same config; bit-exactly without a time budget.

        Raises:
            TrainingError: it has another config or architecture.
        """
        self.learner.restore(progress)
        torch.set_rng_state(progress["noise"])
        self.taken_s = progress["taken_s"]


def poyo_shape(choice: PoyoChoice, dim_out: int) -> PoyoConfig:
    """Network shape that a [poyo] section describes."""
    sizes = choice.model_dump(include={field.name for field in fields(PoyoConfig)})
    return PoyoConfig(dim_out=dim_out, **sizes)


def learning_rate(share_done: float, recipe: PoyoChoice) -> float:
    """Linear warm-up, flat, then a cosine to zero."""
    if share_done < recipe.warmup:
        return recipe.learning_rate * (0.1 + 0.9 * share_done / recipe.warmup)
    if share_done < recipe.hold:
        return recipe.learning_rate
    left = (share_done - recipe.hold) / max(1e-9, 1.0 - recipe.hold)
    return recipe.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, left)))


def _parameter_groups(network: Poyo, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on linear maps' matrices, not on embeddings, gains and offsets."""
    decayed = [p for n, p in network.named_parameters() if p.ndim > 1 and "_emb." not in n]
    others = [p for n, p in network.named_parameters() if p.ndim < 2 or "_emb." in n]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _require_windows(corpus: WindowCorpus) -> None:
    for recording in corpus.recordings:
        if not len(corpus.ends(recording.train)):
            raise TrainingError(
                f"session {recording.id} has no window of {corpus.sequence_s:g} s to learn from"
            )


@torch.no_grad()
def centre_attention(network: Poyo, batch: PoyoBatch) -> None:
    """Set both cross-attentions' output projections by what they give for some windows.

    With random weights the output of a cross-attention hardly differs between windows: thousands of
    spikes average out, and the mean is some thirty times larger than the differences. Training then
    spends its first hundreds of steps on a plateau. So the bias takes off the mean, and a gain
    makes the differences comparable to what later layers add (as in arXiv 1511.06856). Nothing else
    changes.

    Args:
        network: new; its weights are changed.
        batch: training windows, tens of them.
    """
    was_training = network.training
    network.eval()
    given = _given(network, network.enc_atn, batch)
    spread = (given - given.mean(dim=0)).std()
    _shift_and_scale(network.enc_atn.to_out, given, ENCODED_SPREAD / float(spread.clamp(min=1e-9)))
    _shift_and_scale(network.dec_atn.to_out, _given(network, network.dec_atn, batch), 1.0)
    network.train(was_training)


def _given(network: Poyo, attention: CrossAttention, batch: PoyoBatch) -> Tensor:
    """(B, N, dim) what an attention adds."""
    found: list[Tensor] = []
    handle = attention.register_forward_hook(lambda module, inputs, answer: found.append(answer))
    network(batch)
    handle.remove()
    return found[0]


def _shift_and_scale(projection: nn.Linear, given: Tensor, gain: float) -> None:
    projection.bias.sub_(given.mean(dim=(0, 1))).mul_(gain)
    projection.weight.mul_(gain)
