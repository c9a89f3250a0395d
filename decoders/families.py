"""Decoder families: one row each, with its training and its module for export.

The table in `export.graphs.runs` writes graphs; adaptation has the table in
`calibration.adaptation.families`. `docs/extending-families.md` adds a family step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from decoders.config import DEFAULT_FAMILY, TrainConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import nn

    from decoders.training.optimisation import Learner
    from decoders.training.recordings import Recording


class FamilyTrainer(Protocol):
    """A training at some step, as `spikeloop train` runs it."""

    learner: Learner

    @property
    def share_done(self) -> float:
        """From 0 to 1, where the training ends."""

    def step(self) -> float:
        """Take one gradient step, and return the loss."""

    def score(self) -> dict[str, dict[str, list[float]]]:
        """Score the test part, per session and output."""

    def summary(self) -> dict[str, Any]:
        """Sizes, for the metrics."""

    def progress(self) -> dict[str, Any]:
        """Content for a checkpoint."""

    def restore(self, progress: dict[str, Any]) -> None:
        """Go on from a checkpoint."""


NewTrainer = Callable[[TrainConfig, Path, "Sequence[Recording]", "Fabric"], FamilyTrainer]


@dataclass(frozen=True, slots=True)
class DecoderFamily:
    """One row in the table.

    Attributes:
        new_trainer: begins a training from a config, the folder that its paths are relative to,
            the recordings and the launched fabric.
        step_module: makes the module that a bundle runs, from the manifest's `training.config`;
            weights are loaded later. Its inputs and outputs are the graph's.
    """

    new_trainer: NewTrainer
    step_module: Callable[[Mapping[str, Any]], nn.Module]


def _streaming_trainer(
    config: TrainConfig, config_dir: Path, recordings: Sequence[Recording], fabric: Fabric
) -> FamilyTrainer:
    from decoders.streaming.trainer import Trainer, started

    return Trainer(config, recordings, fabric, started(config, config_dir, recordings))


def _streaming_step(config: Mapping[str, Any]) -> nn.Module:
    from decoders.streaming.shape import StreamingConfig
    from decoders.streaming.step import StepModule

    return StepModule(StreamingConfig.from_dict(config))


def _poyo_trainer(
    config: TrainConfig, config_dir: Path, recordings: Sequence[Recording], fabric: Fabric
) -> FamilyTrainer:
    from decoders.poyo.trainer import PoyoTrainer

    return PoyoTrainer(config, recordings, fabric)


def _poyo_step(config: Mapping[str, Any]) -> nn.Module:
    from decoders.poyo.step import step_from_config

    return step_from_config(config)


FAMILIES: dict[str, DecoderFamily] = {
    DEFAULT_FAMILY: DecoderFamily(_streaming_trainer, _streaming_step),
    "poyo": DecoderFamily(_poyo_trainer, _poyo_step),
}
