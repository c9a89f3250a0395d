"""numba runs the streaming decoder on the CPU: one function per bin, compiled for this machine.

A step reads the bundle's weights rather than its graph, and touches little else: after a wait it
is several times faster than a runtime that walks the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from decoders.streaming import drift, linear_filter
from decoders.streaming.lead import LEAD_SCALE_S
from export.backends.streaming_kernel import Sizes, decode_bin, recall, room_for, room_to_keep
from export.bundle import DecoderBundle, decoder_weights, tables_for
from export.errors import BackendError, BundleError, NotProvidedError
from export.manifest import Graph
from streams.messages import Float32s, TokenWindow


class NumbaBackend:
    """Runs one bin per step.

    Args:
        weights: of the streaming decoder, by their names in `decoders.streaming`.
        signature: what the manifest declares of its graph.
        tables: the inputs that belong to the decoder.
        outputs: name, width and whether it holds classes, in the order of the readout.
        decay: what is left of each time constant's leaky sums after a bin; none: no linear filter.
        serves_to_s: leads up to which the filter counts in full.

    Raises:
        BundleError: a weight is missing, or weights and tables do not fit together.
    """

    name = "numba-cpu"
    precision = "fp32"
    library = f"numba {metadata.version('numba')}"
    n_most_tokens: int | None = None

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        signature: Graph,
        tables: Mapping[str, np.ndarray],
        outputs: Mapping[str, tuple[int, bool]],
        decay: Sequence[float] = (),
        serves_to_s: float = 0.0,
    ) -> None:
        self._signature, self._serves_to_s = signature, serves_to_s
        try:
            n_dims = sum(width for width, _ in outputs.values())
            self._sizes = _sizes(weights, signature, n_dims, len(decay) * n_dims)
            self._weights, self._weights_of_memory = _packed(weights, np.repeat(decay, n_dims))
            self._lead = [
                (weights[f"lead_{way}.weight"], weights[f"lead_{way}.bias"])
                for way in ("widen", "narrow")
            ]
            frequencies = weights["encoder.frequencies"]
        except KeyError as error:
            raise BundleError(f"the weights lack {error}; export the bundle again") from error
        self._turn_hz = np.float32(frequencies[1]) if len(frequencies) > 1 else np.float32(0)
        self._room, self._weight_of_token = room_for(self._sizes), np.zeros(0, np.float32)
        self._kept = room_to_keep(self._sizes, 0)
        self._memory = np.zeros((2, _remembered(self._sizes)), np.float32)
        self._memories = [(self._memory[i], self._memory[1 - i]) for i in range(2)]
        self._gates = np.zeros(3 * self._sizes.d_memory, np.float32)
        self._turn = 0
        self._has_recalled = False
        self._lead_s = 0.0
        self._answer = np.zeros(n_dims, np.float32)
        self._classes = [name for name, (_, is_classes) in outputs.items() if is_classes]
        self._values = _parts(self._answer, {name: width for name, (width, _) in outputs.items()})
        self._tables: dict[str, np.ndarray] = {}
        self.set_tables(tables)

    def step(self, window: TokenWindow, lead_s: float) -> Mapping[str, Float32s]:
        """Run one bin and advance the memory.

        Args:
            window: its tokens, contiguous arrays; none is legal.
            lead_s: how far ahead of the window's end to estimate.

        Returns:
            Per output, (dims,) float32 in physical units; the next step overwrites them.

        Raises:
            BackendError: a token's row is not in the table, or an array is not what it should be.
        """
        values = self.predecode(window, lead_s)
        self.accept()
        return values

    def predecode(self, window: TokenWindow, lead_s: float) -> Mapping[str, Float32s]:
        """Run a bin without consequence, unless `accept` follows.

        What it writes, the next step overwrites: the memory stays as it was, and the outputs of
        the step before are gone.

        Returns:
            As `step`.

        Raises:
            BackendError: as `step`.
        """
        if lead_s != self._lead_s:
            self._set_lead(lead_s)
        if (n_tokens := len(window)) > len(self._kept.unit):
            self._weight_of_token = np.zeros(2 * n_tokens * self._sizes.n_latents, np.float32)
            self._kept = room_to_keep(self._sizes, 2 * n_tokens)
        memory, new_memory = self._memories[self._turn]
        if not self._has_recalled:
            recall(self._weights_of_memory, memory, self._gates)
            self._has_recalled = True
        try:
            i_wrong = decode_bin(
                window.unit, window.t_rel, window.count, self._tables["table"], self._filter_rows,
                self._centre, self._beside, self._turn_hz, self._sizes, self._weights,
                self._gates, self._kept, self._weight_of_token, self._room, memory, new_memory,
                self._answer,
            )  # fmt: skip
        except TypeError as error:
            raise BackendError(f"{self.name} cannot read the tokens given: {error}") from error
        if i_wrong >= 0:
            raise BackendError(
                f"{self.name} failed on {len(window)} tokens: row {window.unit[i_wrong]} of "
                f"{len(self._tables['table'])}"
            )
        for name in self._classes:
            _to_probabilities(self._values[name])
        return self._values

    def accept(self) -> None:
        """Advance the memory by what was predecoded just before, as if it had been a step."""
        self._turn = 1 - self._turn
        self._has_recalled = False

    def reset(self) -> None:
        """Zero the memory."""
        self._memory[:] = 0
        self._has_recalled = False

    def memory(self) -> dict[str, np.ndarray]:
        """Return copies of the memory's arrays, float32, by name."""
        return {"all": self._memory[self._turn].copy()}

    def set_memory(self, memory: Mapping[str, np.ndarray]) -> None:
        """Go on with the memory that `memory` of the same decoder returned."""
        self._memory[self._turn] = memory["all"]
        self._has_recalled = False

    def set_tables(self, tables: Mapping[str, np.ndarray]) -> None:
        """Decode with other tables from the next step on.

        Raises:
            BundleError: an array is missing or has another shape or type than the graph takes.
        """
        self._tables = tables_for(self._signature, tables)
        n_rows, n_dims = len(self._tables["table"]), self._sizes.n_dims
        none = {
            "filter_rows": np.zeros((n_rows, 0), np.float32),
            "filter_centre": np.zeros(0, np.float32),
            "blend": np.zeros((2, n_dims), np.float32),
            "usual": np.zeros(0, np.float32),
            "follow": np.zeros(0, np.float32),
        }
        held = none | self._tables
        self._filter_rows, self._blend = held["filter_rows"], held["blend"]
        if len(self._filter_rows) != n_rows:
            raise BundleError(
                f"`filter_rows` has {len(self._filter_rows)} rows where `table` has {n_rows}; "
                "export the bundle again"
            )
        centres = ("centre", "filter_centre", "usual", "follow")
        self._centre = np.concatenate([held[name] for name in centres])
        self._kept.n[0] = 0  # other rows have other sums
        self._set_lead(self._lead_s)

    def fixed_arrays(self) -> Mapping[str, np.ndarray]:
        """Arrays that a step reads and nothing writes to, by name."""
        leads = ("lead_widen.weight", "lead_widen.bias", "lead_narrow.weight", "lead_narrow.bias")
        return {
            "weights": self._weights,
            "weights_of_memory": self._weights_of_memory,
            **dict(zip(leads, (one for pair in self._lead for one in pair), strict=True)),
            "filter_rows": self._filter_rows,
            "centres": self._centre,
            "beside": self._beside,
            **self._tables,
        }

    def _set_lead(self, lead_s: float) -> None:
        (widen, widen_bias), (narrow, narrow_bias) = self._lead
        lead = widen @ np.array([lead_s / LEAD_SCALE_S], np.float32) + widen_bias
        lead = narrow @ np.tanh(lead) + narrow_bias
        counts = linear_filter.counts_at(lead_s, self._serves_to_s)
        share = counts * self._blend[0]
        beside = [self._tables["session"] + lead, 1.0 - share, share * self._blend[1], [counts]]
        self._beside = np.concatenate(beside).astype(np.float32)
        self._lead_s = lead_s


