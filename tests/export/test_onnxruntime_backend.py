from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from export.backends import onnxruntime_cpu
from export.backends.onnxruntime_cpu import (
    OnnxruntimeBackend,
    describe_graph,
    open_cpu,
    record_parity,
)
from export.backends.onnxruntime_cuda import open_cuda
from export.bundle import DecoderBundle
from export.errors import BackendError, BackendUnavailable, BundleError
from export.parity import largest_error, random_tokens, replay
from streams.messages import TokenWindow
from tests.export.tiny_graph import N_HIDDEN, OPSET, tiny_graph

BACKEND_FILE = onnxruntime_cpu.__file__


def window(n_tokens: int, seed: int = 0, n_rows: int = 4) -> TokenWindow:
    rng = np.random.default_rng(seed)
    return TokenWindow(
        unit=rng.integers(0, n_rows, n_tokens).astype(np.int32),
        t_rel=rng.uniform(0, 0.02, n_tokens).astype(np.float32),
        count=np.ones(n_tokens, np.float32),
        t_window=0.0,
    )


@pytest.fixture
def backend(pristine: DecoderBundle) -> OnnxruntimeBackend:
    return open_cpu(pristine)


def test_beats_equal_the_reference_evaluator(
    pristine: DecoderBundle, backend: OnnxruntimeBackend
) -> None:
    reference = ReferenceEvaluator(str(pristine.graph_path))
    memory = np.zeros((1, N_HIDDEN), np.float32)
    for i_beat, n_tokens in enumerate((5, 0, 0, 40, 1, 300, 7)):
        beat = window(n_tokens, seed=i_beat)
        lead_s = 0.05 * (i_beat // 3)
        tokens = {"unit": beat.unit, "t_rel": beat.t_rel, "count": beat.count}
        lead = {"lead_s": np.array([lead_s], np.float32), "memory_h": memory}
        velocity, position, memory = reference.run(None, {**tokens, **lead, **pristine.tables})
        found = backend.step(beat, lead_s)
        np.testing.assert_allclose(found["velocity"], velocity, atol=1e-5)
        np.testing.assert_allclose(found["position"], position, atol=1e-5)


def test_memory_is_carried_and_reset(backend: OnnxruntimeBackend) -> None:
    fresh = backend.step(window(10), 0.0)["velocity"].copy()
    carried = backend.step(window(10), 0.0)["velocity"].copy()
    assert np.abs(carried - fresh).max() > 1e-3
    for n_steps in (1, 2):
        for _ in range(n_steps):
            backend.step(window(50, seed=3), 0.0)
        backend.reset()
        np.testing.assert_array_equal(backend.step(window(10), 0.0)["velocity"], fresh)


def test_values_stay_in_one_buffer(backend: OnnxruntimeBackend) -> None:
    first = backend.step(window(10), 0.0)["velocity"]
    kept = first.copy()
    second = backend.step(window(20, seed=1), 0.0)["velocity"]
    assert second is first
    assert not np.array_equal(second, kept)


def test_padding_changes_nothing(backend: OnnxruntimeBackend) -> None:
    beat = window(10)
    padded = TokenWindow(
        unit=np.concatenate([beat.unit, np.zeros(6, np.int32)]),
        t_rel=np.concatenate([beat.t_rel, np.zeros(6, np.float32)]),
        count=np.concatenate([beat.count, np.zeros(6, np.float32)]),
        t_window=0.0,
    )
    plain = backend.step(beat, 0.0)["velocity"].copy()
    backend.reset()
    np.testing.assert_allclose(backend.step(padded, 0.0)["velocity"], plain, atol=1e-6)


def test_graph_that_cannot_run_on_no_tokens_never_has_to(pristine: DecoderBundle) -> None:
    model = onnx.load_from_string(tiny_graph())
    for node in model.graph.node:
        if node.op_type == "ReduceSum":
            node.op_type = "ReduceMax"  # over no tokens it is not a number
    graph = model.SerializeToString()
    backend = OnnxruntimeBackend(graph, describe_graph(graph, OPSET), pristine.tables, ["velocity"])
    assert np.isfinite(backend.step(window(0), 0.0)["velocity"]).all()


def test_new_tables_need_no_new_session(
    pristine: DecoderBundle, backend: OnnxruntimeBackend
) -> None:
    before = backend.step(window(10), 0.0)["velocity"].copy()
    backend.reset()
    more_rows = np.concatenate([pristine.tables["table"][::-1], np.zeros((3, 8), np.float32)])
    backend.set_tables({"table": more_rows, "session": pristine.tables["session"]})
    mirrored = window(10)
    mirrored.unit[:] = 3 - mirrored.unit
    np.testing.assert_array_equal(backend.step(mirrored, 0.0)["velocity"], before)


def test_tables_are_copied(pristine: DecoderBundle, backend: OnnxruntimeBackend) -> None:
    mine = {name: values.copy() for name, values in pristine.tables.items()}
    backend.set_tables(mine)
    before = backend.step(window(10), 0.0)["velocity"].copy()
    mine["table"][:] = 7.0
    backend.reset()
    np.testing.assert_array_equal(backend.step(window(10), 0.0)["velocity"], before)


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        ({}, "table 'table', none was given"),
        ({"table": np.zeros((4, 9), np.float32)}, r"`table` is float32 \[4, 9\]"),
        ({"table": np.zeros((4, 8))}, "`table` is float64"),
    ],
)
def test_tables_that_do_not_fit(
    backend: OnnxruntimeBackend, tables: dict[str, np.ndarray], complaint: str
) -> None:
    with pytest.raises(BundleError, match=complaint):
        backend.set_tables(tables)


