"""A bin of the streaming decoder as machine code: the algebra of its network, compiled by numba.

What a runtime of graphs does in some fifty calls, each fetched from memory anew after a wait, is
one loop after another here. Sums may be added up in any order; nothing else is assumed of the
numbers. It runs without the interpreter's lock, so opening a decoder delays no beat.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import float32, int32, int64, types

from streams.messages import Float32s, Int32s
from streams.spikes.kernels.compiler import compiled


class Sizes(NamedTuple):
    """The widths of a streaming decoder."""

    n_latents: int
    d_pooled: int
    d_model: int
    d_memory: int
    d_readout: int
    n_dims: int
    n_sums: int


def room_for(sizes: Sizes) -> Float32s:
    """Room for a bin's intermediate results, one behind another."""
    of_pool = sizes.d_pooled + 4 * sizes.d_model
    return np.zeros(of_pool + 4 * sizes.d_memory + 4 * sizes.d_readout, np.float32)


class Kept(NamedTuple):
    """Tokens and sums of the newest bin, so that one that begins alike need not begin anew.

    Attributes:
        unit, t_rel, counts: (room,) its tokens.
        sums: (d_pooled + n_sums,) over them: of the latents, and of the linear filter.
        n: (1,) how many tokens; 0 where nothing is kept.
    """

    unit: Int32s
    t_rel: Float32s
    counts: Float32s
    sums: Float32s
    n: np.ndarray


def room_to_keep(sizes: Sizes, n_tokens: int) -> Kept:
    """Room for so many tokens at most; nothing is kept."""
    t_rel, counts = np.zeros((2, n_tokens), np.float32)
    sums = np.zeros(sizes.d_pooled + sizes.n_sums, np.float32)
    return Kept(np.zeros(n_tokens, np.int32), t_rel, counts, sums, np.zeros(1, np.int64))


_EPSILON = np.float32(1e-5)
_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
_HALF_ROOT = np.float32(math.sqrt(0.5))
_LOWEST, _HIGHEST = np.float32(-87), np.float32(88)
_LOG2_E = np.float32(math.log2(math.e))
_LN_2 = np.float32(0.693359375)  # few bits: its whole multiples are exact
_LN_2_REST = np.float32(math.log(2) - 0.693359375)
# Added to a number below 2**22, it leaves the nearest whole number in the lowest bits.
_ROUNDING = np.float32(1.5 * 2**23)
_ROUNDING_BITS, _EXPONENT_OF_1, _MANTISSA_BITS = np.int32(0x4B400000), np.int32(127), np.int32(23)
# Of exp(r) = 1 + r + r**2 (A2 + r (A3 + ...)) for |r| <= ln(2) / 2, as in Cephes' expf.
_A2, _A3 = np.float32(5.0000001201e-1), np.float32(1.6666665459e-1)
_A4, _A5 = np.float32(4.1665795894e-2), np.float32(8.3334519073e-3)
_A6, _A7 = np.float32(1.3981999507e-3), np.float32(1.9875691500e-4)

_VECTOR, _MATRIX, _INDICES = float32[::1], float32[:, ::1], int32[::1]
_SIZES = types.NamedUniTuple(int64, len(Sizes._fields), Sizes)
_KEPT = types.NamedTuple((_INDICES, _VECTOR, _VECTOR, _VECTOR, int64[::1]), Kept)


@compiled(types.void(_VECTOR))
def _exponentials(x: Float32s) -> None:
    """exp(x) in place, to 1e-7 of it; bounded where float32 ends, NaN for NaN."""
    for i in range(len(x)):
        value = x[i]
        value = _LOWEST if value < _LOWEST else value
        value = _HIGHEST if value > _HIGHEST else value
        turned = np.float32(value * _LOG2_E + _ROUNDING)
        whole = turned - _ROUNDING
        r = (value - whole * _LN_2) - whole * _LN_2_REST
        tail = ((((_A7 * r + _A6) * r + _A5) * r + _A4) * r + _A3) * r + _A2
        exponent = turned.view(np.int32) - _ROUNDING_BITS + _EXPONENT_OF_1
        power = np.int32(exponent << _MANTISSA_BITS)
        x[i] = (tail * (r * r) + r + _ONE) * power.view(np.float32)


@compiled(types.void(_VECTOR))
def _sigmoids(x: Float32s) -> None:
    """1 / (1 + exp(-x)) in place."""
    for i in range(len(x)):
        x[i] = -x[i]
    _exponentials(x)
    for i in range(len(x)):
        x[i] = _ONE / (_ONE + x[i])


