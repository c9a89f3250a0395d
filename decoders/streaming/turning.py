"""Newcomers that are tuned as no unit of the training is: their world turned about its middle.

Behaviour that is a vector may be turned or mirrored: a unit that followed it still does, with
another profile. A map from profile to embedding that has met all of these cannot learn single
units by heart, and few units teach it as much as many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from decoders.streaming.tuning import LAGS_S

LARGEST_TURNED = 3
"""Vectors of more dimensions are left as they are: muscles do not stand in for each other."""


class Turning:
    """Where vectors stand in profiles and in the network's answers.

    Args:
        dims: of each output.
        classes: whether each output is of classes.
    """

    def __init__(self, dims: Sequence[int], classes: Sequence[bool]) -> None:
        self._in_profile: list[tuple[int, int]] = []
        self._in_answer: list[tuple[int, int]] = []
        i_profile = i_answer = 0
        for n, is_class in zip(dims, classes, strict=True):
            if not is_class and n <= LARGEST_TURNED:
                self._in_profile += [(i_profile + i * n, n) for i in range(len(LAGS_S))]
                self._in_answer.append((i_answer, n))
            i_profile += n if is_class else len(LAGS_S) * n + 1
            i_answer += n

    def draw(self, generator: torch.Generator) -> dict[int, Tensor]:
        """A random orthogonal matrix for each number of dimensions."""
        turns = {}
        for n in sorted({n for _, n in self._in_answer}):
            basis, upper = torch.linalg.qr(torch.randn(n, n, generator=generator))
            turns[n] = basis * torch.sign(torch.diagonal(upper))
        return turns

    def profiles(self, profile: Tensor, turns: Mapping[int, Tensor]) -> Tensor:
        """(..., P) profiles of the same units in the turned world."""
        return _turned(profile, self._in_profile, turns)

    def back(self, answer: Tensor, turns: Mapping[int, Tensor]) -> Tensor:
        """(..., n_dims) answers in the turned world -> in the world as it is."""
        return _turned(answer, self._in_answer, {n: turn.T for n, turn in turns.items()})


def _turned(
    values: Tensor, places: Sequence[tuple[int, int]], turns: Mapping[int, Tensor]
) -> Tensor:
    turned = values.clone()
    for first, n in places:
        part = slice(first, first + n)
        turned[..., part] = values[..., part] @ turns[n].T.to(values.device)
    return turned
