"""The GPU backends' own code, run without a GPU: fixed addresses, buckets, memory, tables.

ONNX Runtime's static sessions run on its CPU provider, torch's without the capture. What the GPU
adds (the capture itself, pinned memory, the device) is checked where there is one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.backends.onnxruntime_cpu import open_cpu
from export.backends.onnxruntime_cuda import Shapes, StaticOnnxruntimeBackend
from export.backends.onnxruntime_session import CPU
from export.backends.table import Backend
from export.bundle import DecoderBundle
from export.engines.shapes import for_bucket, lowered, n_rows_compiled, rows_are_gathered
from export.errors import BackendError, BackendUnavailable, BundleError
from export.parity import largest_error
from streams.messages import TokenWindow
from tests.export.families import write_streaming_bundle

torch_cuda_backend = pytest.importorskip("export.backends.torch_cuda")


def static_onnxruntime(bundle: DecoderBundle) -> StaticOnnxruntimeBackend:
    model = lowered(bundle, "fp32")
    n_rows = n_rows_compiled(bundle, model)
    graphs = {
        n: for_bucket(bundle, model, n, n_rows).SerializeToString()
        for n in bundle.manifest.token_buckets
    }
    manifest = bundle.manifest
    outputs = tuple(output.name for output in manifest.outputs)
    shapes = Shapes(manifest.graph, outputs, n_rows, rows_are_gathered(model, manifest.graph))
    return StaticOnnxruntimeBackend(
        "onnxruntime-cuda", "fp32", graphs, shapes, bundle.tables, providers=[CPU], device="cpu"
    )


def torch_graphs(bundle: DecoderBundle) -> Any:
    return torch_cuda_backend.open_on(bundle, "cpu")


OPENERS = {"onnxruntime": static_onnxruntime, "torch": torch_graphs}


@pytest.fixture(params=OPENERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_agrees_with_the_record(kind: str, family: DecoderBundle) -> None:
    backend = OPENERS[kind](family)
    assert largest_error(backend, family.parity()) <= family.manifest.parity.atol_fp32
    assert backend.n_most_tokens == family.manifest.token_buckets[-1]


def windows_of_every_bucket(bundle: DecoderBundle) -> list[TokenWindow]:
    rng = np.random.default_rng(3)
    n_rows = len(bundle.row_of_key)
    lengths = [0, 1, *(n - 3 for n in bundle.manifest.token_buckets), 5]
    return [
        TokenWindow(
            rng.integers(0, n_rows, n).astype(np.int32),
            np.sort(rng.uniform(0.0, bundle.manifest.bin_s, n)).astype(np.float32),
            np.ones(n, np.float32),
            t_window=0.0,
        )
        for n in lengths
    ]


def test_memory_is_carried_from_bucket_to_bucket(kind: str, family: DecoderBundle) -> None:
    backend, free = OPENERS[kind](family), open_cpu(family)
    for window in windows_of_every_bucket(family):
        found = {name: value.copy() for name, value in backend.step(window, 0.0).items()}
        for name, value in free.step(window, 0.0).items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-3)


def test_a_run_that_is_not_accepted_leaves_the_memory(
    kind: str, streaming_bundle: DecoderBundle
) -> None:
    backend, free = OPENERS[kind](streaming_bundle), OPENERS[kind](streaming_bundle)
    windows = windows_of_every_bucket(streaming_bundle)
    for window in windows:
        backend.predecode(windows[-1], 0.0)
        found = backend.predecode(window, 0.0)["velocity"].copy()
        backend.accept()
        np.testing.assert_array_equal(found, free.step(window, 0.0)["velocity"])


def test_reset_zeroes_the_memory(kind: str, streaming_bundle: DecoderBundle) -> None:
    backend = OPENERS[kind](streaming_bundle)
    window = windows_of_every_bucket(streaming_bundle)[2]
    first = backend.step(window, 0.0)["velocity"].copy()
    assert not np.array_equal(backend.step(window, 0.0)["velocity"], first)
    backend.reset()
    np.testing.assert_array_equal(backend.step(window, 0.0)["velocity"], first)


def test_the_lead_reaches_the_graph(kind: str, family: DecoderBundle) -> None:
    backend = OPENERS[kind](family)
    window, told = windows_of_every_bucket(family)[3], family.manifest.lead_s
    answers = []
    for lead_s in (told.min, told.max, told.min):
        backend.reset()
        answers.append(backend.step(window, lead_s)["velocity"].copy())
    assert not np.array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


def test_new_tables_are_uploaded(
    kind: str, streaming_bundle: DecoderBundle, tmp_path: Path
) -> None:
    other = write_streaming_bundle(tmp_path / "other", n_units=140)
    backend = OPENERS[kind](streaming_bundle)
    backend.set_tables(other.tables)
    assert largest_error(backend, other.parity()) <= other.manifest.parity.atol_fp32
    backend.set_tables(streaming_bundle.tables)
    assert largest_error(backend, streaming_bundle.parity()) <= 1e-4


def test_tables_that_do_not_fit_are_refused(kind: str, family: DecoderBundle) -> None:
    backend = OPENERS[kind](family)
    with pytest.raises(BundleError, match="none was given"):
        backend.set_tables({"table": family.tables["table"]})
    with pytest.raises(BundleError, match="float64"):
        backend.set_tables({**family.tables, "session": family.tables["session"].astype(float)})


def test_more_rows_than_the_engine_was_made_for_are_refused(
    streaming_bundle: DecoderBundle, poyo_bundle: DecoderBundle
) -> None:
    for bundle, n_rows in ((streaming_bundle, 257), (poyo_bundle, 11)):
        backend = static_onnxruntime(bundle)
        table = np.resize(bundle.tables["table"], (n_rows, bundle.tables["table"].shape[1]))
        with pytest.raises(BundleError, match=f"has {n_rows} rows, the engine was made for"):
            backend.set_tables({**bundle.tables, "table": table})


def test_a_step_that_fails_is_a_backend_error(kind: str, streaming_bundle: DecoderBundle) -> None:
    backend: Backend = OPENERS[kind](streaming_bundle)
    beyond = TokenWindow(
        np.full(3, 10**6, np.int32), np.zeros(3, np.float32), np.ones(3, np.float32), t_window=0.0
    )
    with pytest.raises(BackendError, match="failed on 3 tokens"):
        backend.step(beyond, 0.0)


def test_torch_without_a_gpu_says_what_to_install(poyo_bundle: DecoderBundle) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(BackendUnavailable, match=r"built without CUDA|finds no GPU"):
        torch_cuda_backend.open_cuda(poyo_bundle)


def test_torch_agrees_on_a_gpu(family: DecoderBundle) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU at hand")
    backend = torch_cuda_backend.open_cuda(family)
    assert largest_error(backend, family.parity()) <= family.manifest.parity.atol_fp32
