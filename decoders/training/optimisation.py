"""Parts in a training step that every family shares."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from decoders.config import TrainConfig
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


def finite_loss(fabric: Fabric, loss: Tensor, i_step: int, section: str) -> float:
    """Loss over all processes.

    Raises:
        TrainingError: it is not finite; the config's `section` holds the learning rate.
    """
    value = float(over_processes(fabric, loss))
    if not math.isfinite(value):
        raise TrainingError(
            f"the loss is {value} at step {i_step}: lower [{section}] learning_rate, "
            "or look for non-finite behaviour"
        )
    return value


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, i_step: int, most: float) -> None:
    """Move averaged weights towards the live ones, faster in the first steps."""
    # The first weights are random: an average must forget them fast.
    share = min(most, (1 + i_step) / (10 + i_step))
    for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
        slow.lerp_(fast, 1.0 - share)