@compiled(int64(_VECTOR, int64, _VECTOR, _VECTOR), reordered=True)
def _apply(weights: Float32s, at: int, x: Float32s, out: Float32s) -> int:
    """`weight x + bias`, both from `at` on; where the next weights begin."""
    n = len(x)
    at_bias = at + len(out) * n
    for i in range(len(out)):
        row = weights[at + i * n : at + (i + 1) * n]
        total = _ZERO
        for j in range(n):
            total += row[j] * x[j]
        out[i] = total + weights[at_bias + i]
    return at_bias + len(out)


@compiled(int64(_VECTOR, int64, _VECTOR, _VECTOR), reordered=True)
def _normalise(weights: Float32s, at: int, x: Float32s, out: Float32s) -> int:
    """Layer normalisation by a weight and a bias; where the next weights begin."""
    n = np.float32(len(x))
    mean = _ZERO
    for i in range(len(x)):
        mean += x[i]
    mean /= n
    variance = _ZERO
    for i in range(len(x)):
        variance += (x[i] - mean) * (x[i] - mean)
    scale = _ONE / np.float32(math.sqrt(variance / n + _EPSILON))
    at_bias = at + len(x)
    for i in range(len(x)):
        out[i] = (x[i] - mean) * scale * weights[at + i] + weights[at_bias + i]
    return at_bias + len(x)


@compiled(int64(_VECTOR, int64, _VECTOR, _VECTOR, _VECTOR), reordered=True)
def _add_geglu(weights: Float32s, at: int, x: Float32s, wide: Float32s, onto: Float32s) -> int:
    """Add `narrow (a * gelu(b))` to `onto`, `a, b` the halves of `widen x`; the next weights."""
    at = _apply(weights, at, x, wide)
    n = len(wide) // 2
    for i in range(n):
        gate = wide[n + i]
        wide[i] *= _HALF * gate * (_ONE + np.float32(math.erf(gate * _HALF_ROOT)))
    narrowed = wide[n : n + len(onto)]  # the gates are done with
    at = _apply(weights, at, wide[:n], narrowed)
    for i in range(len(onto)):
        onto[i] += narrowed[i]
    return at


@compiled(types.void(_VECTOR, _VECTOR, _VECTOR, _VECTOR), reordered=True)
def _renew(of_input: Float32s, of_memory: Float32s, memory: Float32s, new: Float32s) -> None:
    """Update a GRU's memory; its gates are reset, update and new."""
    n = len(memory)
    for i in range(2 * n):
        of_input[i] += of_memory[i]
    _sigmoids(of_input[: 2 * n])
    for i in range(n):
        of_input[2 * n + i] = _TWO * (of_input[2 * n + i] + of_input[i] * of_memory[2 * n + i])
    _sigmoids(of_input[2 * n :])
    for i in range(n):
        fresh = _TWO * of_input[2 * n + i] - _ONE  # tanh(x) = 2 sigmoid(2 x) - 1
        new[i] = fresh + of_input[n + i] * (memory[i] - fresh)


@compiled(int64(_KEPT, _INDICES, _VECTOR, _VECTOR))
def _keep(kept: Kept, unit: Int32s, t_rel: Float32s, count: Float32s) -> int:
    """Keep a bin's tokens; return how many are summed already: all that were kept, or none."""
    first = kept.n[0] if kept.n[0] <= len(unit) else 0
    for i in range(first):
        if unit[i] != kept.unit[i] or t_rel[i] != kept.t_rel[i] or count[i] != kept.counts[i]:
            first = 0
            break
    for i in range(first, len(unit)):
        kept.unit[i], kept.t_rel[i], kept.counts[i] = unit[i], t_rel[i], count[i]
    kept.n[0] = len(unit)
    return first


