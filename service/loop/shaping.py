"""Shape a decode's value, or replace it by the safe one if the decode is not `ok`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from export.manifest import Output

HOLD_MAX_S = 0.2
Values = dict[str, list[float | None] | None]


@dataclass(frozen=True, slots=True)
class Shaping:
    """Settings of the shaping, applied in this order; replaced as a whole while running.

    All but `bounds` act on outputs whose safe value is zero (velocities).

    Attributes:
        bias: subtracted, per dimension, in the output's unit; empty for none.
        smoothing: the previous value's weight, in [0, 1).
        speed_power: the speed is scaled by `(speed / speed_ref) ** (speed_power - 1)`: above 1,
            slow becomes slower and fast faster (Willett et al. 2018 discuss why).
        speed_ref: the speed that stays as it is, in the output's unit.
        gain: factor.
        max_speed: longer vectors are shortened to this; 0 for no limit.
        bounds: per output name, (low, high) for every dimension.
    """

    gain: float = 1.0
    smoothing: float = 0.0
    bias: tuple[float, ...] = ()
    speed_power: float = 1.0
    speed_ref: float = 1.0
    max_speed: float = 0.0
    bounds: Mapping[str, tuple[float, float]] | None = None

    def complaint(self, outputs: Sequence[Output]) -> str:
        """Return why these outputs cannot be shaped so; "" if they can."""
        velocities = [output for output in outputs if output.safe == "zero"]
        if self.bias and {output.dims for output in velocities} != {len(self.bias)}:
            told = ", ".join(f"{output.name} {output.dims}" for output in velocities)
            return f"bias has {len(self.bias)} numbers; dimensions of the velocities: {told or 0}"
        for output in velocities:
            for bias, low, high in zip(self.bias, output.low, output.high, strict=False):
                if abs(bias) > high - low:
                    return (
                        f"bias {bias:g} is larger than the range of {output.name!r}, "
                        f"{low:g} to {high:g} {output.unit}".rstrip()
                    )
        names = [output.name for output in outputs]
        strange = [name for name in self.bounds or () if name not in names]
        if strange:
            return f"bounds name {strange[0]!r}; the outputs are: {', '.join(names)}"
        return ""


class Shaper:
    """Shapes values and applies each output's `safe` policy.

    Args:
        outputs: the bundle's outputs.
        shaping: the settings; None for none.
    """

    def __init__(self, outputs: Sequence[Output], shaping: Shaping | None = None) -> None:
        self.outputs = tuple(outputs)
        self.shaping = shaping or Shaping()
        self._smooth: dict[str, list[float]] = {}
        self._last_ok: dict[str, tuple[float, list[float | None]]] = {}

    def use(self, shaping: Shaping) -> None:
        """Shape like this from now on."""
        self.shaping = shaping

    def fresh(self) -> Shaper:
        """Return a shaper with the same settings for another decoder with the same outputs."""
        return Shaper(self.outputs, self.shaping)

    @property
    def smooth(self) -> dict[str, list[float]]:
        """The values that smoothing goes on from, by output."""
        return dict(self._smooth)

    @property
    def last_ok(self) -> dict[str, tuple[float, list[float | None]]]:
        """The newest values that were `ok`, and when, by output."""
        return dict(self._last_ok)

    def resume(
        self,
        smooth: Mapping[str, list[float]],
        last_ok: Mapping[str, tuple[float, list[float | None]]],
    ) -> None:
        """Go on as a shaper that held these."""
        self._smooth, self._last_ok = dict(smooth), dict(last_ok)

    def continue_from(self, before: Shaper) -> None:
        """Take over shaping, smoothing and held values, so that a swap makes no step of its own."""
        self.shaping = before.shaping
        self._smooth, self._last_ok = dict(before._smooth), dict(before._last_ok)

    def shape(self, raw: Mapping[str, np.ndarray], t_s: float) -> Values | None:
        """Return an `ok` decode's values at `t_s`; None if one is not finite."""
        shaping, shaped = self.shaping, Values()
        for output in self.outputs:
            value: list[float] = raw[output.name].tolist()
            if output.safe == "zero":
                value = self._shape_velocity(output.name, value, shaping)
            if shaping.bounds and output.name in shaping.bounds:
                low, high = shaping.bounds[output.name]
                value = [min(max(v, low), high) for v in value]
            if not all(map(math.isfinite, value)):
                return None
            shaped[output.name] = [*value]
        for name, told in shaped.items():
            if told is not None:
                self._last_ok[name] = (t_s, told)
        return shaped

    def safe(self, t_s: float) -> Values:
        """Return the values when a decode is not `ok`; smoothing begins anew after it."""
        self._smooth.clear()
        return {output.name: self._safe_value(output, t_s) for output in self.outputs}

    def _shape_velocity(self, name: str, value: list[float], shaping: Shaping) -> list[float]:
        # Plain numbers: for two or three of them, arrays take five times as long.
        for i, bias in enumerate(shaping.bias[: len(value)]):
            value[i] -= bias
        before, kept = self._smooth.get(name, value), shaping.smoothing
        value = [kept * b + (1.0 - kept) * v for b, v in zip(before, value, strict=True)]
        self._smooth[name] = value
        speed = math.hypot(*value)
        factor, ratio = shaping.gain, speed / shaping.speed_ref
        if shaping.speed_power != 1.0 and ratio > 0.0:
            factor *= _power(ratio, shaping.speed_power - 1.0)
        if shaping.max_speed and speed * factor > shaping.max_speed:
            factor = shaping.max_speed / speed
        return [v * factor for v in value]

    def _safe_value(self, output: Output, t_s: float) -> list[float | None] | None:
        if output.safe == "zero":
            return [0.0] * output.dims
        if output.safe == "hold" and output.name in self._last_ok:
            t_ok_s, value = self._last_ok[output.name]
            if t_s - t_ok_s <= HOLD_MAX_S:
                return value
        return None


def _power(base: float, exponent: float) -> float:
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf


def as_values(raw: Mapping[str, np.ndarray] | None, names: Sequence[str]) -> Values:
    """Return the network's answer, with null where it is not finite."""
    if raw is None:
        return dict.fromkeys(names)
    return {name: [v if math.isfinite(v) else None for v in raw[name].tolist()] for name in names}
