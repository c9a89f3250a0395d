"""Train the streaming decoder on lanes; a checkpoint lets it go on bit-exactly."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from decoders.checkpoint import CHECKPOINT, load_checkpoint, load_weights
from decoders.config import TrainConfig, Training
from decoders.errors import TrainingError
from decoders.streaming.network import LaneDropout, LaneNetwork, SessionNetwork
from decoders.streaming.shape import OutputSpec, StreamingConfig
from decoders.streaming.stateful_sampler import Corpus, Plan, Segment, StatefulSampler
from decoders.streaming.tuning import fit_unit_profiles
from decoders.training.optimisation import Learner, over_processes, share_of_process
from decoders.training.output_columns import output_columns
from decoders.training.outputs import loss_sums, n_scored, normalisation
from decoders.training.recordings import Recording, lead_grid_s, session_record
from decoders.training.scores import accuracy
from streams.r2 import r2_score

SCORE_LEAD_IN_S = 20.0
SCORE_WINDOW_BINS = 500


class Trainer:
    """A training at some step.

    Args:
        config: the whole config.
        recordings: the sessions.
        fabric: launched.
        network: to train, with its scales set; a new `SessionNetwork` if None.
    """

    def __init__(
        self,
        config: TrainConfig,
        recordings: Sequence[Recording],
        fabric: Fabric,
        network: LaneNetwork | None = None,
    ) -> None:
        self.config = config
        self.recordings = recordings
        self.fabric = fabric
        self.outputs = output_columns(config, recordings[0])
        self.corpus = Corpus(recordings, lead_grid_s(config.lead))
        torch.manual_seed(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.sampler = self._new_sampler()
        if network is None:
            network = fresh = new_network(config, recordings)
            # The windows of all lanes, so that every process fixes the same gain.
            fresh.standardise(self.sampler.next(slice(0, len(self.sampler))))
        self.network = network
        groups = network.parameter_groups(config.training.weight_decay)
        self.learner = Learner(config, network, groups, fabric, self.generator)
        self.mine = share_of_process(fabric.global_rank, fabric.world_size, len(self.sampler))
        n_mine = self.mine.stop - self.mine.start
        self.memory = torch.zeros(n_mine, network.d_memory, device=fabric.device)

    @property
    def share_done(self) -> float:
        """Share that is done."""
        return self.learner.i_step / self.config.training.steps

    def summary(self) -> dict[str, Any]:
        """Network sizes, for the metrics."""
        return {"n_parameters": self.network.n_parameters, "n_units": self.corpus.n_rows}

    def _new_sampler(self) -> StatefulSampler:
        hop_s, recipe = self.config.beat.hop_ms / 1000, self.config.training
        return StatefulSampler(
            self.corpus,
            n_lanes=recipe.lanes,
            n_bins=max(1, round(recipe.window_s / hop_s)),
            n_context=round(recipe.context_s / hop_s / 2),
            reset=recipe.reset,
            generator=self.generator,
            n_segments=recipe.pieces,
            n_blind=round(recipe.blind_s / hop_s),
        )

    def step(self) -> float:
        """One gradient step.

        Returns:
            The loss over all processes' lanes.

        Raises:
            TrainingError: the loss is not finite.
        """
        recipe = self.config.training
        window = self.sampler.next(self.mine).to(self.fabric.device)
        dropout = LaneDropout(
            self.generator,
            len(self.sampler),
            self.mine,
            recipe.dropout,
            recipe.unit_dropout,
            recipe.session_dropout,
            recipe.newcomers,
        )
        answer, memory = self.learner.module(window, self.memory, dropout)
        sums = loss_sums(answer, window.target, *self.network.normalisation, self.outputs)
        counts = over_processes(self.fabric, n_scored(window.target, self.outputs).float())
        weights = torch.tensor([out.weight for out in self.outputs], device=sums.device)
        loss = (weights * sums / counts.clamp(min=1.0)).sum()
        # Memory carries over to the next window, its gradient does not.
        self.memory = memory.detach()
        return self.learner.step(loss, learning_rate(self.learner.i_step, recipe))

    def score(self) -> dict[str, dict[str, list[float]]]:
        """Score the averaged weights on every session's test part.

        Returns:
            Per session and output: R2 per dimension, or for classes the accuracy.
        """
        return {
            recording.id: self._score_one(i, recording)
            for i, recording in enumerate(self.recordings)
            if recording.test.last > recording.test.first
        }

    def _score_one(self, i_session: int, recording: Recording) -> dict[str, list[float]]:
        lead_in = round(SCORE_LEAD_IN_S * 1000 / self.config.beat.hop_ms)
        first = max(0, recording.test.first - lead_in)
        answer = self.decode(i_session, first, recording.test.last)[recording.test.first - first :]
        target = recording.test_targets[recording.test.first : recording.test.last]
        return {
            out.name: [accuracy(answer[:, out.answer], target[:, out.target][:, 0])]
            if out.classes
            else r2_score(answer[:, out.answer], target[:, out.target])
            for out in self.outputs
        }

    @torch.no_grad()
    def decode(self, i_session: int, first: int, last: int) -> np.ndarray:
        """Run the averaged weights over bins `first .. last`, from zero memory.

        Returns:
            (last - first, n_dims) in physical units; for classes, logits.
        """
        memory = torch.zeros_like(self.memory[:1])
        offset, scale = self.network.normalisation
        answers = []
        for start in range(first, last, SCORE_WINDOW_BINS):
            segment = Segment(0, start, SCORE_WINDOW_BINS)
            plan = Plan(i_session, 0, self.corpus.i_present, last, (segment,))
            window = self.corpus.window([plan], SCORE_WINDOW_BINS)
            answer, memory = self.learner.average(window.to(self.fabric.device), memory)
            answers.append((answer[0] * scale + offset).cpu().numpy())
        return np.concatenate(answers)[: last - first]

    def progress(self) -> dict[str, Any]:
        """Give everything that `restore` and export need, as tensors and plain JSON types."""
        gathered = self.fabric.all_gather(self.memory)
        return self.learner.progress() | {
            "network": json.dumps(self.network.shape),
            "sessions": json.dumps([session_record(r) for r in self.recordings]),
            "lanes": self.sampler.progress(),
            "memory": gathered.flatten(0, -2) if isinstance(gathered, Tensor) else self.memory,
        }

    def restore(self, progress: dict[str, Any]) -> None:
        """Go on from a checkpoint with the same config, bit for bit.

        Raises:
            TrainingError: it has another config or architecture.
        """
        self.learner.restore(progress)
        self.sampler.restore(progress["lanes"])
        self.memory = progress["memory"][self.mine].to(self.fabric.device)


def new_network(config: TrainConfig, recordings: Sequence[Recording]) -> SessionNetwork:
    """Make a network with random weights, its normalisation and sink set from the train parts."""
    scored = output_columns(config, recordings[0])
    offset, scale = normalisation(recordings, scored)
    profiles = fit_unit_profiles(
        recordings,
        scored,
        offset.double().numpy(),
        scale.double().numpy(),
        i_present=lead_grid_s(config.lead).index(0.0),
        hop_s=config.beat.hop_ms / 1000,
        seed=config.seed,
    )
    network = SessionNetwork(
        network_shape(config, recordings),
        key_of_row=shared_keys(recordings, config.sessions.same_array),
        n_sessions=len(recordings),
        max_units=max(len(recording.unit_keys) for recording in recordings),
        spikes_per_bin=torch.from_numpy(
            np.concatenate([recording.spikes_per_bin for recording in recordings])
        ).float(),
        n_profile=profiles.best.shape[1],
    )
    network.set_profiles(profiles)
    network.decoder.offset.copy_(offset)
    network.decoder.scale.copy_(scale)
    return network


def network_shape(config: TrainConfig, recordings: Sequence[Recording]) -> StreamingConfig:
    """Decoder shape: sizes from the config, outputs and sink from the recordings."""
    outputs = [
        OutputSpec(choice.name, dims, bool(choice.classes))
        for choice, dims in zip(config.outputs, recordings[0].dims, strict=True)
    ]
    sizes = config.network.model_dump()
    if not config.beat.rotary:
        sizes["n_frequencies"] = 0
    return StreamingConfig(
        outputs=tuple(outputs),
        bin_s=config.beat.bin_ms / 1000,
        sink=mean_spikes(recordings),
        **sizes,
    )


def shared_keys(recordings: Sequence[Recording], same_array: bool) -> list[int]:
    """Index for each row's shared embedding: one per key on the same array, else one per row."""
    keys = [
        key if same_array else f"{i}/{key}"
        for i, recording in enumerate(recordings)
        for key in recording.unit_keys
    ]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return [number[key] for key in keys]