@compiled(
    types.void(int64, _INDICES, _VECTOR, _VECTOR, _MATRIX, float32, int64, _VECTOR, _VECTOR),
    reordered=True,
)
def _sum_over_tokens(
    first: int,
    unit: Int32s,
    t_rel: Float32s,
    count: Float32s,
    table: Float32s,
    turn_hz: np.float32,
    n_latents: int,
    weight_of_token: Float32s,
    sums: Float32s,
) -> None:
    """Per latent add weight times value, and weights, of the tokens from `first` on.

    One after the other: the (n_latents * (d_value + 1),) sums are those over all tokens at once.
    """
    n_summed = len(sums) // n_latents
    n_frequencies = ((table.shape[1] - n_summed) // n_latents - 1) // 2
    for i in range(first, len(unit)):
        row, logits = table[unit[i]], weight_of_token[i * n_latents : (i + 1) * n_latents]
        for k in range(n_latents):
            logits[k] = row[n_summed + k]
        once_cos, once_sin = math.cos(turn_hz * t_rel[i]), math.sin(turn_hz * t_rel[i])
        cos, sin = once_cos, once_sin
        for f in range(1, n_frequencies + 1):
            of_cos = row[n_summed + f * n_latents : n_summed + (f + 1) * n_latents]
            of_sin = row[n_summed + (n_frequencies + f) * n_latents :]
            for k in range(n_latents):
                logits[k] += of_cos[k] * np.float32(cos) + of_sin[k] * np.float32(sin)
            cos, sin = cos * once_cos - sin * once_sin, sin * once_cos + cos * once_sin
    _exponentials(weight_of_token[first * n_latents : len(unit) * n_latents])
    for i in range(first, len(unit)):
        row = table[unit[i]]
        for k in range(n_latents):
            weight = weight_of_token[i * n_latents + k] * count[i]
            of_latent = sums[k * n_summed : (k + 1) * n_summed]
            for j in range(n_summed):
                of_latent[j] += weight * row[j]


@compiled(types.void(_VECTOR, _VECTOR, _VECTOR), reordered=True, frees_interpreter=True)
def recall(weights: Float32s, memory: Float32s, gates: Float32s) -> None:
    """Compute the gates' share of the (d_memory,) memory: the same for all bins that begin from it.

    Args:
        weights: (3 * d_memory * (d_memory + 1),) weight and bias of the GRU's memory half.
        memory: (d_memory,) and what else is remembered.
        gates: (3 * d_memory,), written.
    """
    _apply(weights, 0, memory[: len(gates) // 3], gates)


@compiled(types.void(int64, _INDICES, _VECTOR, _MATRIX, _VECTOR), reordered=True)
def _add_up(first: int, unit: Int32s, count: Float32s, rows: Float32s, added: Float32s) -> None:
    """Add a bin's spikes from token `first` on to the linear filter's sums."""
    for i in range(first, len(unit)):
        row = rows[unit[i]]
        for j in range(len(added)):
            added[j] += count[i] * row[j]


@compiled(types.void(_VECTOR, _VECTOR, float32, _VECTOR, _VECTOR, _VECTOR), reordered=True)
def _follow(
    usual: Float32s,
    bound: Float32s,
    share: np.float32,
    drift: Float32s,
    new_drift: Float32s,
    away: Float32s,
) -> None:
    """Move the drift by what a bin holds beyond the usual, and take what it was from the bin."""
    for j in range(len(away)):
        new_drift[j] = drift[j] + share * (away[j] - usual[j] - drift[j])
        away[j] -= min(max(drift[j], -bound[j]), bound[j])


@compiled(types.void(_VECTOR, _VECTOR, _VECTOR, _VECTOR, float32, _VECTOR), reordered=True)
def _remember(
    decay: Float32s,
    memory: Float32s,
    drift: Float32s,
    new_drift: Float32s,
    share: np.float32,
    added: Float32s,
) -> None:
    """The filter's sums after a bin, from what it added, which they overwrite."""
    for j in range(len(added)):
        new_drift[j] = drift[j] + share * (added[j] - drift[j])
        added[j] -= drift[j]
        added[j] += decay[j] * (memory[j] - added[j])


@compiled(types.void(_VECTOR, _VECTOR, _VECTOR, _VECTOR), reordered=True)
def _blend_filter(sums: Float32s, bound: Float32s, blend: Float32s, answer: Float32s) -> None:
    """Blend the linear filter into the answer; see `decoders.streaming.linear_filter`."""
    n_dims = len(answer)
    for i in range(n_dims):
        told = _ZERO
        for j in range(i, len(sums), n_dims):
            told += sums[j]
        told = min(max(told, -bound[i]), bound[i])
        answer[i] = blend[i] * answer[i] + blend[n_dims + i] + blend[2 * n_dims] * told


@compiled(
    int64(
        _INDICES, _VECTOR, _VECTOR, _MATRIX, _MATRIX, _VECTOR, _VECTOR, float32, _SIZES, _VECTOR,
        _VECTOR, _KEPT, _VECTOR, _VECTOR, _VECTOR, _VECTOR, _VECTOR,
    ),
    reordered=True,
    frees_interpreter=True,
)  # fmt: skip
def decode_bin(
    unit: Int32s,
    t_rel: Float32s,
    count: Float32s,
    table: Float32s,
    filter_rows: Float32s,
    centre: Float32s,
    beside: Float32s,
    turn_hz: np.float32,
    sizes: Sizes,
    weights: Float32s,
    gates: Float32s,
    kept: Kept,
    weight_of_token: Float32s,
    room: Float32s,
    memory: Float32s,
    new_memory: Float32s,
    answer: Float32s,
) -> int:
    """Decode one bin, once its memory was recalled.

    Args:
        unit: (N,) rows of the table.
        t_rel: (N,) seconds since the start of the bin.
        count: (N,) spikes per token.
        table: (R, table_width) folded rows.
        filter_rows: (R, n_sums) of the linear filter.
        centre: (2 * d_pooled + n_sums + 1,) of the latents, of the filter, what is usual beyond the
            first, and by how much a bin counts in following drift; the first alone where there is
            no filter.
        beside: (d_readout + 2 * n_dims + 1,) session vector with what the lead adds to it; per
            dimension what the network's answer is multiplied by, and what is added to it; and by
            how much the filter's sums count.
        turn_hz: radians per second of the lowest frequency.
        sizes: of the network.
        weights: those of its steps behind one another, as they are used here: one array, for
            reaching for thirty of them after a wait takes as long as a third of the decode.
        gates: (3 * d_memory,) what was recalled.
        kept: of the bin before, with room for N tokens; then of this one.
        weight_of_token: N * n_latents numbers at least, written.
        room: see `room_for`, written.
        memory: (d_memory + d_pooled + 2 * n_sums,) the GRU's, the filter's, and the drift; the
            first alone where there is no filter.
        new_memory: the same, written.
        answer: (n_dims,), written: physical units; logits of classes.

    Returns:
        The first token whose row the table does not have, and then nothing is decoded; else -1.
    """
    for i in range(len(unit)):
        if unit[i] < 0 or unit[i] >= len(table):
            return i
    n_latents, d_model, d_memory = sizes.n_latents, sizes.d_model, sizes.d_memory
    pooled, rest = room[: sizes.d_pooled], room[sizes.d_pooled :]
    mixed, rest = rest[:d_model], rest[d_model:]
    mixed_normed, rest = rest[:d_model], rest[d_model:]
    mixed_wide, rest = rest[: 2 * d_model], rest[2 * d_model :]
    gates_of_input, rest = rest[: 3 * d_memory], rest[3 * d_memory :]
    memory_normed, rest = rest[:d_memory], rest[d_memory:]
    asked, rest = rest[: sizes.d_readout], rest[sizes.d_readout :]
    query, query_wide = rest[: sizes.d_readout], rest[sizes.d_readout :]

    n_pooled, n_sums = sizes.d_pooled, sizes.n_sums
    sums, first = kept.sums, _keep(kept, unit, t_rel, count)
    if first == 0:
        sums[:] = _ZERO
        sums[n_pooled:] -= centre[n_pooled : n_pooled + n_sums]
    latents, of_filter = sums[:n_pooled], sums[n_pooled:]
    _sum_over_tokens(first, unit, t_rel, count, table, turn_hz, n_latents, weight_of_token, latents)
    _add_up(first, unit, count, filter_rows, of_filter)
    pooled[:] = latents
    n_summed = n_pooled // n_latents
    for k in range(n_latents):
        mass = pooled[(k + 1) * n_summed - 1] + weights[k]
        for j in range(k * n_summed, (k + 1) * n_summed):
            pooled[j] = pooled[j] / mass - centre[j]
    decay, at_drift = weights[len(weights) - n_sums :], d_memory + n_sums
    bounds = weights[len(weights) - n_sums - n_pooled - sizes.n_dims :]  # of answer, then latents
    if n_sums:
        usual, share = centre[n_pooled + n_sums : -1], centre[-1]
        drift, new_drift = memory[at_drift:], new_memory[at_drift:]
        _follow(usual, bounds[sizes.n_dims :], share, drift, new_drift, pooled)
        added = new_memory[d_memory:at_drift]
        added[:] = of_filter
        drift, new_drift = drift[n_pooled:], new_drift[n_pooled:]
        _remember(decay, memory[d_memory:], drift, new_drift, share, added)
    at = _apply(weights, n_latents, pooled, mixed)
    at = _normalise(weights, at, mixed, mixed_normed)
    at = _add_geglu(weights, at, mixed_normed, mixed_wide, mixed)
    at = _apply(weights, at, mixed, gates_of_input)
    _renew(gates_of_input, gates, memory[:d_memory], new_memory[:d_memory])
    at = _normalise(weights, at, new_memory[:d_memory], memory_normed)
    at = _apply(weights, at, memory_normed, query)
    for i in range(len(query)):
        query[i] += beside[i]
        asked[i] = query[i]
    at = _add_geglu(weights, at, asked, query_wide, query)
    _apply(weights, at, query, answer)
    if n_sums:
        filtered, blend = new_memory[d_memory:at_drift], beside[sizes.d_readout :]
        _blend_filter(filtered, bounds, blend, answer)
    return -1