def open_cpu(bundle: DecoderBundle, precision: str = "fp32") -> NumbaBackend:
    """The bundle's streaming decoder on one core of the CPU.

    Raises:
        BackendUnavailable: another precision, or a network that no export described.
        BundleError: the weights are not those of its network.
    """
    manifest = bundle.manifest
    config: Any = manifest.training.get("config")
    if not isinstance(config, dict):
        raise NotProvidedError(
            f"{manifest.name!r} has no `training.config`, as `spikeloop export` writes it, that "
            "says what its network is: use onnxruntime-cpu"
        )
    if precision != "fp32":
        raise NotProvidedError(f"numba-cpu runs fp32, not {precision}")
    weights = {
        name: np.ascontiguousarray(value, np.float32)
        for name, value in decoder_weights(bundle.weights()).items()
    }
    try:
        outputs = {one["name"]: (one["dims"], one["classes"]) for one in config["outputs"]}
        decay = linear_filter.decays(config.get("taps_s", ()), config["bin_s"])
        serves_to_s = config.get("serves_to_s", 0.0)
        return NumbaBackend(weights, manifest.graph, bundle.tables, outputs, decay, serves_to_s)
    except (BundleError, KeyError, TypeError) as error:
        raise BundleError(f"{bundle.path}: {error}") from error


