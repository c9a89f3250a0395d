"""Fit a bundle to a FALCON task, or refuse it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from calibration.choices import rows_in, training_recipe
from calibration.errors import FalconError
from export.bundle import DecoderBundle
from streams.messages import Float32s, Float64s, Int32s
from streams.sessions.falcon import BIN_S, BIN_US, FalconTask, channel_keys

NEAR_S = 1e-6
MOST_UNKNOWN = 0.2
"""With more unknown units than this a live decode is `fault`."""


@dataclass(frozen=True, slots=True)
class FittedBundle:
    """A bundle that decodes a task.

    Attributes:
        bundle: the decoder.
        task: which task.
        outputs: the outputs that hold the task's dimensions, in the task's order.
        lead_s: what it is asked for, so that it estimates the sample that the benchmark scores.
    """

    bundle: DecoderBundle
    task: FalconTask
    outputs: tuple[str, ...]
    lead_s: float

    @property
    def bin_us(self) -> int:
        """The decoder's bin length."""
        return round(self.bundle.manifest.bin_s * 1e6)

    def value(self, answer: Any) -> Float64s:
        """(dims,) from a step's answer, in the task's order."""
        parts: list[Float32s] = [answer[name] for name in self.outputs]
        return np.concatenate(parts).astype(np.float64)

    def rows(self, n_channels: int) -> Int32s:
        """(n_channels,) each channel's row in the decoder, -1 where it does not know one.

        Raises:
            FalconError: it knows units that are no channel, or too few channels.
        """
        keys = channel_keys(n_channels)
        strange = [key for key in self.bundle.row_of_key if key not in keys]
        if strange:
            raise FalconError(
                f"decoder {self.bundle.manifest.name} reads unit {strange[0]} "
                f"({len(strange)} such), but FALCON's {n_channels} channels are {keys[0]} to "
                f'{keys[-1]}: train it with [sessions] falcon = "{self.task.name}"'
            )
        rows = rows_in(self.bundle.row_of_key, keys)
        if np.mean(rows < 0) > MOST_UNKNOWN:
            raise FalconError(
                f"decoder {self.bundle.manifest.name} knows {np.count_nonzero(rows >= 0)} of "
                f'{n_channels} channels: train it with [sessions] falcon = "{self.task.name}"'
            )
        return rows


def fit_bundle(bundle: DecoderBundle, task: FalconTask) -> FittedBundle:
    """Hold a bundle against a task.

    Raises:
        FalconError: its hop, bin, outputs or lead are not the task's; the text says what to train.
    """
    manifest = bundle.manifest
    _require_beat(bundle)
    names, lag_s = _outputs(bundle, task)
    wanted_s = 0.0 if _read_as(bundle) == task.name else task.lag_s
    lead_s = wanted_s - lag_s
    if not manifest.lead_s.min - NEAR_S <= lead_s <= manifest.lead_s.max + NEAR_S:
        raise FalconError(
            f"decoder {manifest.name} estimates the behaviour {lag_s * 1e3:+g} ms from its bin's "
            f"end, FALCON scores it at {wanted_s * 1e3:+g} ms: train it with lag_s = {wanted_s:g}"
        )
    return FittedBundle(bundle, task, names, float(np.clip(lead_s, *manifest.lead_s.ends)))


def reads_spike_times(bundle: DecoderBundle) -> bool:
    """Return True for a decoder trained on spike times, where counts tell less."""
    if _read_as(bundle):
        return False
    beat: Any = training_recipe(bundle).get("beat", {})
    shape: Any = bundle.manifest.training.get("config", {})
    return bool(beat.get("rotary", shape.get("n_frequencies", 1)))


def _read_as(bundle: DecoderBundle) -> str:
    """The task as whose files its recordings were read; "" for none."""
    read_as: str = training_recipe(bundle).get("sessions", {}).get("falcon", "")
    return read_as


def _require_beat(bundle: DecoderBundle) -> None:
    manifest = bundle.manifest
    if abs(manifest.hop_s - BIN_S) > NEAR_S:
        raise FalconError(
            f"decoder {manifest.name} has a hop of {manifest.hop_s * 1e3:g} ms, FALCON asks for a "
            "value every 20 ms: train it with [beat] hop_ms = 20"
        )
    if round(manifest.bin_s * 1e6) % BIN_US:
        raise FalconError(
            f"decoder {manifest.name} has bins of {manifest.bin_s * 1e3:g} ms, which FALCON's "
            "counts of 20 ms do not fill: train it with [beat] bin_ms = 20"
        )


def _outputs(bundle: DecoderBundle, task: FalconTask) -> tuple[tuple[str, ...], float]:
    """The task's outputs in its order, and their lag.

    A container's series are ordered by name, as HDF5 lists them.
    """
    manifest = bundle.manifest
    dims = {output.name: output.dims for output in manifest.outputs}
    choices = training_recipe(bundle).get("outputs") or [
        {"name": name, "behavior": task.behavior, "lag_s": task.lag_s} for name in dims
    ]
    found = sorted(
        (place, choice["name"], float(choice["lag_s"]))
        for choice in choices
        if not choice.get("classes")
        and (place := _place(choice["behavior"], task)) is not None
        and choice["name"] in dims
    )
    n_dims = sum(dims[name] for _, name, _ in found)
    if n_dims != task.dims or len({place for place, _, _ in found}) < len(found):
        told = ", ".join(f"{name} ({n})" for name, n in dims.items())
        raise FalconError(
            f"decoder {manifest.name} gives {told}; FALCON's task {task.name} asks for the "
            f"{task.dims} dimensions of {task.behavior}: train it with [[outputs]] "
            f'behavior = "{task.behavior}"'
        )
    if len({lag_s for _, _, lag_s in found}) > 1:
        raise FalconError(
            f"the outputs of decoder {manifest.name} have different lags, FALCON scores all at one "
            f"time: train them with lag_s = {task.lag_s:g}"
        )
    return tuple(name for _, name, _ in found), found[0][2]


def _place(behavior: str, task: FalconTask) -> str | None:
    """An output's place in the task's behaviour: "" for all; None if nowhere."""
    if task.behavior == behavior or task.behavior.endswith("/" + behavior):
        return ""
    holder, _, name = behavior.rpartition("/")
    if holder and (task.behavior == holder or task.behavior.endswith("/" + holder)):
        return name
    return None
