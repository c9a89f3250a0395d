"""Layers of a network in numpy, with their gradients: (..., d) arrays of float32."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from streams.messages import Float32s

_EPSILON = 1e-5
_ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
_ERF_TURN = 0.3275911
"""Abramowitz and Stegun (1964), 7.1.26: an error of at most 1.5e-7, without a loop in Python."""


def times(x: Float32s, matrix: Float32s) -> Float32s:
    """(..., n) times (n, m), as one product: numpy takes one for each of the leading axes."""
    flat: Float32s = np.ascontiguousarray(x).reshape(-1, x.shape[-1]) @ matrix
    return flat.reshape(*x.shape[:-1], -1)


def _erf(x: Float32s, bell: Float32s) -> Float32s:
    """The error function, where exp(-x * x) is known."""
    t = 1.0 / (1.0 + _ERF_TURN * np.abs(x))
    series = np.zeros_like(t)
    for factor in _ERF:
        series = (series + factor) * t
    erf: Float32s = np.copysign(1.0 - series * bell, x)
    return erf


@dataclass(frozen=True, slots=True)
class Linear:
    """Weight (d_out, d_in) and bias (d_out,)."""

    weight: Float32s
    bias: Float32s

    def __call__(self, x: Float32s) -> Float32s:
        """(..., d_in) -> (..., d_out)."""
        out: Float32s = x @ self.weight.T + self.bias
        return out


@dataclass(frozen=True, slots=True)
class Normalised:
    """A layer normalisation, done, and what its gradient needs: (..., d) each."""

    weight: Float32s
    hat: Float32s
    scale: Float32s
    out: Float32s

    def back(self, grad: Float32s) -> Float32s:
        """Gradient in the input from (..., d) in the output."""
        of_hat = grad * self.weight
        along = (of_hat * self.hat).mean(axis=-1, keepdims=True)
        back: Float32s = self.scale * (
            of_hat - of_hat.mean(axis=-1, keepdims=True) - self.hat * along
        )
        return back


def normalised(layer: Linear, x: Float32s) -> Normalised:
    """Layer normalisation over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = 1.0 / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + _EPSILON)
    hat = centred * scale
    return Normalised(layer.weight, hat, scale, hat * layer.weight + layer.bias)


@dataclass(frozen=True, slots=True)
class Geglu:
    """`narrow(a * gelu(b))` with `a, b` the halves of `widen(x)`."""

    widen: Linear
    narrow: Linear

    def run(self, x: Float32s) -> tuple[Float32s, Float32s]:
        """(..., d_in) -> (..., d_out), and (..., 2, d_hidden): what each half's gradient is.

        The second is the derivative of `a * gelu(b)` in `a` and in `b`.
        """
        a, b = np.split(self.widen(x), 2, axis=-1)
        bell = np.exp(-0.5 * b * b)
        below = 0.5 * (1.0 + _erf(b * math.sqrt(0.5), bell))
        density = bell / math.sqrt(2.0 * math.pi)
        gelu = b * below
        slopes = np.stack([gelu, a * (below + b * density)], axis=-2)
        return self.narrow(a * gelu), slopes

    def back(self, slopes: Float32s, grad: Float32s) -> Float32s:
        """Gradient in the input from (..., d_out) in the output."""
        hidden = times(grad, self.narrow.weight)[..., None, :] * slopes
        return times(hidden.reshape(*hidden.shape[:-2], -1), self.widen.weight)
