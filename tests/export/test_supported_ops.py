"""Every operator of both families is one that TensorRT's parser takes, in every precision."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from export.bundle import DecoderBundle, open_bundle
from export.compiled.lowering import for_bucket, lowered, n_rows_compiled
from export.compiled.supported_ops import complaints, require_supported
from export.errors import ExportError
from service.serve import bundle_path


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_both_families_in_every_bucket(family: DecoderBundle, precision: str) -> None:
    model = lowered(family, precision)
    n_rows = n_rows_compiled(family, model)
    for n_tokens in family.manifest.token_buckets:
        fixed = for_bucket(family, model, n_tokens, n_rows)
        assert complaints(fixed) == []
        assert not {"If", "Loop", "Scan", "Shape", "Range"} & {n.op_type for n in fixed.graph.node}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_shipped_decoder(precision: str) -> None:
    bundle = open_bundle(bundle_path("shipped:demo"))
    model = lowered(bundle, precision)
    for n_tokens in bundle.manifest.token_buckets:
        assert complaints(for_bucket(bundle, model, n_tokens, n_rows_compiled(bundle, model))) == []


def single(op: str, dtype: int, *, opset: int = 20, **attributes: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], **attributes)],
        "single",
        [helper.make_tensor_value_info("x", dtype, [3])],
        [helper.make_tensor_value_info("y", dtype, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (
            single("BitwiseNot", TensorProto.INT32),
            "BitwiseNot that makes 'y': no operator of TensorRT",
        ),
        (single("Neg", TensorProto.DOUBLE), "Neg that makes 'y': its data is unknown, not bf16"),
        (single("Floor", TensorProto.FLOAT, opset=21), "opset 21 of ONNX is none of 9 to 20"),
    ],
)
def test_what_the_parser_would_refuse_is_named(model: onnx.ModelProto, told: str) -> None:
    with pytest.raises(ExportError, match=told):
        require_supported(model, "it")


def test_axes_must_be_constants() -> None:
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"])],
        "sum",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 4]),
            helper.make_tensor_value_info("axes", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert complaints(model) == ["ReduceSum that makes 'y': its input 1 must be a constant"]
