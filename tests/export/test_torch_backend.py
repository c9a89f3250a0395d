from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the reference is not run")

from decoders.streaming.decoder import OutputSpec, StepModule, StreamingConfig  # noqa: E402
from export.backends import open_backend  # noqa: E402
from export.bundle import DecoderBundle, write_bundle  # noqa: E402
from export.errors import BackendError, BundleError  # noqa: E402
from export.graph import OPSET, streaming_graph  # noqa: E402
from export.onnxruntime_backend import describe_graph  # noqa: E402
from export.parity import largest_error, random_tokens, replay  # noqa: E402
from export.torch_backend import TorchBackend, open_cpu  # noqa: E402
from streams.messages import TokenWindow  # noqa: E402

KEYS = [f"u{i}" for i in range(30)]
CONFIG = StreamingConfig(
    outputs=(OutputSpec("velocity", 2), OutputSpec("target", 4, classes=True)),
    bin_s=0.02,
    n_latents=3,
    d_unit=16,
    d_value=8,
    d_model=16,
    d_memory=24,
    d_readout=12,
)


def _parts() -> tuple[dict[str, Any], dict[str, Any]]:
    """An untrained network as `write_bundle` takes it, its record made by torch."""
    torch.manual_seed(0)
    step = StepModule(CONFIG).eval()
    step.decoder.scale[:] = 20.0
    graph = streaming_graph(step)
    signature = describe_graph(graph, OPSET)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        table = step.decoder.encoder.fold(torch.randn(len(KEYS), CONFIG.d_unit)).numpy()
    tables = {"table": table, "session": rng.normal(0, 0.1, 12).astype(np.float32)}
    tables["centre"] = rng.normal(0, 0.01, CONFIG.n_pooled).astype(np.float32)
    tokens = random_tokens(rng, n_rows=len(KEYS), n_beats=100, bin_s=0.02)
    names = [output.name for output in CONFIG.outputs]
    fields = {
        "name": "untrained",
        "family": "streaming",
        "session": "nobody/2026-11-21/untrained",
        "units": [{"key": key, "row": row} for row, key in enumerate(KEYS)],
        "hop_s": 0.02,
        "bin_s": 0.02,
        "context_s": 1.0,
        "stale_after_s": 0.1,
        "token_buckets": [64],
        "lead_s": {"min": 0.0, "max": 0.0, "default": 0.0},
        "outputs": [
            {"name": "velocity", "dims": 2, "unit": "cm/s", "low": [-9.0] * 2, "high": [9.0] * 2},
            {"name": "target", "dims": 4, "unit": "", "low": [0.0] * 4, "high": [1.0] * 4},
        ],
        "graph": signature.model_dump(),
        "training": {"config": json.loads(json.dumps(CONFIG.to_dict()))},
    }
    return fields, {
        "graph": graph,
        "tables": tables,
        "weights": {name: value.numpy() for name, value in step.state_dict().items()},
        "parity": replay(TorchBackend(step, signature, tables, names), tokens),
    }


@pytest.fixture(scope="module")
def parts() -> tuple[dict[str, Any], dict[str, Any]]:
    return _parts()


@pytest.fixture(scope="module")
def untrained(
    parts: tuple[dict[str, Any], dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> DecoderBundle:
    fields, contents = parts
    return write_bundle(tmp_path_factory.mktemp("torch") / "b", fields, **contents)


def test_graph_and_module_agree_on_carried_memory(untrained: DecoderBundle) -> None:
    opened = open_backend(untrained, "onnxruntime-cpu")
    assert 0 < opened.parity_error < 1e-4


def test_weights_on_disk_are_the_network(untrained: DecoderBundle) -> None:
    opened = open_backend(untrained, "torch")
    assert opened.backend.name == "torch"
    assert opened.parity_error < 1e-5


def test_other_weights_disagree_with_the_record(
    parts: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    fields, contents = parts
    weights = dict(contents["weights"])
    weights["decoder.readout.bias"] = weights["decoder.readout.bias"] + np.float32(0.01)
    bundle = write_bundle(tmp_path / "b", fields, **{**contents, "weights": weights})
    assert largest_error(open_cpu(bundle), bundle.parity()) == pytest.approx(0.2, rel=0.1)
    with pytest.raises(BundleError, match="backend 'torch' disagrees"):
        open_backend(bundle, "torch")


def test_weights_of_another_network_are_refused(
    parts: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    fields, contents = parts
    weights = dict(contents["weights"])
    del weights["decoder.mix.bias"]
    bundle = write_bundle(tmp_path / "b", fields, **{**contents, "weights": weights})
    with pytest.raises(BundleError, match=r"decoder\.mix\.bias"):
        open_backend(bundle, "torch")


def test_reset_and_tables(untrained: DecoderBundle) -> None:
    backend = open_cpu(untrained)
    beat = untrained.parity().window(5)
    fresh = backend.step(beat, 0.0)["velocity"].copy()
    assert np.abs(backend.step(beat, 0.0)["velocity"] - fresh).max() > 1e-4
    backend.reset()
    np.testing.assert_array_equal(backend.step(beat, 0.0)["velocity"], fresh)
    backend.set_tables({**untrained.tables, "table": untrained.tables["table"][::-1]})
    backend.reset()
    assert np.abs(backend.step(beat, 0.0)["velocity"] - fresh).max() > 1e-4
    with pytest.raises(BundleError, match="none was given"):
        backend.set_tables({})


def test_row_that_is_not_there_is_a_step_that_failed(untrained: DecoderBundle) -> None:
    one = np.ones(1, np.float32)
    with pytest.raises(BackendError, match="torch failed on 1 tokens"):
        open_cpu(untrained).step(TokenWindow(np.array([30], np.int32), one, one, 0.0), 0.0)