def test_row_that_is_not_there_is_a_step_that_failed(backend: OnnxruntimeBackend) -> None:
    beat = window(3)
    beat.unit[1] = 99
    with pytest.raises(BackendError, match="onnxruntime-cpu failed on 3 tokens"):
        backend.step(beat, 0.0)
    assert np.isfinite(backend.step(window(3), 0.0)["velocity"]).all()


def test_tokens_of_another_type_are_a_step_that_failed(backend: OnnxruntimeBackend) -> None:
    beat = window(3)
    with pytest.raises(BackendError):
        backend.step(TokenWindow(beat.unit, beat.t_rel.astype(float), beat.count, 0.0), 0.0)


def test_steady_steps_keep_no_memory(backend: OnnxruntimeBackend) -> None:
    beats = [window(n) for n in (0, 3, 20, 50, 7, 120, 80, 1)]
    for beat in beats:
        backend.step(beat, 0.0)
    tracemalloc.start()
    for i in range(2000):
        backend.step(beats[i % len(beats)], 0.0)
    kept = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, BACKEND_FILE)])
    tracemalloc.stop()
    assert sum(trace.size for trace in kept.statistics("filename")) < 4096


def test_graph_other_than_declared(pristine: DecoderBundle) -> None:
    other = tiny_graph(("velocity",))
    with pytest.raises(BundleError, match="`position` is absent in the graph, float32"):
        OnnxruntimeBackend(
            other, pristine.manifest.graph, pristine.tables, ["velocity", "position"]
        )


def test_graph_that_does_not_load(pristine: DecoderBundle) -> None:
    with pytest.raises(BundleError, match="cannot load it"):
        OnnxruntimeBackend(b"no graph", pristine.manifest.graph, pristine.tables, ["velocity"])


def test_signature_as_the_contract_says() -> None:
    found = describe_graph(tiny_graph(("velocity", "position")), OPSET)
    assert [tensor.name for tensor in found.tables] == ["table", "session"]
    assert found.memory == ("memory_h",)
    assert found.inputs[0].model_dump() == {"name": "unit", "dtype": "int32", "shape": ("N",)}
    assert [tensor.name for tensor in found.outputs] == ["velocity", "position", "memory_h_out"]


def test_record_begins_with_an_empty_beat_and_zero_memory(pristine: DecoderBundle) -> None:
    tokens = random_tokens(np.random.default_rng(5), n_rows=4, n_beats=30, bin_s=0.05, n_most=64)
    graph = pristine.graph_path.read_bytes()
    names = ["velocity", "position"]
    record = record_parity(graph, pristine.manifest.graph, pristine.tables, tokens, names)
    assert len(record.window(0)) == 0
    assert record.outputs["velocity"].shape == (30, 2)
    backend = open_cpu(pristine)
    backend.step(window(100), 0.0)
    assert largest_error(backend, record) == 0.0
    shifted = replay(backend, record).outputs["velocity"] + np.float32(0.5)
    record.outputs["velocity"][:] = shifted
    assert largest_error(backend, record) == pytest.approx(0.5, rel=1e-5)


def test_cuda_that_is_not_there_says_what_to_install(pristine: DecoderBundle) -> None:
    with pytest.raises(BackendUnavailable, match=r"pip install 'spikeloop\[gpu\]'"):
        open_cuda(pristine)


def test_onnxruntime_tells_nobody_what_it_runs(pristine: DecoderBundle, tmp_path: Path) -> None:
    """From 1.29 on it sends events to its maker, and keeps an id of the device in the cache."""
    code = (
        "import sys; from pathlib import Path; from export.bundle import open_bundle; "
        "from export.backends.onnxruntime_cpu import open_cpu; "
        "open_cpu(open_bundle(Path(sys.argv[1])))"
    )
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    homes = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-c", code, str(pristine.path)], env=kept | homes, check=True, timeout=60
    )
    assert [path.name for path in tmp_path.rglob("*")] == []
