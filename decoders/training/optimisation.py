"""Parts in a training step that every family shares."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from decoders.checkpoint import load_weights
from decoders.config import DEFAULT_FAMILY, TrainConfig
from decoders.errors import TrainingError


def launch(config: TrainConfig) -> Fabric:
    """Launch Lightning Fabric: one process, or those that `torchrun` started."""
    torch.set_num_threads(config.devices.threads)
    n_processes = int(os.environ.get("WORLD_SIZE", "1"))
    n_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fabric = Fabric(
        accelerator=config.devices.accelerator,
        precision=config.devices.precision,
        devices=n_here,
        num_nodes=n_processes // n_here,
        strategy="ddp" if n_processes > 1 else "auto",
    )
    fabric.launch()
    return fabric


def share_of_process(rank: int, n_processes: int, n_lanes: int) -> slice:
    """Lanes for one process.

    Raises:
        TrainingError: they cannot be shared evenly.
    """
    if n_lanes % n_processes:
        raise TrainingError(
            f"{n_lanes} lanes cannot be shared evenly by {n_processes} processes: "
            "change [training] lanes"
        )
    n_each = n_lanes // n_processes
    return slice(rank * n_each, (rank + 1) * n_each)


def decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups with weight decay on matrices alone."""
    parameters = list(parameters)
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def over_processes(fabric: Fabric, value: Tensor) -> Tensor:
    """Sum a value over all processes."""
    total = fabric.all_reduce(value, reduce_op="sum")
    return total if isinstance(total, Tensor) else value


class Learner:
    """A network in training: its optimiser, its averaged weights and its course, of every family.

    Args:
        config: the training's.
        network: to train.
        groups: its parameters, for the optimiser.
        fabric: launched.
        generator: makes the training's draws.

    Attributes:
        module: the network as the fabric runs it.
        average: the same with averaged weights: these are scored and exported.
        i_step: steps taken.
        loss: per step.
        scores: step, and each output's mean score then.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: nn.Module,
        groups: Sequence[dict[str, Any]],
        fabric: Fabric,
        generator: torch.Generator,
    ) -> None:
        self.config, self.network, self.fabric, self.generator = config, network, fabric, generator
        self.average = copy.deepcopy(network).requires_grad_(False).eval()
        self.module, self.optimizer = fabric.setup(network, torch.optim.AdamW(groups))
        self.average.to(fabric.device)
        self.i_step = 0
        self.loss: list[float] = []
        self.scores: list[tuple[int, dict[str, float]]] = []

    def step(self, loss: Tensor, learning_rate: float) -> float:
        """Follow the gradient of this process's share of a loss; return the loss over all.

        Raises:
            TrainingError: it is not finite.
        """
        recipe = self.config.training
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad()
        # Fabric averages gradients over processes, but the loss is a share of a sum over all.
        self.fabric.backward(loss * self.fabric.world_size)
        self.fabric.clip_gradients(self.module, self.optimizer, max_norm=recipe.clip)
        self.optimizer.step()
        self.i_step += 1
        self._update_average()
        self.loss.append(float(over_processes(self.fabric, loss.detach())))
        if not math.isfinite(self.loss[-1]):
            section = "training" if self.config.family == DEFAULT_FAMILY else self.config.family
            raise TrainingError(
                f"the loss is {self.loss[-1]} at step {self.i_step}: lower [{section}] "
                "learning_rate, or look for non-finite behaviour"
            )
        return self.loss[-1]

    @torch.no_grad()
    def _update_average(self) -> None:
        """Move averaged weights towards the live ones, faster in the first steps."""
        # The first weights are random: an average must forget them fast.
        share = min(self.config.training.average, (1 + self.i_step) / (10 + self.i_step))
        pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
        for slow, fast in pairs:
            slow.lerp_(fast, 1.0 - share)

    def progress(self) -> dict[str, Any]:
        """Content for a checkpoint, as tensors and plain JSON types."""
        # Vocabularies in a state dict are no tensors: the sessions give them.
        weights, live = (
            {name: held for name, held in module.state_dict().items() if torch.is_tensor(held)}
            for module in (self.average, self.network)
        )
        return {
            "family": self.config.family,
            "config": self.config.model_dump_json(),
            "weights": weights,
            "live": live,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.i_step,
            "loss": self.loss,
            "scores": [list(score) for score in self.scores],
        }

    def restore(self, progress: Mapping[str, Any]) -> None:
        """Set weights, optimiser, generator and scores as a checkpoint has them.

        Raises:
            TrainingError: it has another config or architecture.
        """
        if progress["config"] != self.config.model_dump_json():
            raise TrainingError(
                "the run's config has changed since its checkpoint: give the new config another "
                "`name`, or start it again without --resume"
            )
        load_weights(self.average, progress["weights"], "the checkpoint")
        load_weights(self.network, progress["live"], "the checkpoint")
        self.optimizer.load_state_dict(progress["optimizer"])
        self.generator.set_state(progress["generator"])
        self.i_step, self.loss = progress["step"], list(progress["loss"])
        self.scores = [(step, score) for step, score in progress["scores"]]
