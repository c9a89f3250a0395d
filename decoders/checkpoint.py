"""A training on disk: everything that a run needs to go on bit-exactly, and what export reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from decoders.errors import TrainingError
from decoders.streaming.decoder import StreamingConfig
from streams.files import written_whole

FORMAT = 1
FAMILY = "streaming"
POYO = "poyo"
FAMILIES = (FAMILY, POYO)
NEEDED = ("format", "family", "network", "config", "sessions", "weights", "step")


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all; every value is a tensor or plain JSON types.

    Args:
        path: the file.
        content: with a `family` of its own where it is not a streaming decoder's.
    """
    with written_whole(path) as beside:
        torch.save({"format": FORMAT, "family": FAMILY, **content}, beside)


def load_checkpoint(path: Path, family: str | None = FAMILY) -> dict[str, Any]:
    """Read a checkpoint.

    Args:
        path: the file.
        family: that it must be of; any of `FAMILIES` if None.

    Raises:
        TrainingError: missing, not a checkpoint, or one of another architecture or version.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(f"no checkpoint {path}: has `spikeloop train` run there?") from error
    except UnpicklingError as error:
        raise TrainingError(f"{path} holds more than tensors and numbers: {error}") from error
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        raise TrainingError(f"{path} is not a readable checkpoint: {error}") from error
    _require_ours(path, content, FAMILIES if family is None else (family,))
    checkpoint: dict[str, Any] = content
    return checkpoint


def _require_ours(path: Path, content: Any, families: Sequence[str]) -> None:
    family = content.get("family", "another program's") if isinstance(content, dict) else "no"
    if family not in families:
        wanted = " or ".join(repr(one) for one in families)
        raise TrainingError(
            f"{path} is {family} checkpoint, not one of `spikeloop train`'s {wanted} family"
        )
    missing = [key for key in NEEDED if key not in content]
    if missing or content["format"] != FORMAT:
        raise TrainingError(
            f"{path}: format {content.get('format')}, missing keys {missing or 'none'}; "
            f"this version reads format {FORMAT}: train again"
        )


def restore_learner(
    progress: dict[str, Any],
    config: str,
    average: nn.Module,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> None:
    """Bring what learns, of either family, to where a checkpoint left it.

    Args:
        progress: of the checkpoint.
        config: of the run, as JSON; that of the checkpoint must be the same.
        average: network with the averaged weights.
        network: with the live ones.
        optimizer: of the live ones.
        generator: of every draw.

    Raises:
        TrainingError: it is of another config or architecture.
    """
    if progress["config"] != config:
        raise TrainingError(
            "the run's config has changed since its checkpoint: give the new config another "
            "`name`, or start it again without --resume"
        )
    load_weights(average, progress["weights"], "the checkpoint")
    load_weights(network, progress["live"], "the checkpoint")
    optimizer.load_state_dict(progress["optimizer"])
    generator.set_state(progress["generator"])


def load_weights(module: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Copy weights into a module.

    Raises:
        TrainingError: names or shapes differ; the text says which.
    """
    own = {name: value for name, value in module.state_dict().items() if torch.is_tensor(value)}
    missing, foreign = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    reshaped = [k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape]
    if missing or foreign or reshaped:
        raise TrainingError(
            f"{source} is of another architecture: missing {missing[:5]}, unknown {foreign[:5]}, "
            f"other shapes {sorted(reshaped)[:5]}"
        )
    module.load_state_dict(weights)


def network_config(checkpoint: dict[str, Any]) -> StreamingConfig:
    """The shape of the checkpoint's decoder."""
    return StreamingConfig.from_dict(json.loads(checkpoint["network"]))
