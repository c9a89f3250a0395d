"""Outputs that a decoder learns: their columns in answers and targets.

This module does not import torch, because adaptation without torch reads it.
"""

from __future__ import annotations

from dataclasses import dataclass

from decoders.config import TrainConfig
from decoders.training.recordings import Recording


@dataclass(frozen=True, slots=True)
class OutputColumns:
    """One output as the loss sees it.

    Attributes:
        name: as in the config.
        answer: its columns in the network's answer.
        target: its columns in the targets.
        classes: whether the target is a class number.
        weight: in the loss.
    """

    name: str
    answer: slice
    target: slice
    classes: bool
    weight: float


def output_columns(config: TrainConfig, recording: Recording) -> list[OutputColumns]:
    """Give each output its columns in answers and targets."""
    columns, i_answer, i_target = [], 0, 0
    for out, dims in zip(config.outputs, recording.dims, strict=True):
        n_columns = 1 if out.classes else dims
        answer, target = slice(i_answer, i_answer + dims), slice(i_target, i_target + n_columns)
        columns.append(OutputColumns(out.name, answer, target, bool(out.classes), out.weight))
        i_answer, i_target = answer.stop, target.stop
    return columns
