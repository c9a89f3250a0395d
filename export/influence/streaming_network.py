"""The streaming decoder in numpy, over many bins at once, and its gradient.

It repeats the algebra of `decoders.streaming.step`, as the compiled kernel does. A test holds it
against the bundle's parity record. The gradient is what no exported graph gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from decoders.streaming import drift, linear_filter
from decoders.streaming.lead import LEAD_SCALE_S
from export.influence.layers import Geglu, Linear, Normalised, normalised, times
from export.influence.spike_train import Bins
from streams.messages import Float32s

_N_MOMENTS = 8


@dataclass(slots=True)
class Trace:
    """Many bins as the network went through them; T bins.

    Attributes:
        latents: (T, n_latents, d_value + 1).
        mass: (T, n_latents) summed weights, the sink included.
        mix_hat: (T, d_model) normalised input of the mix.
        mix_scale: (T, 1) factor of that normalisation.
        mix_slopes: (T, 2, d_model) derivatives from `Geglu.run`.
        gates: (T, 3, d_memory) reset, update, new.
        from_memory: (T, d_memory) the memory's share of the new gate, before the reset.
        memory: (T + 1, d_memory) before and after each bin.
    """

    latents: Float32s
    mass: Float32s
    mix_hat: Float32s
    mix_scale: Float32s
    mix_slopes: Float32s
    gates: Float32s
    from_memory: Float32s
    memory: Float32s

    def __len__(self) -> int:
        return len(self.mass)

    def joined(self, later: Trace) -> Trace:
        """Append bins that follow."""
        pairs = {f.name: (getattr(self, f.name), getattr(later, f.name)) for f in fields(Trace)}
        pairs["memory"] = (self.memory[:-1], later.memory)
        return Trace(**{name: np.concatenate(pair) for name, pair in pairs.items()})

    def last(self, n: int) -> Trace:
        """Keep the last bins alone."""
        first = max(0, len(self) - n)
        return Trace(**{f.name: getattr(self, f.name)[first:] for f in fields(Trace)})


class StreamingNetwork:
    """Weights and tables of one bundle.

    Args:
        weights: of the decoder, by their names in `decoders.streaming`, without a prefix.
        tables: the bundle's.
        config: `training.config` of its manifest.
        lead_s: how far ahead the daemon decodes.
    """

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        tables: Mapping[str, np.ndarray],
        config: Mapping[str, Any],
        lead_s: float = 0.0,
    ) -> None:
        w = {name: np.asarray(value, np.float32) for name, value in weights.items()}

        def linear(name: str) -> Linear:
            return Linear(w[f"{name}.weight"], w[f"{name}.bias"])

        self.sink = np.exp(w["encoder.log_sink"])
        self._frequencies = w["encoder.frequencies"]
        self.n_latents = len(self.sink)
        table = np.asarray(tables["table"], np.float32)
        n_summed = w["mix.weight"].shape[1] // self.n_latents
        self.values = np.ascontiguousarray(table[:, :n_summed])
        self._coefficients = table[:, n_summed:].reshape(len(table), -1, self.n_latents)
        self._centre = np.asarray(tables["centre"], np.float32)
        self._mix = Linear(w["mix.weight"] * w["pooled_gain"], w["mix.bias"])
        self._mix_norm, self._memory_norm = linear("mix_norm"), linear("memory_norm")
        self._mix_geglu = Geglu(linear("mix_geglu.widen"), linear("mix_geglu.narrow"))
        self._input = Linear(w["gru.weight_ih_l0"], w["gru.bias_ih_l0"])
        self._recurrent = Linear(w["gru.weight_hh_l0"], w["gru.bias_hh_l0"])
        self.d_memory = self._recurrent.weight.shape[1]
        self._query = linear("query")
        lead = linear("lead_widen")(np.array([lead_s / LEAD_SCALE_S], np.float32))
        self._asks = np.asarray(tables["session"]) + linear("lead_narrow")(np.tanh(lead))
        self._readout_geglu = Geglu(linear("readout_geglu.widen"), linear("readout_geglu.narrow"))
        scale = w["scale"]
        readout = linear("readout")
        self._readout = Linear(readout.weight * scale[:, None], readout.bias * scale + w["offset"])
        self.n_dims = len(scale)
        self._classes = _class_parts(config["outputs"])
        counts = linear_filter.counts_at(lead_s, config.get("serves_to_s", 0.0))
        blend = np.asarray(tables.get("blend", np.zeros((2, self.n_dims))), np.float32)
        self._share_of_filter = counts * blend[0]
        self.taps = _taps(tables, config, counts, self.n_dims)
        self.n_pooled = len(self._centre)
        self._usual = np.asarray(tables.get("usual", np.zeros(self.n_pooled)), np.float32)
        self._follow = np.asarray(tables.get("follow", np.zeros(1)), np.float32)[0]
        self._largest_drift = drift.LARGEST / w["pooled_gain"]

    def token_weights(self, bins: Bins) -> Float32s:
        """(N, n_latents) weight of each token in each latent."""
        coefficients = self._coefficients[bins.unit]
        logit = coefficients[:, 0].copy()
        n_frequencies = (coefficients.shape[1] - 1) // 2
        for f in range(1, n_frequencies + 1):
            turned = (bins.t_rel * self._frequencies[f])[:, None]
            logit += coefficients[:, f] * np.cos(turned)
            logit += coefficients[:, n_frequencies + f] * np.sin(turned)
        weights: Float32s = np.exp(logit) * bins.count[:, None]
        return weights

    def usual_weights(self, bin_s: float) -> Float32s:
        """(n_rows, n_latents) weight of a spike in each latent, its mean over the bin."""
        rows = np.arange(len(self.values), dtype=np.int32)
        total = np.zeros((len(rows), self.n_latents), np.float32)
        ones = np.ones(len(rows), np.float32)
        for i in range(_N_MOMENTS):
            at = np.full(len(rows), (i + 0.5) * bin_s / _N_MOMENTS, np.float32)
            total += self.token_weights(Bins(rows, at, ones, np.array([0, len(rows)])))
        return total / np.float32(_N_MOMENTS)

    def run(self, bins: Bins, weights: Float32s, memory: Float32s, drifted: Float32s) -> Trace:
        """Run bins from a memory on.

        Args:
            bins: T of them.
            weights: (N, n_latents) from `token_weights`.
            memory: (d_memory,).
            drifted: (n_pooled,) drift of the latents; moved on by the bins.
        """
        latents, mass = self._pooled(bins, weights)
        away = latents.reshape(len(bins), -1) - self._centre
        self._without_drift(away, drifted)
        return self._followed(latents, mass, away, memory)

    def run_in_turn(
        self, others: Sequence[StreamingNetwork], turn: np.ndarray, bins: Bins
    ) -> Trace:
        """Run bins from an empty memory on, each by the tables of one of several networks.

        They differ in their tables alone, and follow no drift.

        Args:
            others: the networks.
            turn: (T,) the number of each bin's network.
            bins: T of them.
        """
        shape = (len(bins), self.n_latents, self.values.shape[1])
        latents, mass = np.zeros(shape, np.float32), np.zeros(shape[:2], np.float32)
        away = np.zeros((len(bins), self.n_pooled), np.float32)
        for i, other in enumerate(others):
            own = turn == i
            chosen = bins.of(own)
            latents[own], mass[own] = other._pooled(chosen, other.token_weights(chosen))
            away[own] = latents[own].reshape(-1, self.n_pooled) - other._centre
        return self._followed(latents, mass, away, np.zeros(self.d_memory, np.float32))

    def _pooled(self, bins: Bins, weights: Float32s) -> tuple[Float32s, Float32s]:
        """(T, n_latents, d_value + 1) latents, and (T, n_latents) summed weights."""
        sums = np.zeros((len(bins), self.n_latents, self.values.shape[1]), np.float32)
        for i in range(len(bins)):
            held = slice(bins.offsets[i], bins.offsets[i + 1])
            sums[i] = weights[held].T @ self.values[bins.unit[held]]
        mass = sums[:, :, -1] + self.sink
        return sums / mass[:, :, None], mass

    def _followed(
        self, latents: Float32s, mass: Float32s, away: Float32s, memory: Float32s
    ) -> Trace:
        """From latents, and (T, n_pooled) how far they are from their centre, to the memory."""
        x = self._mix(away)
        norm = normalised(self._mix_norm, x)
        mixed, mix_slopes = self._mix_geglu.run(norm.out)
        gates, from_memory, path = self._remembered(self._input(x + mixed), memory)
        return Trace(latents, mass, norm.hat, norm.scale, mix_slopes, gates, from_memory, path)

    def _without_drift(self, away: Float32s, drifted: Float32s) -> None:
        """Subtract the drift from (T, n_pooled) latents, and move it on, both in place."""
        if not self._follow:
            return
        for bin_away in away:
            seen = bin_away - self._usual
            bin_away -= np.clip(drifted, -self._largest_drift, self._largest_drift)
            drifted += self._follow * (seen - drifted)

    def _remembered(
        self, of_input: Float32s, memory: Float32s
    ) -> tuple[Float32s, Float32s, Float32s]:
        n, d = len(of_input), self.d_memory
        gates, from_memory = np.zeros((n, 3, d), np.float32), np.zeros((n, d), np.float32)
        path = np.zeros((n + 1, d), np.float32)
        path[0] = memory
        for i in range(n):
            of_memory = self._recurrent(path[i])
            both = 1.0 / (1.0 + np.exp(-(of_input[i, : 2 * d] + of_memory[: 2 * d])))
            from_memory[i] = of_memory[2 * d :]
            fresh = np.tanh(of_input[i, 2 * d :] + both[:d] * from_memory[i])
            gates[i, 0], gates[i, 1], gates[i, 2] = both[:d], both[d:], fresh
            path[i + 1] = fresh + both[d:] * (path[i] - fresh)
        return gates, from_memory, path

    def read(self, memory: Float32s) -> tuple[Float32s, Float32s]:
        """Answers from (B, d_memory), and their gradient.

        Returns:
            (B, n_dims) the network's in physical units, class logits as probabilities; and
            (B, n_dims, d_memory).
        """
        norm = normalised(self._memory_norm, memory)
        query = self._query(norm.out) + self._asks
        beside, slopes = self._readout_geglu.run(query)
        answer = self._readout(query + beside)
        each = np.broadcast_to(self._readout.weight, (len(memory), *self._readout.weight.shape))
        for part in self._classes:
            answer[:, part], each = _probabilities(answer[:, part], each, part)
        of_query = each + self._readout_geglu.back(slopes[:, None], each)
        of_norm = times(of_query, self._query.weight)
        wide = Normalised(norm.weight, norm.hat[:, None], norm.scale[:, None], norm.out)
        return answer, wide.back(of_norm)

    def gradient(self, trace: Trace, at: Sequence[int], n_back: int) -> Float32s:
        """Gradient of the answers after some bins in the latents of the bins before.

        Args:
            trace: the bins.
            at: B bins, each with `n_back` bins up to it in the trace.
            n_back: bins that are followed back, the newest included.

        Returns:
            (n_back, B, n_dims, n_latents, d_value + 1), the newest bin first.
        """
        ends = np.asarray(at)
        _, grad = self.read(trace.memory[ends + 1])
        grad = grad * (1.0 - self._share_of_filter)[:, None]
        of_input = np.zeros((n_back, len(ends), self.n_dims, 3, self.d_memory), np.float32)
        recurrent = self._recurrent.weight
        for i in range(n_back):
            now = ends - i
            reset, update, fresh = (trace.gates[now, g][:, None] for g in range(3))
            before = trace.memory[now][:, None]
            of_fresh = grad * (1.0 - update) * (1.0 - fresh * fresh)
            of_reset = of_fresh * trace.from_memory[now][:, None] * reset * (1.0 - reset)
            of_update = grad * (before - fresh) * update * (1.0 - update)
            of_input[i, :, :, 0], of_input[i, :, :, 1] = of_reset, of_update
            of_input[i, :, :, 2] = of_fresh
            of_gates = np.concatenate([of_reset, of_update, of_fresh * reset], axis=-1)
            grad = grad * update + times(of_gates, recurrent)
        bins = ends - np.arange(n_back)[:, None]
        return self._to_latents(trace, of_input.reshape(*of_input.shape[:3], -1), bins)

    def _to_latents(self, trace: Trace, of_input: Float32s, bins: np.ndarray) -> Float32s:
        """(n_back, B, n_dims, 3 d_memory) of the GRU's input, on to the latents."""
        grad = times(of_input, self._input.weight)
        slopes = trace.mix_slopes[bins][:, :, None]
        hat, scale = trace.mix_hat[bins][:, :, None], trace.mix_scale[bins][:, :, None]
        norm = Normalised(self._mix_norm.weight, hat, scale, hat)
        grad = grad + norm.back(self._mix_geglu.back(slopes, grad))
        to_latents = times(grad, self._mix.weight)
        found: Float32s = to_latents.reshape(*grad.shape[:3], self.n_latents, -1)
        return found


