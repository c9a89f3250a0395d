"""Checkpoints: what a training needs to go on bit-exactly, and what export reads."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from decoders.config import DEFAULT_FAMILY
from decoders.errors import TrainingError
from streams.files import written_whole

CHECKPOINT = "checkpoint.pt"
"""Its name in the directory of a run."""
FORMAT = 1
NEEDED = ("format", "family", "network", "config", "sessions", "weights", "step")


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all.

    Args:
        path: the file.
        content: the keys in `NEEDED` but `format`, and more; tensors or plain JSON types.
    """
    with written_whole(path) as beside:
        torch.save({"format": FORMAT, **content}, beside)


def load_checkpoint(path: Path, family: str | None = DEFAULT_FAMILY) -> dict[str, Any]:
    """Read a checkpoint.

    Args:
        path: the file.
        family: the trained decoder's; any if None.

    Raises:
        TrainingError: missing, not a checkpoint, or another architecture or version.
    """
    try:
        # A checkpoint may come from anyone: tensors and numbers are read, code never runs.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(f"no checkpoint {path}: has `spikeloop train` run there?") from error
    except UnpicklingError as error:
        raise TrainingError(f"{path} holds more than tensors and numbers: {error}") from error
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        raise TrainingError(f"{path} is not a readable checkpoint: {error}") from error
    _require_ours(path, content, family)
    checkpoint: dict[str, Any] = content
    return checkpoint


def _require_ours(path: Path, content: Any, wanted: str | None) -> None:
    family = content.get("family") if isinstance(content, dict) else None
    if not isinstance(family, str) or wanted not in (None, family):
        what = "no" if not isinstance(content, dict) else family or "another program's"
        raise TrainingError(
            f"{path} is {what} checkpoint, not one of `spikeloop train`'s "
            f"{'families' if wanted is None else f'{wanted!r} family'}"
        )
    missing = [key for key in NEEDED if key not in content]
    if missing or content["format"] != FORMAT:
        raise TrainingError(
            f"{path}: format {content.get('format')}, missing keys {missing or 'none'}; "
            f"this version reads format {FORMAT}: train again"
        )


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
