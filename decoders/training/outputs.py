"""Outputs that a decoder learns: their scale and loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from decoders.errors import TrainingError
from decoders.training.output_columns import OutputColumns
from decoders.training.recordings import Recording


def normalisation(
    recordings: Sequence[Recording], outputs: Sequence[OutputColumns]
) -> tuple[Tensor, Tensor]:
    """Each output's target mean and standard deviation in the train parts; 0 and 1 for classes.

    Synthetic sessions are left out, because their behaviour is rotated.

    Raises:
        TrainingError: a behaviour never changes.
    """
    recordings = [recording for recording in recordings if not recording.synthetic]
    offsets: list[np.ndarray] = []
    scales: list[np.ndarray] = []
    for out in outputs:
        if out.classes:
            offsets.append(np.zeros(out.answer.stop - out.answer.start))
            scales.append(np.ones(out.answer.stop - out.answer.start))
            continue
        parts = [r.targets[:, r.train.first : r.train.last, out.target] for r in recordings]
        values = np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts])
        offsets.append(np.asarray(np.nanmean(values, axis=0, dtype=np.float64)))
        scales.append(np.asarray(np.nanstd(values, axis=0, dtype=np.float64)))
        if not (scales[-1] > 0).all():
            raise TrainingError(
                f"the behaviour of output {out.name!r} never changes in the train parts: "
                "nothing to learn; is it the right one?"
            )
    joined = [torch.from_numpy(np.concatenate(part)).float() for part in (offsets, scales)]
    return joined[0], joined[1]


def loss_sums(
    answer: Tensor, target: Tensor, offset: Tensor, scale: Tensor, outputs: Sequence[OutputColumns]
) -> Tensor:
    """Summed loss per output.

    Args:
        answer: (B, T, n_dims) normalised.
        target: (B, T, n_columns) physical, NaN where nothing is scored.
        offset: (n_dims,), normalisation.
        scale: (n_dims,).
        outputs: which columns are what.

    Returns:
        (n_outputs,).
    """
    sums = []
    for out in outputs:
        wanted, given = target[..., out.target], answer[..., out.answer]
        known = torch.isfinite(wanted).all(dim=-1)
        if out.classes:
            labels = wanted[known].squeeze(-1).long()
            sums.append(functional.cross_entropy(given[known], labels, reduction="sum"))
        else:
            normed = (wanted - offset[out.answer]) / scale[out.answer]
            error = torch.where(known.unsqueeze(-1), given - normed, 0.0)
            sums.append(error.square().mean(dim=-1).sum())
    return torch.stack(sums)


def n_scored(target: Tensor, outputs: Sequence[OutputColumns]) -> Tensor:
    """(n_outputs,) how many bins each output is scored on."""
    return torch.stack(
        [torch.isfinite(target[..., out.target]).all(dim=-1).sum() for out in outputs]
    )
