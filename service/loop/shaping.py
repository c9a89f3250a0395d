"""From what the network says to what the task may use: shaping, and the safe value otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from export.manifest import Output

HOLD_MAX_S = 0.2
Values = dict[str, list[float | None] | None]


class Shaper:
    """Gain and smoothing of velocities, and each output's `safe` policy.

    Args:
        outputs: the bundle's outputs.
        gain: factor on outputs whose safe value is zero.
        smoothing: weight of the value before (0 none, towards 1 more), same outputs.
    """

    def __init__(
        self, outputs: Sequence[Output], gain: float = 1.0, smoothing: float = 0.0
    ) -> None:
        self.outputs = tuple(outputs)
        self.gain = gain
        self.smoothing = smoothing
        self._smooth: dict[str, np.ndarray] = {}
        self._last_ok: dict[str, tuple[float, list[float | None]]] = {}

    def fresh(self) -> Shaper:
        """The same shaping for another decoder of the same outputs."""
        return Shaper(self.outputs, self.gain, self.smoothing)

    def continue_from(self, before: Shaper) -> None:
        """Take over smoothing and held values, so that a swap makes no step of its own."""
        self._smooth, self._last_ok = dict(before._smooth), dict(before._last_ok)

    def shape(self, raw: Mapping[str, np.ndarray], t_s: float) -> Values:
        """The values of a decode that is `ok`, at `t_s`."""
        shaped: Values = {}
        for output in self.outputs:
            value = np.asarray(raw[output.name], dtype=np.float64)
            if output.safe == "zero":
                before = self._smooth.get(output.name, value)
                value = self.smoothing * before + (1.0 - self.smoothing) * value
                self._smooth[output.name] = value
                value = self.gain * value
            plain: list[float | None] = value.tolist()
            self._last_ok[output.name] = (t_s, plain)
            shaped[output.name] = plain
        return shaped

    def safe(self, t_s: float) -> Values:
        """The values of a decode that is not `ok`; smoothing begins anew after it."""
        self._smooth.clear()
        return {output.name: self._safe_value(output, t_s) for output in self.outputs}

    def _safe_value(self, output: Output, t_s: float) -> list[float | None] | None:
        if output.safe == "zero":
            return [0.0] * output.dims
        if output.safe == "hold" and output.name in self._last_ok:
            t_ok_s, value = self._last_ok[output.name]
            if t_s - t_ok_s <= HOLD_MAX_S:
                return value
        return None


def as_values(raw: Mapping[str, np.ndarray] | None, names: Sequence[str]) -> Values:
    """What the network said, with null for what is not finite."""
    if raw is None:
        return dict.fromkeys(names)
    return {
        name: [v if np.isfinite(v) else None for v in np.asarray(raw[name], np.float64).tolist()]
        for name in names
    }
