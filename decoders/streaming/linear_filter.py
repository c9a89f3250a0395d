"""A linear filter beside the network: what today's labels tell of a unit that its profile does not.

A network that others' units taught reads what units have in common. How much one of them follows
behaviour, and when, is fitted from the same labelled seconds in closed form: a filter, worse than
the network, whose errors are others. A mean of both, mostly the network, is better than either.

The filter keeps leaky sums of the spikes; a spike adds its unit's row to them. It answers for the
present alone: the further ahead an estimate is asked for, the less it counts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

TAPS_S = (0.0, 0.1)
FADES_OVER_S = 0.1
LARGEST = 1.0


class LinearFilter(nn.Module):
    """Leaky sums of spikes, and what they add to the network's answer.

    Args:
        taps_s: time constant of each sum, seconds; 0 is the present bin alone.
        bin_s: length of a bin, seconds.
        n_dims: dimensions of all outputs together.
    """

    decay: Tensor

    def __init__(self, taps_s: tuple[float, ...], bin_s: float, n_dims: int) -> None:
        super().__init__()
        self.n_dims = n_dims
        decay = torch.tensor(decays(taps_s, bin_s)).repeat_interleave(n_dims)
        self.register_buffer("decay", decay, persistent=False)

    def remember(self, away: Tensor, memory: Tensor) -> Tensor:
        """The sums after a bin.

        Args:
            away: (1, n_sums) what its spikes add beyond what is usual, in the outputs' units.
            memory: (1, n_sums) the sums before.

        Returns:
            (1, n_sums).
        """
        return away + self.decay * (memory - away)

    def blended(
        self, answer: Tensor, memory: Tensor, blend: Tensor, lead_s: Tensor, scale: Tensor
    ) -> Tensor:
        """The network's answer and the filter's, mixed.

        Args:
            answer: (1, n_dims) the network's, in the outputs' units.
            memory: (1, n_sums).
            blend: (2, n_dims) by how much the filter counts, 0 to 1, and what it says at rest.
            lead_s: (1,) how far ahead the answer is.
            scale: (n_dims,) standard deviations of the outputs; a burst of spikes moves the answer
                by `LARGEST` of them at most.

        Returns:
            (1, n_dims).
        """
        told, *more = torch.split(memory, self.n_dims, dim=1)
        for part in more:
            told = told + part
        bound = LARGEST * scale
        told = torch.minimum(torch.maximum(told, -bound), bound)
        share, rest = torch.split(blend, 1, dim=0)
        present = torch.relu(1.0 - torch.abs(lead_s) / FADES_OVER_S)
        return answer + present * (share * (rest - answer) + told)


def decays(taps_s: tuple[float, ...], bin_s: float) -> list[float]:
    """What is left of each sum after a bin."""
    return [math.exp(-bin_s / tap_s) if tap_s > 0.0 else 0.0 for tap_s in taps_s]
