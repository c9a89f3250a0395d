"""Reduced precision: what is rounded, what is not, and how far the decodes move."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from export.backends.onnxruntime_cpu import OnnxruntimeBackend
from export.bundle import DecoderBundle
from export.engines.precision import in_precision
from export.engines.shapes import lowered
from export.errors import ExportError
from export.parity import largest_error

LOWER = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
LARGEST_STEP = {"fp16": 2.0**-10, "bf16": 2.0**-7}
NEVER_REDUCED = {
    "Exp",
    "Log",
    "Softmax",
    "LayerNormalization",
    "ReduceSum",
    "Cos",
    "Sigmoid",
    "Tanh",
}


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    types = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        types[value.name] = value.type.tensor_type.elem_type
    return types


def runs(bundle: DecoderBundle, model: onnx.ModelProto) -> OnnxruntimeBackend:
    names = [output.name for output in bundle.manifest.outputs]
    signature = bundle.manifest.graph
    return OnnxruntimeBackend(model.SerializeToString(), signature, bundle.tables, names)


def test_fp16_decodes_within_the_reduced_tolerance(family: DecoderBundle) -> None:
    error = largest_error(runs(family, lowered(family, "fp16")), family.parity())
    assert 1e-4 < error <= family.manifest.parity.atol_reduced


def test_folding_alone_changes_nothing(family: DecoderBundle) -> None:
    error = largest_error(runs(family, lowered(family, "fp32")), family.parity())
    assert error <= family.manifest.parity.atol_fp32


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_signature_is_untouched_and_graph_valid(family: DecoderBundle, precision: str) -> None:
    before, after = lowered(family, "fp32"), lowered(family, precision)
    onnx.checker.check_model(after, full_check=True)
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_sums_and_exponentials_stay_wide(family: DecoderBundle, precision: str) -> None:
    model = lowered(family, precision)
    types = types_of(model)
    reduced = [n for n in model.graph.node if types[n.output[0]] == LOWER[precision]]
    assert not NEVER_REDUCED & {node.op_type for node in reduced}
    assert {"MatMul", "Gemm"} & {node.op_type for node in reduced}
    assert "Add" not in {node.op_type for node in reduced}


def test_sums_over_tokens_and_times_stay_wide(streaming_bundle: DecoderBundle) -> None:
    """The shipped shape's only MatMuls are the three sums over tokens, and logits from times."""
    model = lowered(streaming_bundle, "fp16")
    types = types_of(model)
    wide = [node for node in model.graph.node if node.op_type in ("MatMul", "Cos")]
    assert len(wide) == 5
    for node in wide:
        assert {types[name] for name in (node.input[0], *node.output)} == {TensorProto.FLOAT}


def test_weights_take_half_the_space(streaming_bundle: DecoderBundle) -> None:
    before = lowered(streaming_bundle, "fp32").ByteSize()
    assert lowered(streaming_bundle, "fp16").ByteSize() < 0.6 * before


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_reference_evaluator_agrees_to_its_rounding(
    family: DecoderBundle, precision: str
) -> None:
    """Whatever ONNX Runtime fuses: in bf16, which its CPU kernels lack, nothing else can tell."""
    record = family.parity()
    i_beat = next(i for i in range(len(record)) if len(record.window(i)) > 20)
    window = record.window(i_beat)
    inputs = {"unit": window.unit, "t_rel": window.t_rel, "count": window.count}
    inputs |= {"lead_s": record.lead_s[i_beat : i_beat + 1], **family.tables}
    for tensor in family.manifest.graph.inputs:
        if tensor.name in family.manifest.graph.memory:
            inputs[tensor.name] = np.zeros(tensor.shape, np.float32)
    exact = ReferenceEvaluator(lowered(family, "fp32")).run(None, inputs)
    rounded = ReferenceEvaluator(lowered(family, precision)).run(None, inputs)
    scale = max(float(np.abs(value).max()) for value in exact)
    error = max(float(np.abs(a - b).max()) for a, b in zip(exact, rounded, strict=True))
    assert 0 < error < 4 * LARGEST_STEP[precision] * scale


def weighted(largest: float) -> onnx.ModelProto:
    """x -> x W -> softmax -> times V."""
    weights = np.full((4, 4), largest, np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["share"], axis=-1),
            helper.make_node("MatMul", ["share", "v"], ["y"]),
        ],
        "weighted",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(np.ones((4, 2), np.float32), "v"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_the_readout_stays_wide() -> None:
    types = types_of(in_precision(weighted(0.1), "fp16"))
    assert types["w__reduced"] == types["logits__reduced"] == TensorProto.FLOAT16
    assert types["v"] == TensorProto.FLOAT


def test_a_weight_beyond_fp16_is_refused() -> None:
    with pytest.raises(ExportError, match=r"'w' goes to 7e\+04, beyond fp16: use bf16"):
        in_precision(weighted(7e4), "fp16")
    in_precision(weighted(7e4), "bf16")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ExportError, match="there are: fp32, fp16, bf16"):
        in_precision(weighted(1.0), "int8")
