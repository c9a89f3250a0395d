"""What the base decoder is trained to follow: its continuous outputs and their behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from calibration.wizard.errors import BUNDLE, WizardError
from export.bundle import DecoderBundle


@dataclass(frozen=True, slots=True)
class Aim:
    """One output.

    Attributes:
        output: its name.
        behavior: the signal that it follows.
        unit: of it.
        dims: how many numbers.
        is_velocity: whether it is shaped as one: its safe value is zero.
    """

    output: str
    behavior: str
    unit: str
    dims: int
    is_velocity: bool


def rates_of(bundle: DecoderBundle) -> dict[str, float]:
    """Spikes/s of each unit when the decoder was made; empty where it does not say."""
    rates: Any = bundle.manifest.training.get("unit_rates_hz")
    return dict(rates) if isinstance(rates, dict) else {}


def aims_of(bundle: DecoderBundle) -> list[Aim]:
    """The continuous outputs.

    Raises:
        WizardError: the bundle does not say what it was trained on, or has none.
    """
    recipe: Any = bundle.manifest.training.get("recipe")
    choices = recipe.get("outputs", []) if isinstance(recipe, dict) else []
    named = {one["name"]: one for one in choices if not one.get("classes")}
    aims = [
        Aim(
            output.name,
            named[output.name]["behavior"],
            output.unit,
            output.dims,
            output.safe == "zero",
        )
        for output in bundle.manifest.outputs
        if output.name in named
    ]
    if not aims:
        raise WizardError(
            f"decoder {bundle.manifest.name!r} does not say which behaviour its outputs follow, so "
            "it cannot be calibrated; name another under [calibration] base",
            BUNDLE,
        )
    return aims
