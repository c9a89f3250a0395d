"""Loss of normalised outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from decoders.training.outputs import OutputColumns


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
