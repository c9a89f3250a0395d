"""A bin of the streaming decoder as machine code: the algebra of its network, compiled by numba.

What a runtime of graphs does in some fifty calls, each fetched
from memory anew after a wait, is one loop after another here. Sums may be added up in any order;
nothing else is assumed of the numbers. It runs without the interpreter's lock: a decoder that is
opened beside the beat delays none.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import float32, int32, int64, types

from streams.compiled.compiler import compiled
from streams.messages import Float32s, Int32s


class Linear(NamedTuple):
    """`weight x + bias`; weight (n_out, n_in)."""

    weight: Float32s
    bias: Float32s


class Norm(NamedTuple):
    """Layer normalisation; both (n,)."""

    weight: Float32s
    bias: Float32s


class Network(NamedTuple):
    """The weights of a streaming decoder, as `decoders.streaming` names them.

    What is fixed for good is folded: the gain of the latents into `mix`, the scale and offset of
    the outputs into `readout`.
    """

    sink: Float32s
    mix: Linear
    mix_norm: Norm
    mix_widen: Linear
    mix_narrow: Linear
    gru_of_input: Linear
    gru_of_memory: Linear
    memory_norm: Norm
    query: Linear
    readout_widen: Linear
    readout_narrow: Linear
    readout: Linear


class Room(NamedTuple):
    """Where a bin is worked out: the width of each is that of what it holds."""

    weights: Float32s
    pooled: Float32s
    mixed: Float32s
    mixed_normed: Float32s
    mixed_wide: Float32s
    gates_of_input: Float32s
    gates_of_memory: Float32s
    memory_normed: Float32s
    asked: Float32s
    query: Float32s
    query_wide: Float32s


def room_for(network: Network) -> Room:
    """Room for a network, and for a bin of no tokens yet."""
    of_mix, of_query = len(network.mix.bias), len(network.query.bias)
    n_memory = network.gru_of_memory.weight.shape[1]
    widths = (
        0, network.mix.weight.shape[1], of_mix, of_mix, 2 * of_mix, 3 * n_memory, 3 * n_memory,
        n_memory, of_query, of_query, 2 * of_query,
    )  # fmt: skip
    return Room(*(np.zeros(width, np.float32) for width in widths))


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
_OF_LINEAR = types.NamedTuple((_MATRIX, _VECTOR), Linear)
_OF_NORM = types.NamedUniTuple(_VECTOR, len(Norm._fields), Norm)
_OF_NETWORK = types.NamedTuple(
    (_VECTOR, _OF_LINEAR, _OF_NORM, *[_OF_LINEAR] * 4, _OF_NORM, *[_OF_LINEAR] * 4), Network
)
_OF_ROOM = types.NamedUniTuple(_VECTOR, len(Room._fields), Room)


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


@compiled(types.void(_OF_LINEAR, _VECTOR, _VECTOR), reordered=True)
def _apply(linear: Linear, x: Float32s, out: Float32s) -> None:
    for i in range(len(out)):
        row = linear.weight[i]
        total = _ZERO
        for j in range(len(row)):
            total += row[j] * x[j]
        out[i] = total + linear.bias[i]


@compiled(types.void(_OF_NORM, _VECTOR, _VECTOR), reordered=True)
def _normalise(norm: Norm, x: Float32s, out: Float32s) -> None:
    n = np.float32(len(x))
    mean = _ZERO
    for i in range(len(x)):
        mean += x[i]
    mean /= n
    variance = _ZERO
    for i in range(len(x)):
        variance += (x[i] - mean) * (x[i] - mean)
    scale = _ONE / np.float32(math.sqrt(variance / n + _EPSILON))
    for i in range(len(x)):
        out[i] = (x[i] - mean) * scale * norm.weight[i] + norm.bias[i]


@compiled(types.void(_OF_LINEAR, _OF_LINEAR, _VECTOR, _VECTOR, _VECTOR), reordered=True)
def _add_geglu(widen: Linear, narrow: Linear, x: Float32s, wide: Float32s, onto: Float32s) -> None:
    """Add `narrow (a * gelu(b))` to `onto`, with `a, b` the halves of `widen x`."""
    _apply(widen, x, wide)
    n = len(wide) // 2
    for i in range(n):
        gate = wide[n + i]
        wide[i] *= _HALF * gate * (_ONE + np.float32(math.erf(gate * _HALF_ROOT)))
    for i in range(len(onto)):
        row = narrow.weight[i]
        total = _ZERO
        for j in range(n):
            total += row[j] * wide[j]
        onto[i] += total + narrow.bias[i]


@compiled(types.void(_VECTOR, _VECTOR, _VECTOR, _VECTOR), reordered=True)
def _renew(of_input: Float32s, of_memory: Float32s, memory: Float32s, new: Float32s) -> None:
    """What a GRU remembers next; its gates are reset, update and new."""
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


@compiled(
    types.void(_INDICES, _VECTOR, _VECTOR, _MATRIX, float32, int64, _VECTOR, _VECTOR),
    reordered=True,
)
def _sum_over_tokens(
    unit: Int32s,
    t_rel: Float32s,
    count: Float32s,
    table: Float32s,
    turn_hz: np.float32,
    n_latents: int,
    weights: Float32s,
    sums: Float32s,
) -> None:
    """Per latent the sum of weight times value and of weights, (n_latents * (d_value + 1),)."""
    n_summed = len(sums) // n_latents
    n_frequencies = ((table.shape[1] - n_summed) // n_latents - 1) // 2
    for i in range(len(unit)):
        row, logits = table[unit[i]], weights[i * n_latents : (i + 1) * n_latents]
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
    _exponentials(weights[: len(unit) * n_latents])
    sums[:] = _ZERO
    for i in range(len(unit)):
        row = table[unit[i]]
        for k in range(n_latents):
            weight = weights[i * n_latents + k] * count[i]
            of_latent = sums[k * n_summed : (k + 1) * n_summed]
            for j in range(n_summed):
                of_latent[j] += weight * row[j]


@compiled(types.void(_OF_NETWORK, _OF_ROOM, _VECTOR), reordered=True, frees_interpreter=True)
def recall(network: Network, room: Room, memory: Float32s) -> None:
    """What a bin takes from the (d_memory,) memory: the same for all that begin from it."""
    _apply(network.gru_of_memory, memory, room.gates_of_memory)


@compiled(
    int64(
        _INDICES, _VECTOR, _VECTOR, _MATRIX, _VECTOR, _VECTOR, float32, _OF_NETWORK, _OF_ROOM,
        _VECTOR, _VECTOR, _VECTOR,
    ),
    reordered=True,
    frees_interpreter=True,
)  # fmt: skip
def decode_bin(
    unit: Int32s,
    t_rel: Float32s,
    count: Float32s,
    table: Float32s,
    centre: Float32s,
    beside: Float32s,
    turn_hz: np.float32,
    network: Network,
    room: Room,
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
        centre: (n_pooled,).
        beside: (d_readout,) session vector, and what the lead adds to it.
        turn_hz: radians per second of the lowest frequency.
        network: its weights.
        room: its `weights` hold N * n_latents numbers at least.
        memory: (d_memory,).
        new_memory: (d_memory,), written.
        answer: (n_dims,), written: physical units; logits of classes.

    Returns:
        The first token whose row the table does not have, and then nothing is decoded; else -1.
    """
    for i in range(len(unit)):
        if unit[i] < 0 or unit[i] >= len(table):
            return i
    n_latents, pooled = len(network.sink), room.pooled
    _sum_over_tokens(unit, t_rel, count, table, turn_hz, n_latents, room.weights, pooled)
    n_summed = len(pooled) // n_latents
    for k in range(n_latents):
        mass = pooled[(k + 1) * n_summed - 1] + network.sink[k]
        for j in range(k * n_summed, (k + 1) * n_summed):
            pooled[j] = pooled[j] / mass - centre[j]
    _apply(network.mix, pooled, room.mixed)
    _normalise(network.mix_norm, room.mixed, room.mixed_normed)
    _add_geglu(
        network.mix_widen, network.mix_narrow, room.mixed_normed, room.mixed_wide, room.mixed
    )
    _apply(network.gru_of_input, room.mixed, room.gates_of_input)
    _renew(room.gates_of_input, room.gates_of_memory, memory, new_memory)
    _normalise(network.memory_norm, new_memory, room.memory_normed)
    _apply(network.query, room.memory_normed, room.query)
    for i in range(len(beside)):
        room.query[i] += beside[i]
    room.asked[:] = room.query
    _add_geglu(
        network.readout_widen, network.readout_narrow, room.asked, room.query_wide, room.query
    )
    _apply(network.readout, room.query, answer)
    return -1
