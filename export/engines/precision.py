"""A graph in reduced precision: the types stand in the graph, for engines take them from there.

Multiplications by weights and attention logits run in 16 bits; everything that a sum over spikes,
an exponential, a normalisation, a time or the memory goes through stays in 32:

- `MatMul` and `Gemm` over a length that is known are reduced; over tokens (sums of many spikes,
  which overflow fp16 and lose the small weights) they are not, nor is the last one, the readout,
  nor what sums nothing: a product of length 1 (a time and its frequencies), or with ones and zeros.
- `Mul`, `Gelu`, `Neg` and what only moves values follow where all they read is reduced already.
- The rest (`Add`, `Exp`, `Softmax`, `LayerNormalization`, `Cos`, gates, residuals...) is fp32.

Inputs and outputs of the graph keep their types: nobody outside sees a difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.engines.constants import float_tensors, folded, inferred_types, with_nodes
from export.errors import ExportError

PRECISIONS = ("fp32", "fp16", "bf16")
_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_HALVES = tuple(_TYPES.values())
CONTRACTIONS = ("MatMul", "Gemm")
MOVERS = ("Concat", "Expand", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Transpose")
FOLLOWERS = frozenset(("Gelu", "Mul", "Neg", "Unsqueeze", *MOVERS))
LARGEST_FP16 = 65504.0


def in_precision(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """The model with what may be reduced in `precision`, weights included.

    Args:
        model: fp32, its lengths not yet fixed: that is how sums over tokens are told.
        precision: "fp32", "fp16" or "bf16".

    Raises:
        ExportError: no such precision, or a weight that fp16 cannot hold.
    """
    if precision not in PRECISIONS:
        raise ExportError(f"no precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    model = folded(model)
    if precision == "fp32":
        return model
    chosen = _chosen(model)
    rewriter = _Rewriter(model, _TYPES[precision])
    for i_node, node in enumerate(model.graph.node):
        rewriter.take(node, contracts=i_node in chosen)
    return folded(rewriter.finished())


def _chosen(model: onnx.ModelProto) -> set[int]:
    """Places of the contractions over a known length that another contraction follows."""
    shapes = _known_dims(model)
    choices = {t.name for t in model.graph.initializer if _chooses(numpy_helper.to_array(t))}
    nodes = list(model.graph.node)
    return {
        i
        for i, node in enumerate(nodes)
        if node.op_type in CONTRACTIONS
        and _length(node, shapes) > 1
        and node.input[1] not in choices
        and _is_followed(i, nodes)
    }


def _chooses(weights: np.ndarray) -> bool:
    """Return True if a product with it only repeats or adds up columns."""
    return weights.ndim == 2 and bool(np.isin(weights, (0.0, 1.0)).all())


def _known_dims(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Per tensor its lengths, 0 where one varies."""
    dims = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    types = inferred_types(model).items()
    known = {name: kind.shape.dim for name, kind in types if kind.HasField("shape")}
    return dims | {name: [dim.dim_value for dim in shape] for name, shape in known.items()}


def _length(node: onnx.NodeProto, dims: Mapping[str, list[int]]) -> int:
    """Of the contraction; 0 where it varies or is not known."""
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    left, right = dims.get(node.input[0], [0]), dims.get(node.input[1], [0])
    right_transposed = any(a.name == "transB" and a.i for a in node.attribute)
    of_left = left[0 if transposed else -1]
    of_right = right[-1 if right_transposed or len(right) == 1 else -2]
    return of_left and of_right


def _is_followed(i_node: int, nodes: Sequence[onnx.NodeProto]) -> bool:
    reached = set(nodes[i_node].output)
    for node in nodes[i_node + 1 :]:
        if reached & set(node.input):
            if node.op_type in CONTRACTIONS:
                return True
            reached |= set(node.output)
    return False


