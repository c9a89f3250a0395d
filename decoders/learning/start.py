"""Begin a training from an earlier run: its decoder, and embeddings for the units it knows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from decoders.checkpoint import load_weights
from decoders.errors import TrainingError
from decoders.learning.recordings import Recording
from decoders.streaming.network import SessionNetwork


def start_from(
    network: SessionNetwork,
    recordings: Sequence[Recording],
    checkpoint: Mapping[str, Any],
    *,
    same_array: bool,
    freeze: bool,
) -> None:
    """Copy an earlier run's decoder into a network, and start its embeddings there.

    A unit starts from the embedding that its key had in the latest earlier session, where the
    array is the same and the key is known; any other from what its profile tells. A session vector
    starts from the mean of the earlier ones.

    Args:
        network: of the new sessions.
        recordings: the new sessions.
        checkpoint: of the earlier run.
        same_array: whether a key names the same channel as it did there.
        freeze: whether the decoder is to stay as it is.

    Raises:
        TrainingError: the earlier run's decoder has another shape.
    """
    if json.loads(checkpoint["network"]) | {"sink": 0} != network.shape | {"sink": 0}:
        raise TrainingError(
            f"[start] run has a decoder of another shape, {checkpoint['network']}: "
            "give the same [beat], [[outputs]] and [network]"
        )
    weights: dict[str, Tensor] = checkpoint["weights"]
    for prefix, module in (("decoder.", network.decoder), ("identity.", network.identity)):
        held = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        load_weights(module, held, "[start] run")
    known = network.identity(weights["profile"]) + weights["own"]
    known = known + weights["shared"][weights["key_of_row"]]
    latest = _latest_rows(json.loads(checkpoint["sessions"]), known) if same_array else {}
    keys = [key for recording in recordings for key in recording.unit_keys]
    with torch.no_grad():
        told = network.identity(network.profile)
        for i, (key, number) in enumerate(zip(keys, network.key_of_row.tolist(), strict=True)):
            network.shared[number] = latest.get(key, told[i]) - told[i]
        network.session.copy_(weights["session"].mean(dim=0).expand_as(network.session))
    network.decoder.requires_grad_(not freeze)
    network.identity.requires_grad_(not freeze)


def _latest_rows(sessions: Sequence[Mapping[str, Any]], rows: Tensor) -> dict[str, Tensor]:
    keys = [key for session in sessions for key in session["unit_keys"]]
    return dict(zip(keys, rows, strict=True))