@dataclass(frozen=True, slots=True)
class Taps:
    """The linear filter beside the network, as far as a unit's spikes go.

    Attributes:
        rows: (n_taps, n_rows, n_dims) what a spike adds to a leaky sum.
        decay: (n_taps,) factor on each sum after a bin.
    """

    rows: Float32s
    decay: tuple[float, ...]

    def kernel(self, i_tap: int, n_back: int) -> Float32s:
        """(n_back,) share of a bin's spikes in the sum so many bins later."""
        decay = self.decay[i_tap]
        powers = np.power(np.float32(decay), np.arange(n_back, dtype=np.float32))
        kernel: Float32s = ((1.0 - decay) * powers).astype(np.float32)
        return kernel


def _taps(
    tables: Mapping[str, np.ndarray], config: Mapping[str, Any], counts: float, n_dims: int
) -> Taps | None:
    """None where there is no filter, or it does not count at this lead."""
    rows = tables.get("filter_rows")
    if rows is None or counts == 0.0 or not rows.any():
        return None
    decay = linear_filter.decays(config["taps_s"], config["bin_s"])
    shaped = (counts * rows).reshape(len(rows), len(decay), n_dims).transpose(1, 0, 2)
    return Taps(np.ascontiguousarray(shaped, np.float32), tuple(decay))


def _class_parts(outputs: Sequence[Mapping[str, Any]]) -> list[slice]:
    """Columns of the outputs that hold class probabilities."""
    parts, first = [], 0
    for output in outputs:
        if output["classes"]:
            parts.append(slice(first, first + output["dims"]))
        first += output["dims"]
    return parts


def _probabilities(logits: Float32s, each: Float32s, part: slice) -> tuple[Float32s, Float32s]:
    """Softmax of (B, n) logits, and (B, n_dims, d) gradients with those of the logits replaced."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    of_logits = each[:, part]
    mean = np.einsum("bn,bnd->bd", p, of_logits)[:, None]
    replaced = each.copy()
    replaced[:, part] = p[:, :, None] * (of_logits - mean)
    return p, replaced
