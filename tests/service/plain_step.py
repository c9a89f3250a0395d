"""A step of the shipped decoder in plain numpy: what the graph is held against, and timed against.

Written from the definition of the network, with the bundle's weights, and no thought of speed
beyond what numpy gives by itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import erf, expit

from export.bundle import DecoderBundle
from streams.messages import Float32s, TokenWindow

LEAD_SCALE_S = 0.1
EPSILON = 1e-5


class PlainStep:
    """Runs one bin a step and carries the memory.

    Args:
        bundle: of the family `streaming`, one output.
    """

    def __init__(self, bundle: DecoderBundle) -> None:
        self._w: dict[str, np.ndarray] = {
            name.removeprefix("decoder."): value for name, value in bundle.weights().items()
        }
        self._tables = bundle.tables
        self._n_latents = len(self._w["encoder.log_sink"])
        self._n_basis = len(self._w["encoder.frequencies"])
        self._n_value = len(self._w["encoder.to_value.bias"])
        self.memory = np.zeros((1, self._w["gru.weight_hh_l0"].shape[1]), np.float32)

    def step(self, window: TokenWindow, lead_s: float) -> Float32s:
        """(dims,) in physical units."""
        w = self._w
        x = self._linear("mix", (self._pooled(window) - self._tables["centre"]) * w["pooled_gain"])
        x = x + self._geglu("mix_geglu", self._norm("mix_norm", x))
        self.memory = self._gru(x[None])
        lead = np.array([lead_s / LEAD_SCALE_S], np.float32)
        lead = self._linear("lead_narrow", np.tanh(self._linear("lead_widen", lead)))
        query = self._linear("query", self._norm("memory_norm", self.memory[0]))
        query = query + self._tables["session"] + lead
        answer = self._linear("readout", query + self._geglu("readout_geglu", query))
        physical: Float32s = answer * w["scale"] + w["offset"]
        return physical

    def _pooled(self, window: TokenWindow) -> np.ndarray:
        w, rows = self._w, self._tables["table"][window.unit]
        basis = np.cos(window.t_rel[:, None] * w["encoder.frequencies"] + w["encoder.shifts"])
        coefficients = rows[:, self._n_value + 1 :].reshape(-1, self._n_basis, self._n_latents)
        logit = (coefficients * basis[:, :, None]).sum(axis=1)
        weights = np.exp(logit) * window.count[:, None]
        sums = weights.T @ rows[:, : self._n_value + 1]
        mass = sums[:, -1:] + np.exp(w["encoder.log_sink"])[:, None]
        return (sums / mass).ravel()

    def _gru(self, x: np.ndarray) -> np.ndarray:
        w, width = self._w, self.memory.shape[1]
        from_x = x @ w["gru.weight_ih_l0"].T + w["gru.bias_ih_l0"]
        from_memory = self.memory @ w["gru.weight_hh_l0"].T + w["gru.bias_hh_l0"]
        gates = expit(from_x[:, : 2 * width] + from_memory[:, : 2 * width])
        new = np.tanh(from_x[:, 2 * width :] + gates[:, :width] * from_memory[:, 2 * width :])
        return new + gates[:, width:] * (self.memory - new)

    def _linear(self, name: str, x: np.ndarray) -> Any:
        return x @ self._w[f"{name}.weight"].T + self._w[f"{name}.bias"]

    def _geglu(self, name: str, x: np.ndarray) -> Any:
        value, gate = np.split(self._linear(f"{name}.widen", x), 2)
        gelu = 0.5 * gate * (1 + erf(gate / np.sqrt(2, dtype=np.float32)))
        return self._linear(f"{name}.narrow", value * gelu)

    def _norm(self, name: str, x: np.ndarray) -> Any:
        away = x - x.mean()
        return (
            away / np.sqrt((away**2).mean() + EPSILON) * self._w[f"{name}.weight"]
            + self._w[f"{name}.bias"]
        )
