"""Begin a training with an earlier run's decoder and unit embeddings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from decoders.checkpoint import CHECKPOINT, load_checkpoint, load_weights
from decoders.config import TrainConfig
from decoders.errors import TrainingError
from decoders.streaming.network import SessionNetwork
from decoders.streaming.trainer import new_network
from decoders.training.recordings import Recording


def started(
    config: TrainConfig, config_dir: Path, recordings: Sequence[Recording]
) -> SessionNetwork | None:
    """Network to go on with; None where the config names no earlier run."""
    if config.start is None:
        return None
    checkpoint = load_checkpoint(config_dir / config.start.run / CHECKPOINT)
    torch.manual_seed(config.seed)
    network = new_network(config, recordings)
    start_from(
        network,
        recordings,
        checkpoint,
        same_array=config.sessions.same_array,
        freeze=config.start.freeze,
    )
    return network


def start_from(
    network: SessionNetwork,
    recordings: Sequence[Recording],
    checkpoint: Mapping[str, Any],
    *,
    same_array: bool,
    freeze: bool,
) -> None:
    """Copy an earlier run's decoder into a network, and start its embeddings there.

    On the same array a unit with a known key starts from the key's embedding in the latest earlier
    session. Any other unit starts from its encoded profile. A session vector starts from the mean
    of the earlier ones.

    Args:
        network: for the new sessions.
        recordings: the new sessions.
        checkpoint: from the earlier run.
        same_array: whether a key names the same channel as it did there.
        freeze: whether the decoder stays as it is.

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
            # The embedding is a sum with the encoded profile, which is there already.
            network.shared[number] = latest.get(key, told[i]) - told[i]
        network.session.copy_(weights["session"].mean(dim=0).expand_as(network.session))
    network.decoder.requires_grad_(not freeze)
    network.identity.requires_grad_(not freeze)


def _latest_rows(sessions: Sequence[Mapping[str, Any]], rows: Tensor) -> dict[str, Tensor]:
    keys = [key for session in sessions for key in session["unit_keys"]]
    return dict(zip(keys, rows, strict=True))
