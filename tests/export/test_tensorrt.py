"""Engines by TensorRT for RTX, built without a GPU: both families, every bucket and precision."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.backends.onnxruntime_cpu import OnnxruntimeBackend, open_graph
from export.backends.opening import Backend, open_backend
from export.bundle import DecoderBundle, open_bundle
from export.engines.build import build
from export.engines.builds import Build, Environment, bucket_name, find_build
from export.engines.gpu import find_gpu
from export.engines.precision import rounding
from export.engines.shapes import for_bucket, lowered, n_rows_compiled, static_signature
from export.errors import BackendUnavailable, ExportError, GateError
from export.manifest import Graph, Tensor
from export.parity import largest_error
from export.random_bundles.sizes import write_random
from export.tensorrt.library import DESKTOP, Library, library_for
from export.tensorrt.plan import build_plan, without_fp32_products

SIZES = ("streaming-0.5M", "streaming-8M", "poyo-1.3M")


def no_loss(backend: Backend) -> Mapping[str, Any]:
    return {"session": "none", "drop": 0.0}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPIKELOOP_BUILDS", str(tmp_path / "builds"))
    return tmp_path / "builds"


@pytest.fixture(scope="session")
def library() -> Library:
    return library_for(None)


@pytest.fixture(params=SIZES)
def size(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DecoderBundle:
    where = tmp_path_factory.getbasetemp() / "sizes" / request.param
    if where.exists():
        return open_bundle(where)
    where.parent.mkdir(exist_ok=True)
    return write_random(where, request.param, n_units=1000, hop_s=0.01, bin_s=0.02)


def require_plans(made: Build, bundle: DecoderBundle) -> None:
    """An engine per bucket, for the cards asked for, that names every input and output."""
    assert made.token_buckets == bundle.manifest.token_buckets
    assert made.record["targets"] == list(DESKTOP)
    graph = bundle.manifest.graph
    for n_tokens in made.token_buckets:
        plan = made.read_bucket(n_tokens, "plan")
        for tensor in (*graph.inputs, *graph.outputs):
            assert tensor.name.encode() in plan


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_engines_of_published_sizes(size: DecoderBundle, precision: str) -> None:
    made = build(size, "tensorrt", precision)
    require_plans(made, size)
    assert made.record["precision"] == precision


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_engines_of_every_bucket(family: DecoderBundle, precision: str) -> None:
    assert len(family.manifest.token_buckets) > 1
    require_plans(build(family, "tensorrt", precision), family)


def graph_of(bundle: DecoderBundle, precision: str = "fp32") -> tuple[onnx.ModelProto, Graph]:
    model = lowered(bundle, precision)
    lengths = {
        "n_tokens": bundle.manifest.token_buckets[0],
        "n_rows": n_rows_compiled(bundle, model),
    }
    return for_bucket(bundle, model, **lengths), static_signature(bundle.manifest.graph, **lengths)


def changed(tensor: Tensor, **fields: Any) -> Tensor:
    return tensor.model_copy(update=fields)


@pytest.mark.parametrize("fields", [{"shape": (3,)}, {"dtype": "int32"}, {"name": "lead_ms"}])
def test_an_engine_of_other_inputs_is_refused(
    streaming_bundle: DecoderBundle, library: Library, fields: dict[str, Any]
) -> None:
    graph, signature = graph_of(streaming_bundle)
    inputs = [changed(t, **fields) if t.name == "lead_s" else t for t in signature.inputs]
    other = signature.model_copy(update={"inputs": tuple(inputs)})
    with pytest.raises(ExportError, match="reads `lead_"):
        build_plan(library, graph.SerializeToString(), other, DESKTOP)


@pytest.mark.parametrize(("op", "kind"), [("BitwiseNot", "INT32"), ("Det", "FLOAT")])
def test_an_operator_that_it_lacks_is_named(library: Library, op: str, kind: str) -> None:
    dtype = getattr(TensorProto, kind)
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], name="the_odd_one")],
        "odd",
        [helper.make_tensor_value_info("x", dtype, [3, 3])],
        [helper.make_tensor_value_info("y", dtype, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    nothing = Graph.model_construct(inputs=(), outputs=())
    with pytest.raises(ExportError, match=rf"{op} 'the_odd_one'"):
        build_plan(library, model.SerializeToString(), nothing, DESKTOP)


def test_turing_multiplies_in_fp16(family: DecoderBundle) -> None:
    made = build(family, "tensorrt", "fp16", targets=["sm75"])
    assert made.record["targets"] == ["sm75"]
    assert made.token_buckets == family.manifest.token_buckets


def test_turing_refuses_fp32_and_company(streaming_bundle: DecoderBundle, folder: Path) -> None:
    with pytest.raises(ExportError, match=r"node_\w+' for Turing.*--precision fp16"):
        build(streaming_bundle, "tensorrt", "fp32", targets=["sm75"])
    with pytest.raises(BackendUnavailable, match="build it alone"):
        build(streaming_bundle, "tensorrt", "fp16", targets=["sm75", "sm86"])
    assert not list(folder.glob("*"))


def test_turing_computes_the_same(streaming_bundle: DecoderBundle) -> None:
    graph, signature = graph_of(streaming_bundle, "fp16")
    summed = without_fp32_products(graph)
    manifest = streaming_bundle.manifest
    n_tokens = manifest.token_buckets[0]
    window = streaming_bundle.parity().window(1)
    padded = type(window)(
        *(np.resize(v, n_tokens) for v in (window.unit, window.t_rel, window.count)),
        t_window=0.0,
    )
    outputs = [output.name for output in manifest.outputs]
    rows = {t.name: t.shape for t in signature.tables}
    tables = {
        name: np.resize(values, rows[name]).astype(values.dtype)
        for name, values in streaming_bundle.tables.items()
    }
    steps = [
        OnnxruntimeBackend(one.SerializeToString(), signature, tables, outputs).step(padded, 0.0)
        for one in (graph, summed)
    ]
    for name in outputs:
        np.testing.assert_allclose(steps[0][name], steps[1][name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("target", ["sm90", "sm61", "ada"])
def test_a_card_that_it_does_not_know_is_named(pristine: DecoderBundle, target: str) -> None:
    with pytest.raises(BackendUnavailable, match=rf"no target {target}; it has: sm75, sm80"):
        build(pristine, "tensorrt", "fp32", targets=[target])


def test_other_backends_have_no_targets(pristine: DecoderBundle) -> None:
    with pytest.raises(BackendUnavailable, match="leave --target out"):
        build(pristine, "onnxruntime-cpu", "fp16", targets=["sm86"], judge=no_loss)


def on_card(library: Library, target: str) -> Environment:
    return Environment(str(library), f"a card, {target}", (target,))


def test_a_build_is_found_on_each_card_it_is_for(
    streaming_bundle: DecoderBundle, library: Library
) -> None:
    made = build(streaming_bundle, "tensorrt", "fp32")
    for target in DESKTOP:
        assert find_build(streaming_bundle, "tensorrt", "fp32", on_card(library, target)) == made
    with pytest.raises(BackendUnavailable, match=r"on a card, sm121.*builds for: .*sm86, sm89"):
        find_build(streaming_bundle, "tensorrt", "fp32", on_card(library, "sm121"))


def test_half_precision_is_served_once_its_cost_is_known(
    streaming_bundle: DecoderBundle, library: Library, folder: Path
) -> None:
    card = on_card(library, "sm89")
    build(streaming_bundle, "tensorrt", "fp16")
    with pytest.raises(BackendUnavailable, match=r"not the R2 that fp16 costs: .*--session"):
        find_build(streaming_bundle, "tensorrt", "fp16", card)
    judged: list[Backend] = []

    def loses(backend: Backend) -> Mapping[str, Any]:
        judged.append(backend)
        return {"session": "s", "drop": 0.02}

    with pytest.raises(GateError, match=r"fp16 loses 0\.0200"):
        build(streaming_bundle, "tensorrt", "fp16", judge=loses)
    build(streaming_bundle, "tensorrt", "fp16", judge=no_loss)
    found = find_build(streaming_bundle, "tensorrt", "fp16", card)
    assert found.record["verdict"]["parity_error"] is None  # no GPU has run it
    assert "rounding" in found.record["verdict"]["judged_on"]
    error = largest_error(judged[0], streaming_bundle.parity())
    assert 1e-4 < error <= streaming_bundle.manifest.parity.atol_reduced
    assert len(list(folder.glob("*"))) == 1


def test_engines_travel_with_their_bundle(
    bundle: DecoderBundle, library: Library, folder: Path, tmp_path: Path
) -> None:
    made = build(bundle, "tensorrt", "fp32", with_bundle=True)
    assert made.path.parent == bundle.path / "engines"
    assert not folder.exists()
    shutil.copytree(bundle.path, tmp_path / "rig")
    there = open_bundle(tmp_path / "rig")
    assert there.manifest.id == bundle.manifest.id
    found = find_build(there, "tensorrt", "fp32", on_card(library, "sm120"))
    n_tokens = found.token_buckets[0]
    assert found.read_bucket(n_tokens, "plan") == made.read_bucket(n_tokens, "plan")


def test_a_damaged_engine_is_refused(bundle: DecoderBundle) -> None:
    made = build(bundle, "tensorrt", "fp32")
    n_tokens = made.token_buckets[0]
    path = made.file(bucket_name(n_tokens, "plan"))
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(held)
    with pytest.raises(BackendUnavailable, match="checksum differs"):
        made.read_bucket(n_tokens, "plan")
    path.unlink()
    with pytest.raises(BackendUnavailable, match="No such file"):
        made.read_bucket(n_tokens, "plan")


def test_rounding_on_the_cpu_is_that_of_the_graph(family: DecoderBundle) -> None:
    """In fp16 ONNX Runtime has kernels of its own to hold it against; bf16 rounds eight times."""
    errors = {}
    for precision in ("fp16", "bf16"):
        rounded = rounding(lowered(family, precision)).SerializeToString()
        errors[precision] = largest_error(open_graph(family, rounded, precision), family.parity())
    fp16 = lowered(family, "fp16").SerializeToString()
    own = largest_error(open_graph(family, fp16, "fp16"), family.parity())
    assert own / 10 < errors["fp16"] < own * 10
    assert 2 * errors["fp16"] < errors["bf16"] < 32 * errors["fp16"]


def has_gpu() -> bool:
    try:
        find_gpu()
    except BackendUnavailable:
        return False
    return True


@pytest.mark.skipif(has_gpu(), reason="a machine without a GPU is asked for")
def test_without_a_gpu_engines_are_not_opened(streaming_bundle: DecoderBundle) -> None:
    build(streaming_bundle, "tensorrt", "fp32")
    with pytest.raises(BackendUnavailable, match="no NVIDIA GPU"):
        open_backend(streaming_bundle, "tensorrt")
    assert open_backend(streaming_bundle, "tensorrt", ["onnxruntime-cpu"]).tried


@pytest.mark.skipif(has_gpu(), reason="a machine without a driver is asked for")
def test_without_a_driver_the_library_says_so(
    streaming_bundle: DecoderBundle, library: Library
) -> None:
    from export.tensorrt.engine import Engine

    made = build(streaming_bundle, "tensorrt", "fp32")
    plan = made.read_bucket(made.token_buckets[0], "plan")
    with pytest.raises(BackendUnavailable, match=r"does not open the engine.*driver"):
        Engine(library, plan, {}, "no card")


@pytest.mark.skipif(not has_gpu(), reason="no NVIDIA GPU on this machine")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_an_engine_agrees_with_the_record(family: DecoderBundle, precision: str) -> None:
    build(family, "tensorrt", precision, judge=no_loss)
    opened = open_backend(family, f"tensorrt:{precision}")
    assert opened.backend.precision == precision


@pytest.mark.skipif(not has_gpu(), reason="no NVIDIA GPU on this machine")
def test_a_run_that_is_not_accepted_leaves_the_memory(streaming_bundle: DecoderBundle) -> None:
    build(streaming_bundle, "tensorrt", "fp32")
    backend: Any = open_backend(streaming_bundle, "tensorrt").backend
    record = streaming_bundle.parity()
    first = {k: v.copy() for k, v in backend.predecode(record.window(3), 0.0).items()}
    again = {k: v.copy() for k, v in backend.predecode(record.window(3), 0.0).items()}
    backend.accept()
    for name, value in backend.step(record.window(3), 0.0).items():
        np.testing.assert_array_equal(first[name], again[name])
        assert (value != first[name]).any()
