"""TensorRT where it is installed and a GPU is at hand; else skipped, with that reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.backends import open_backend
from export.bundle import DecoderBundle
from export.compiled.build import build
from export.errors import BackendUnavailable
from tests.export.families import write_streaming_bundle

REASON = "TensorRT's libraries cannot be had from the package registries; install NVIDIA's"
tensorrt = pytest.importorskip("tensorrt", reason=REASON)
pytest.importorskip("cuda.bindings.runtime", reason=REASON)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKELOOP_BUILDS", str(tmp_path / "builds"))


@pytest.fixture(autouse=True)
def _gpu() -> None:
    from export.compiled.gpu import describe_gpu

    try:
        describe_gpu()
    except BackendUnavailable as error:
        pytest.skip(str(error))


def no_loss(backend: Any) -> Mapping[str, Any]:
    return {"session": "none", "drop": 0.0}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_an_engine_agrees_with_the_record(family: DecoderBundle, precision: str) -> None:
    build(family, "tensorrt", precision, judge=no_loss)
    opened = open_backend(family, f"tensorrt:{precision}")
    assert opened.backend.precision == precision


def test_a_swap_uploads_tables(streaming_bundle: DecoderBundle, tmp_path: Path) -> None:
    other = write_streaming_bundle(tmp_path / "other", n_units=140)
    build(streaming_bundle, "tensorrt", "fp32")
    backend = open_backend(streaming_bundle, "tensorrt").backend
    backend.set_tables(other.tables)
    window = other.parity().window(3)
    expected = open_backend(other, "onnxruntime-cpu").backend.step(window, 0.0)
    for name, value in backend.step(window, 0.0).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-3)


def test_the_parser_takes_what_the_table_says(family: DecoderBundle) -> None:
    """The carried table of operators against the parser itself."""
    from export.compiled.lowering import lowered

    log = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(log)
    parser = tensorrt.OnnxParser(builder.create_network(0), log)
    for node in lowered(family, "fp32").graph.node:
        assert parser.supports_operator(node.op_type), node.op_type
