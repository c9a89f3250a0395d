"""Targets and parts of a recording to judge or adapt a decoder with, as in its training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calibration.errors import CalibrationError
from decoders.config import load_sessions, parse_sessions
from decoders.errors import DecodersError
from decoders.sessions_config import Split, written_out
from decoders.training.reading import is_held_out
from export.bundle import DecoderBundle
from streams.sessions.choice import SessionChoice

USUAL_SPLIT = "last:0.2"


@dataclass(frozen=True, slots=True)
class Aim:
    """Behaviour that an output estimates, by NWB path, `lag_s` after the decode's time."""

    behavior: str
    lag_s: float = 0.0
    classes: int = 0


def aims_of(bundle: DecoderBundle) -> dict[str, Aim]:
    """Read what each output was trained on; its own name where the bundle does not say."""
    aims = {output.name: Aim(output.name) for output in bundle.manifest.outputs}
    for choice in _recipe(bundle).get("outputs", []):
        aims[choice["name"]] = Aim(choice["behavior"], choice["lag_s"], choice["classes"])
    return aims


def choice_of(
    bundle: DecoderBundle, config: Path | None = None, *, to_learn: bool = False
) -> SessionChoice:
    """Choose what to read from a recording, as in the training or as a file says.

    Args:
        bundle: the decoder.
        config: a TOML file with `[sessions]`, for example a training config.
        to_learn: whether it is also learnt from, so that a mask for training alone holds too.

    Raises:
        CalibrationError: neither can be understood.
    """
    try:
        if config is not None:
            told = load_sessions(config)
        else:
            source = f"`training.recipe` of {bundle.manifest.name!r}"
            told = parse_sessions(_recipe(bundle).get("sessions", {}), source)
    except DecodersError as error:
        raise CalibrationError(str(error)) from error
    choice = told.choice([aim.behavior for aim in aims_of(bundle).values()])
    return replace(choice, mask="") if told.mask_for == "train" and not to_learn else choice


def split_of(bundle: DecoderBundle, path: Path) -> str:
    """Choose the scored part of a file by the training's split.

    Where that was by trials, its test trials; where it was by files, all of one that was held out;
    else the last fifth.
    """
    told = _recipe(bundle).get("split", USUAL_SPLIT)
    split = written_out(told if isinstance(told, str) else Split.model_validate(told))
    if isinstance(split, Split) and split.test:
        return f"trials:{split.test}"
    return "all" if is_held_out(split, path) else USUAL_SPLIT


def _recipe(bundle: DecoderBundle) -> dict[str, Any]:
    recipe = bundle.manifest.training.get("recipe")
    return recipe if isinstance(recipe, dict) else {}