@dataclass(slots=True)
class _Rewriter:
    """Writes the nodes anew, with casts where the precision changes.

    Attributes:
        nodes: those written so far.
        reduced: per tensor that exists in 16 bits, its name there.
        only_reduced: those of them that do not exist in fp32 (yet).
        floats: names of the fp32 tensors of the model.
        constants: values of the model's constants.
    """

    model: onnx.ModelProto
    reduced_type: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    reduced: dict[str, str] = field(default_factory=dict)
    only_reduced: set[str] = field(default_factory=set)
    floats: set[str] = field(init=False)
    constants: dict[str, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        self.constants = {t.name: numpy_helper.to_array(t) for t in self.model.graph.initializer}
        self.floats = float_tensors(self.model)

    def take(self, node: onnx.NodeProto, *, contracts: bool) -> None:
        """Write the next node."""
        floats = [name for name in node.input if name in self.floats]
        made = [name for name in floats if name not in self.constants]
        follows = node.op_type in FOLLOWERS and made and all(n in self.reduced for n in made)
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if contracts or follows:
            copy.input[:] = [self._narrow(n) if n in floats else n for n in node.input]
            copy.output[:] = [f"{name}__reduced" for name in node.output]
            self.reduced.update(zip(node.output, copy.output, strict=True))
            self.only_reduced.update(node.output)
        else:
            self._widen(floats)
        self.nodes.append(copy)

    def finished(self) -> onnx.ModelProto:
        """The model of the nodes written, its outputs as they were."""
        self._widen([output.name for output in self.model.graph.output])
        return with_nodes(self.model, self.nodes, self.constants)

    def _narrow(self, name: str) -> str:
        if name not in self.reduced:
            if name in self.constants and self.reduced_type == TensorProto.FLOAT16:
                _require_in_range(name, self.constants[name])
            self.reduced[name] = f"{name}__reduced"
            self._cast(name, self.reduced[name], self.reduced_type)
        return self.reduced[name]

    def _widen(self, names: Sequence[str]) -> None:
        for name in names:
            if name in self.only_reduced:
                self.only_reduced.remove(name)
                self._cast(self.reduced[name], name, TensorProto.FLOAT)

    def _cast(self, source: str, target: str, to: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [target], to=to))


def _require_in_range(name: str, value: np.ndarray) -> None:
    largest = float(np.abs(value).max()) if value.size else 0.0
    if largest > LARGEST_FP16:
        raise ExportError(f"weight {name!r} goes to {largest:.3g}, beyond fp16: use bf16 or fp32")


def rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in fp32 throughout, with the roundings of its 16-bit parts: their cost, on a CPU.

    A GPU's matrix units multiply 16-bit numbers exactly and sum in fp32. So does this graph: each
    operation takes rounded operands, runs in fp32, and rounds its result.

    Args:
        model: of `in_precision`, "fp16" or "bf16".
    """
    half = next(n for n in map(_cast_to, model.graph.node) if n in _HALVES)
    constants = {t.name: _widened(t) for t in model.graph.initializer}
    halves = {t.name for t in model.graph.initializer if t.data_type in _HALVES}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        to = _cast_to(node)
        if to in _HALVES:
            nodes += _rounded(node.input[0], node.output[0], half)
            halves.add(node.output[0])
        elif to == TensorProto.FLOAT and node.input[0] in halves:
            nodes.append(helper.make_node("Identity", node.input[:1], node.output[:1]))
        elif not halves & set(node.input):
            nodes.append(node)
        else:
            halves |= set(node.output)
            nodes += [node] if node.op_type in MOVERS else _computed(node, half)
    return with_nodes(model, nodes, constants)


def _cast_to(node: onnx.NodeProto) -> int:
    """The type that a `Cast` gives; 0 for another operator."""
    return next((a.i for a in node.attribute if node.op_type == "Cast" and a.name == "to"), 0)


def _widened(tensor: onnx.TensorProto) -> np.ndarray:
    values: np.ndarray = numpy_helper.to_array(tensor)
    return values.astype(np.float32) if tensor.data_type in _HALVES else values


def _computed(node: onnx.NodeProto, half: int) -> list[onnx.NodeProto]:
    wide = onnx.NodeProto()
    wide.CopyFrom(node)
    wide.output[:] = [f"{name}__exact" for name in node.output]
    pairs = zip(wide.output, node.output, strict=True)
    return [wide, *(one for exact, name in pairs for one in _rounded(exact, name, half))]


def _rounded(source: str, target: str, half: int) -> list[onnx.NodeProto]:
    narrow = f"{target}__half"
    return [
        helper.make_node("Cast", [source], [narrow], to=half),
        helper.make_node("Cast", [narrow], [target], to=TensorProto.FLOAT),
    ]
