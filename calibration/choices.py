"""A decoder's training data, and so what is read to judge or adapt it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibration.errors import CalibrationError
from decoders.config import Split, load_sessions, parse_sessions, written_out
from decoders.errors import DecodersError
from decoders.training.reading import is_held_out
from export.bundle import DecoderBundle
from streams.messages import Int32s
from streams.sessions.choice import SessionChoice

USUAL_SPLIT = "last:0.2"


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """The behaviour that an output estimates.

    Attributes:
        output: its name.
        behavior: signal it follows, by NWB path.
        unit: physical unit.
        dims: how many numbers.
        is_velocity: whether its safe value is zero.
        lag_s: the output estimates behaviour so long after the decode's time.
        classes: how many classes; 0 for a continuous output.
        is_stated: whether the bundle names the behaviour.
    """

    output: str
    behavior: str
    unit: str
    dims: int
    is_velocity: bool = False
    lag_s: float = 0.0
    classes: int = 0
    is_stated: bool = True


def target_specs(bundle: DecoderBundle) -> list[TargetSpec]:
    """Read what each output was trained on; its own name where the bundle does not say."""
    choices = {choice["name"]: choice for choice in training_recipe(bundle).get("outputs", [])}
    specs = []
    for output in bundle.manifest.outputs:
        choice = choices.get(output.name, {})
        specs.append(
            TargetSpec(
                output=output.name,
                behavior=choice.get("behavior", output.name),
                unit=output.unit,
                dims=output.dims,
                is_velocity=output.safe == "zero",
                lag_s=choice.get("lag_s", 0.0),
                classes=choice.get("classes", 0),
                is_stated=bool(choice),
            )
        )
    return specs


def choice_of(
    bundle: DecoderBundle, config: Path | None = None, *, to_learn: bool = False
) -> SessionChoice:
    """Say what to read to score a decoder: as in its training, or as a file says.

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
            told = parse_sessions(training_recipe(bundle).get("sessions", {}), source)
    except DecodersError as error:
        raise CalibrationError(str(error)) from error
    choice = told.choice([target.behavior for target in target_specs(bundle)])
    is_for_training = told.mask_for == "train" and not to_learn
    return choice.model_copy(update={"mask": ""}) if is_for_training else choice


def split_of(bundle: DecoderBundle, path: Path) -> str:
    """The part that is scored if nobody says, by the training's split.

    Where that was by trials, its test trials; where it was by files, all of one that was held out;
    else the last fifth.
    """
    told = training_recipe(bundle).get("split", USUAL_SPLIT)
    split = written_out(told if isinstance(told, str) else Split.model_validate(told))
    if isinstance(split, Split) and split.test:
        return f"trials:{split.test}"
    return "all" if is_held_out(split, path) else USUAL_SPLIT


def training_recipe(bundle: DecoderBundle) -> dict[str, Any]:
    """The recipe of a decoder's training; empty where it does not say."""
    recipe = bundle.manifest.training.get("recipe")
    return recipe if isinstance(recipe, dict) else {}


def rows_in(row_of_key: Mapping[str, int], keys: Sequence[str]) -> Int32s:
    """(U,) each unit's row in a decoder, -1 where it has none."""
    return np.array([row_of_key.get(key, -1) for key in keys], np.int32)
