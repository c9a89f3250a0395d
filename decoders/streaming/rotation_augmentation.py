"""Profile augmentation: behaviour rotated about its mean, for units that nobody recorded.

A behaviour vector may be rotated or mirrored. A unit that followed it still does, with another
profile. A profile encoder trained on all of these cannot memorise single units, and learns as much
from few units as from many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from decoders.streaming.tuning import LAGS_S
from decoders.training.synthetic_sessions import LARGEST_ROTATED


class RotationAugmentation:
    """Rotate the vectors in profiles, and rotate the network's answers back.

    Args:
        dims: per output.
        classes: per output, whether it is discrete.
    """

    def __init__(self, dims: Sequence[int], classes: Sequence[bool]) -> None:
        self._in_profile: list[tuple[int, int]] = []
        self._in_answer: list[tuple[int, int]] = []
        i_profile = i_answer = 0
        for n, is_class in zip(dims, classes, strict=True):
            if not is_class and n <= LARGEST_ROTATED:
                self._in_profile += [(i_profile + i * n, n) for i in range(len(LAGS_S))]
                self._in_answer.append((i_answer, n))
            i_profile += n if is_class else len(LAGS_S) * n + 1
            i_answer += n

    def draw(self, generator: torch.Generator) -> dict[int, Tensor]:
        """Draw a random orthogonal matrix for each dimension count."""
        rotations = {}
        for n in sorted({n for _, n in self._in_answer}):
            basis, upper = torch.linalg.qr(torch.randn(n, n, generator=generator))
            rotations[n] = basis * torch.sign(torch.diagonal(upper))
        return rotations

    def profiles(self, profile: Tensor, rotations: Mapping[int, Tensor]) -> Tensor:
        """(..., P) profiles for the same units, with rotated behaviour."""
        return _rotated(profile, self._in_profile, rotations)

    def back(self, answer: Tensor, rotations: Mapping[int, Tensor]) -> Tensor:
        """(..., n_dims) answers for rotated behaviour, rotated back."""
        return _rotated(answer, self._in_answer, {n: r.T for n, r in rotations.items()})


def _rotated(
    values: Tensor, places: Sequence[tuple[int, int]], rotations: Mapping[int, Tensor]
) -> Tensor:
    rotated = values.clone()
    for first, n in places:
        part = slice(first, first + n)
        rotated[..., part] = values[..., part] @ rotations[n].T.to(values.device)
    return rotated
