"""Loss and R2 for normalised outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
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


def r2_score(decoded: npt.NDArray[np.floating], actual: npt.NDArray[np.floating]) -> list[float]:
    """R2 = 1 - SSE/SST per dimension, SST about the scored rows' mean.

    Args:
        decoded: (n, dims).
        actual: (n, dims), NaN where not scored.

    Returns:
        One number per dimension; NaN where the behaviour does not vary.
    """
    known = np.isfinite(actual).all(axis=1)
    wanted, given = actual[known].astype(np.float64), decoded[known].astype(np.float64)
    if len(wanted) < 2:
        return [float("nan")] * actual.shape[1]
    sse = np.square(given - wanted).sum(axis=0)
    sst = np.square(wanted - wanted.mean(axis=0)).sum(axis=0)
    return [float(1 - e / t) if t > 0 else float("nan") for e, t in zip(sse, sst, strict=True)]


def accuracy(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.floating]) -> float:
    """Share of bins with the right class as the most probable one."""
    known = np.isfinite(labels)
    if not known.any():
        return float("nan")
    return float((logits[known].argmax(axis=-1) == labels[known]).mean())