def _packed(w: Mapping[str, np.ndarray], decay: np.ndarray) -> tuple[Float32s, Float32s]:
    """The weights that `decode_bin` reads, in its order, and those that `recall` reads.

    What is fixed for good is folded: the gain of the latents into `mix`, the scale and offset of
    the outputs into `readout`.
    """
    scale = w["scale"]
    used = [np.exp(w["encoder.log_sink"]), w["mix.weight"] * w["pooled_gain"], w["mix.bias"]]
    for name in ("mix_norm", "mix_geglu.widen", "mix_geglu.narrow"):
        used += [w[f"{name}.weight"], w[f"{name}.bias"]]
    used += [w["gru.weight_ih_l0"], w["gru.bias_ih_l0"]]
    for name in ("memory_norm", "query", "readout_geglu.widen", "readout_geglu.narrow"):
        used += [w[f"{name}.weight"], w[f"{name}.bias"]]
    used += [w["readout.weight"] * scale[:, None], w["readout.bias"] * scale + w["offset"]]
    if len(decay):
        used += [linear_filter.LARGEST * scale, drift.LARGEST / w["pooled_gain"], decay]
    return _joined(used), _joined([w["gru.weight_hh_l0"], w["gru.bias_hh_l0"]])


def _joined(arrays: Sequence[np.ndarray]) -> Float32s:
    return np.concatenate([array.ravel() for array in arrays]).astype(np.float32)


def _sizes(w: Mapping[str, np.ndarray], signature: Graph, n_dims: int, n_sums: int) -> Sizes:
    """The network's widths; what fits neither them nor the graph is refused: nothing checks later.

    Raises:
        BundleError: says which.
        KeyError: one is missing.
    """
    held = [tensor for tensor in signature.inputs if isinstance(tensor.shape[-1], int)]
    width = {tensor.name: int(tensor.shape[-1]) for tensor in held}
    pooled, memory, readout = width["centre"], width["memory_h"], width["session"]
    model, lead = len(w["mix.bias"]), len(w["lead_widen.bias"])
    n_latents, n_basis = len(w["encoder.log_sink"]), len(w["encoder.frequencies"])
    linear = {
        "mix": (model, pooled),
        "mix_geglu.widen": (2 * model, model),
        "mix_geglu.narrow": (model, model),
        "query": (readout, memory),
        "lead_widen": (lead, 1),
        "lead_narrow": (readout, lead),
        "readout_geglu.widen": (2 * readout, readout),
        "readout_geglu.narrow": (readout, readout),
        "readout": (n_dims, readout),
    }
    wanted: dict[str, tuple[int, ...]] = {f"{name}.weight": linear[name] for name in linear}
    wanted |= {f"{name}.bias": linear[name][:1] for name in linear}
    wanted |= {"gru.weight_ih_l0": (3 * memory, model), "gru.weight_hh_l0": (3 * memory, memory)}
    vectors = {
        "pooled_gain": pooled, "scale": n_dims, "offset": n_dims,
        "gru.bias_ih_l0": 3 * memory, "gru.bias_hh_l0": 3 * memory,
        "mix_norm.weight": model, "mix_norm.bias": model,
        "memory_norm.weight": memory, "memory_norm.bias": memory,
    }  # fmt: skip
    wanted |= {name: (n,) for name, n in vectors.items()}
    for name, shape in wanted.items():
        if w[name].shape != shape:
            raise BundleError(
                f"`{name}` is {list(w[name].shape)} where its network has {list(shape)}; "
                "export the bundle again"
            )
    if width.get("filter_rows", 0) != n_sums or width.get("memory_filter", 0) != n_sums:
        raise BundleError(
            f"a linear filter of {width.get('filter_rows', 0)} sums in the graph is one of "
            f"{n_sums} in `training.config`; export the bundle again"
        )
    n_summed, rest = divmod(pooled, n_latents)
    if rest or width["table"] != n_summed + n_latents * n_basis:
        raise BundleError(
            f"a table of {width['table']} columns does not fit {n_latents} latents and {n_basis} "
            "functions of time; export the bundle again"
        )
    return Sizes(n_latents, pooled, model, memory, readout, n_dims, n_sums)


def _remembered(sizes: Sizes) -> int:
    """Count the memory's numbers: the GRU's, and where there is a filter, its sums and drift."""
    return sizes.d_memory + (sizes.d_pooled + 2 * sizes.n_sums if sizes.n_sums else 0)


def _parts(answer: Float32s, widths: Mapping[str, int]) -> dict[str, Float32s]:
    """The outputs as views of the readout."""
    cuts = np.cumsum(list(widths.values()))[:-1]
    return dict(zip(widths, np.split(answer, cuts), strict=True))


def _to_probabilities(logits: Float32s) -> None:
    """Softmax in place."""
    np.exp(logits - logits.max(), out=logits)
    logits /= logits.sum()
