"""Static graphs, one a bucket, run by ONNX Runtime and held against the graph of any length."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.backends.onnxruntime_cpu import OnnxruntimeBackend, open_cpu
from export.bundle import DecoderBundle
from export.engines.constants import static_shapes
from export.engines.shapes import (
    for_bucket,
    lowered,
    n_rows_compiled,
    pinned,
    require_static,
    static_signature,
)
from export.engines.tables import fitted_tables, n_rows_of
from export.errors import ExportError
from streams.messages import TokenWindow


def first_of(window: TokenWindow, n: int) -> TokenWindow:
    return TokenWindow(window.unit[:n], window.t_rel[:n], window.count[:n], window.t_window)


def padded(window: TokenWindow, n_tokens: int) -> TokenWindow:
    n_more = n_tokens - len(window)
    return TokenWindow(
        np.pad(window.unit, (0, n_more)),
        np.pad(window.t_rel, (0, n_more)),
        np.pad(window.count, (0, n_more)),
        window.t_window,
    )


def static_backend(bundle: DecoderBundle, n_tokens: int, n_rows: int) -> OnnxruntimeBackend:
    model = for_bucket(bundle, lowered(bundle, "fp32"), n_tokens, n_rows)
    signature = bundle.manifest.graph
    tables = fitted_tables(signature, bundle.tables, n_rows)
    fixed = static_signature(signature, n_tokens=n_tokens, n_rows=n_rows)
    names = [output.name for output in bundle.manifest.outputs]
    return OnnxruntimeBackend(model.SerializeToString(), fixed, tables, names)


def test_a_padded_window_decodes_as_the_same_window_of_any_length(family: DecoderBundle) -> None:
    assert len(family.manifest.token_buckets) == 3
    n_rows = n_rows_compiled(family, lowered(family, "fp32"))
    record, free = family.parity(), open_cpu(family)
    for n_tokens in family.manifest.token_buckets:
        fixed = static_backend(family, n_tokens, n_rows)
        free.reset()
        for i_beat in range(len(record)):
            window = first_of(record.window(i_beat), n_tokens)
            lead_s = float(record.lead_s[i_beat])
            found = fixed.step(padded(window, n_tokens), lead_s)
            for name, value in free.step(window, lead_s).items():
                np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-4)


def test_every_shape_is_static(family: DecoderBundle) -> None:
    model = lowered(family, "fp32")
    for n_tokens in family.manifest.token_buckets:
        fixed = for_bucket(family, model, n_tokens, n_rows_compiled(family, model))
        require_static(fixed)
        shapes = static_shapes(fixed)
        assert shapes["unit"] == (n_tokens,)
        assert all(0 not in shapes[name] for node in fixed.graph.node for name in node.output)


def test_rows_are_padded_where_only_tokens_ask_for_them(
    streaming_bundle: DecoderBundle, poyo_bundle: DecoderBundle
) -> None:
    streaming = n_rows_compiled(streaming_bundle, lowered(streaming_bundle, "fp32"))
    assert (n_rows_of(streaming_bundle), streaming) == (150, 256)
    poyo = n_rows_compiled(poyo_bundle, lowered(poyo_bundle, "fp32"))
    assert (n_rows_of(poyo_bundle), poyo) == (12, 12)


def test_a_shape_that_depends_on_values_is_refused() -> None:
    ask = helper.make_node("NonZero", ["x"], ["where"])
    wide = helper.make_node("Cast", ["where"], ["y"], to=TensorProto.FLOAT)
    graph = helper.make_graph(
        [ask, wide],
        "varying",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "M"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    with pytest.raises(ExportError, match="`y` has a length 'M' that nothing fixes"):
        pinned(model, {"N": 8})
    with pytest.raises(ExportError, match="'where', made by NonZero, is not known"):
        require_static(model)
