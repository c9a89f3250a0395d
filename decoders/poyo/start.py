"""Data-dependent start for a new POYO (as in arXiv 1511.06856).

With random weights the output of a cross-attention hardly differs between windows: thousands of
spikes average out, and the mean is some thirty times larger than the differences. Training then
spends its first hundreds of steps on a plateau. So the bias takes off the mean, and a gain makes
the differences comparable to what later layers add. Nothing else changes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from decoders.poyo.attention import CrossAttention
from decoders.poyo.network import Poyo
from decoders.poyo.tokens import PoyoBatch

ENCODED_SPREAD = 0.3


@torch.no_grad()
def centre_attention(network: Poyo, batch: PoyoBatch) -> None:
    """Set both cross-attentions' output projections by what they give for some windows.

    Args:
        network: new; its weights are changed.
        batch: training windows, tens of them.
    """
    was_training = network.training
    network.eval()
    given = _given(network, network.enc_atn, batch)
    spread = (given - given.mean(dim=0)).std()
    _shift_and_scale(network.enc_atn.to_out, given, ENCODED_SPREAD / float(spread.clamp(min=1e-9)))
    _shift_and_scale(network.dec_atn.to_out, _given(network, network.dec_atn, batch), 1.0)
    network.train(was_training)


def _given(network: Poyo, attention: CrossAttention, batch: PoyoBatch) -> Tensor:
    """(B, N, dim) what an attention adds."""
    found: list[Tensor] = []
    handle = attention.register_forward_hook(lambda module, inputs, answer: found.append(answer))
    network(batch)
    handle.remove()
    return found[0]


def _shift_and_scale(projection: nn.Linear, given: Tensor, gain: float) -> None:
    projection.bias.sub_(given.mean(dim=(0, 1))).mul_(gain)
    projection.weight.mul_(gain)
