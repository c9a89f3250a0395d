"""What TensorRT's ONNX parser takes: facts carried over, so that any machine can check a graph.

Source: `docs/operators.md` of github.com/onnx/onnx-tensorrt, branch 10.1-GA (96e7811, 2024-06-17),
which says of itself: TensorRT 10.0, opsets 9 to 20. Read on 2026-11-22. NVIDIA's "ONNX Opset Guide"
of TensorRT 11.x, read on the same day, says opsets 9 to 25 and names no operator that went.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import TensorProto

from export.errors import ExportError

TENSORRT = "10.0"
READ_ON = "2026-11-22"
OPSETS = range(9, 21)

_FLOATS = frozenset({"fp32", "fp16", "bf16"})
_NUMBERS = _FLOATS | {"int32", "int64"}
_ANY = _NUMBERS | {"bool"}

_OF_FLOATS = """
Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose
Cos Cosh CumSum Dropout Einsum Elu Erf Exp Floor GRU Gemm GlobalAveragePool GlobalLpPool
GlobalMaxPool GroupNormalization HardSigmoid HardSwish Hardmax InstanceNormalization IsInf LRN LSTM
LayerNormalization LeakyRelu Log LogSoftmax LpNormalization LpPool MatMul MaxPool
MeanVarianceNormalization PRelu Pow QuantizeLinear RNN Reciprocal Resize Round Scan Selu Sigmoid Sin
Sinh Softmax Softplus Softsign Sqrt Tan Tanh ThresholdedRelu Upsample
"""
_OF_NUMBERS = """
Abs Add ArgMax ArgMin DepthToSpace Div Equal Gelu Greater GreaterOrEqual IsNaN Less LessOrEqual Max
Mean Min Mod Mul Neg Pad Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu ScatterElements ScatterND Shrink Sign
SpaceToDepth Sub Sum TopK
"""
_OF_ANY = """
Cast CastLike Concat Constant Expand EyeLike Flatten Gather GatherElements GatherND
Identity If OneHot Reshape ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu
Unsqueeze Where
"""
SUPPORTED: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(_OF_FLOATS.split(), _FLOATS),
    **dict.fromkeys(_OF_NUMBERS.split(), _NUMBERS),
    **dict.fromkeys(_OF_ANY.split(), _ANY),
    "ConstantOfShape": frozenset({"fp32"}),
    **dict.fromkeys(("And", "Not", "Or", "Xor"), frozenset({"bool"})),
}
"""Per operator the types of its data; those with limits that cannot be met here are left out."""

CONSTANT_INPUTS: Mapping[str, tuple[int, ...]] = {
    "CumSum": (1,),
    "Pad": (3,),
    "Slice": (3,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
    **{name: (1,) for name in SUPPORTED if name.startswith("Reduce")},
}
"""Inputs, by their place, that must be constants of the graph."""

FIRST_OUTPUT_ONLY = frozenset({"LayerNormalization"})

_TYPE_NAMES = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.BOOL: "bool",
}


def complaints(model: onnx.ModelProto) -> list[str]:
    """What TensorRT's parser would refuse in a graph, one line each; empty when nothing."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    types = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        types[value.name] = value.type.tensor_type.elem_type
    constants = {tensor.name for tensor in inferred.initializer}
    found = [
        f"opset {opset.version} of {opset.domain or 'ONNX'} is none of {OPSETS[0]} to {OPSETS[-1]}"
        for opset in model.opset_import
        if opset.domain or opset.version not in OPSETS
    ]
    for node in inferred.node:
        found += _of_node(node, types, constants)
    return found


def _of_node(node: onnx.NodeProto, types: Mapping[str, int], constants: set[str]) -> list[str]:
    told = f"{node.op_type} that makes {node.output[0]!r}"
    if node.domain or node.op_type not in SUPPORTED:
        return [f"{told}: no operator of TensorRT {TENSORRT}"]
    kind = _TYPE_NAMES.get(types.get(node.input[0], 0), "unknown") if node.input else "fp32"
    found = []
    if kind not in SUPPORTED[node.op_type]:
        found.append(
            f"{told}: its data is {kind}, not {', '.join(sorted(SUPPORTED[node.op_type]))}"
        )
    for place in CONSTANT_INPUTS.get(node.op_type, ()):
        if len(node.input) > place and node.input[place] not in constants | {""}:
            found.append(f"{told}: its input {place} must be a constant")
    if node.op_type in FIRST_OUTPUT_ONLY and len([name for name in node.output if name]) > 1:
        found.append(f"{told}: only its first output is supported")
    return found


def require_supported(model: onnx.ModelProto, what: str) -> None:
    """Refuse a graph that TensorRT's parser would not take.

    Raises:
        ExportError: naming the operators.
    """
    found = complaints(model)
    if found:
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise ExportError(f"{what} cannot become a TensorRT engine: {'; '.join(found[:3])}{more}")