def mean_spikes(recordings: Sequence[Recording]) -> float:
    """Mean spikes per bin, at least one: the sink's initial mass."""
    n_spikes = sum(float(recording.tokens.count.sum()) for recording in recordings)
    return max(1.0, n_spikes / sum(recording.n_bins for recording in recordings))


def learning_rate(i_step: int, recipe: Training) -> float:
    """Linear warm-up, then a cosine to zero."""
    n_warmup = max(1, round(recipe.warmup * recipe.steps))
    if i_step < n_warmup:
        return recipe.learning_rate * (i_step + 1) / n_warmup
    done = (i_step - n_warmup) / max(1, recipe.steps - n_warmup)
    return recipe.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))


def started(
    config: TrainConfig, config_dir: Path, recordings: Sequence[Recording]
) -> SessionNetwork | None:
    """Network to go on with; None where the config names no earlier run."""
    if config.start is None:
        return None
    checkpoint = load_checkpoint(config_dir / config.start.run / CHECKPOINT)
    torch.manual_seed(config.seed)
    network = new_network(config, recordings)
    start_from(
        network,
        recordings,
        checkpoint,
        same_array=config.sessions.same_array,
        freeze=config.start.freeze,
    )
    return network


def start_from(
    network: SessionNetwork,
    recordings: Sequence[Recording],
    checkpoint: Mapping[str, Any],
    *,
    same_array: bool,
    freeze: bool,
) -> None:
    """Copy an earlier run's decoder into a network, and start its embeddings there.

    On the same array a unit with a known key starts from the key's embedding in the latest earlier
    session. Any other unit starts from its encoded profile. A session vector starts from the mean
    of the earlier ones.

    Args:
        network: for the new sessions.
        recordings: the new sessions.
        checkpoint: from the earlier run.
        same_array: whether a key names the same channel as it did there.
        freeze: whether the decoder stays as it is.

    Raises:
        TrainingError: the earlier run's decoder has another shape.
    """
    if json.loads(checkpoint["network"]) | {"sink": 0} != network.shape | {"sink": 0}:
        raise TrainingError(
            f"[start] run has a decoder of another shape, {checkpoint['network']}: "
            "give the same [beat], [[outputs]] and [network]"
        )
    weights: dict[str, Tensor] = checkpoint["weights"]
    for prefix, module in (("decoder.", network.decoder), ("identity.", network.identity)):
        held = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        load_weights(module, held, "[start] run")
    known = network.identity(weights["profile"]) + weights["own"]
    known = known + weights["shared"][weights["key_of_row"]]
    old = [key for one in json.loads(checkpoint["sessions"]) for key in one["unit_keys"]]
    latest = dict(zip(old, known, strict=True)) if same_array else {}
    keys = [key for recording in recordings for key in recording.unit_keys]
    with torch.no_grad():
        told = network.identity(network.profile)
        for i, (key, number) in enumerate(zip(keys, network.key_of_row.tolist(), strict=True)):
            # The embedding is a sum with the encoded profile, which is there already.
            network.shared[number] = latest.get(key, told[i]) - told[i]
        network.session.copy_(weights["session"].mean(dim=0).expand_as(network.session))
    network.decoder.requires_grad_(not freeze)
    network.identity.requires_grad_(not freeze)
