"""Decoders of a given size: as large as their names say, in parity, and timed by `bench gpu`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from decoders.poyo.network import Poyo  # noqa: E402
from decoders.streaming.shape import StreamingConfig  # noqa: E402
from decoders.streaming.step import StepModule  # noqa: E402
from export.backends.opening import open_backend  # noqa: E402
from export.engines.floor import floor_of  # noqa: E402
from export.engines.shapes import for_bucket, lowered  # noqa: E402
from export.errors import ExportError  # noqa: E402
from export.parity import random_tokens  # noqa: E402
from export.random_bundles.sizes import (  # noqa: E402
    POYO,
    SIZES,
    STREAMING,
    VELOCITY,
    write_random,
)
from service.cli import main  # noqa: E402


@pytest.mark.parametrize("size", SIZES)
def test_it_is_as_large_as_its_name_says(size: str) -> None:
    with torch.device("meta"):
        network = (
            StepModule(StreamingConfig((VELOCITY,), 0.02, **STREAMING[size]))
            if size in STREAMING
            else Poyo(POYO[size](2), [], [])
        )
    millions = sum(parameter.numel() for parameter in network.parameters()) * 1e-6
    assert millions == pytest.approx(float(size.rpartition("-")[2].rstrip("M")), rel=0.1)


def test_a_bundle_of_it_passes_the_gate(tmp_path: Path) -> None:
    bundle = write_random(tmp_path / "b", "streaming-0.5M", n_units=50, hop_s=0.01, bin_s=0.02)
    assert bundle.manifest.token_buckets == (20,)
    assert open_backend(bundle, "onnxruntime-cpu").parity_error <= 1e-4


def test_the_floor_counts_weights_and_products(tmp_path: Path) -> None:
    bundle = write_random(tmp_path / "b", "streaming-0.5M", n_units=50, hop_s=0.01, bin_s=0.02)
    n_weights = sum(weight.size for weight in bundle.weights().values())
    floor = floor_of(for_bucket(bundle, lowered(bundle, "fp32"), 20, 50), 20)
    assert 3.9 * n_weights < floor.n_bytes < 4.2 * n_weights
    assert 1.9 * n_weights < floor.n_operations < 2.2 * n_weights
    halved = floor_of(for_bucket(bundle, lowered(bundle, "fp16"), 20, 50), 20)
    assert halved.n_bytes < 0.6 * floor.n_bytes
    assert halved.n_operations == floor.n_operations


def test_an_unknown_size_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no size 'huge'; there are: streaming-0.5M"):
        write_random(tmp_path / "b", "huge", n_units=5, hop_s=0.01, bin_s=0.02)


def test_bench_gpu_times_what_runs_and_says_what_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--size", "streaming-0.5M", "--units", "20", "--folder", str(tmp_path), "--json"]
    backends = ["--backend", "tensorrt", "--backend", "onnxruntime-cpu"]
    assert main(["bench", "gpu", *arguments, *backends]) == 0
    refused, timed = json.loads(capsys.readouterr().out)["rows"]
    assert "no NVIDIA GPU" in refused["refused"]
    assert 0 < timed["step_ms"]["p50"] <= timed["step_ms"]["p99"]
    assert (timed["decoder"], timed["tokens"]) == ("streaming-0.5M", 8)
    assert (tmp_path / "streaming-0.5M-20" / "manifest.json").exists()


def test_a_record_keeps_to_the_largest_bucket() -> None:
    """Backends of static shapes run no more tokens than that, and would be refused for it."""
    rng = np.random.default_rng(0)
    record = random_tokens(rng, n_rows=100, n_beats=50, bin_s=0.02, n_most=40)
    lengths = np.diff(record.offsets)
    assert lengths.max() == 40
    assert lengths[0] == 0
    assert np.ptp(lengths[1:]) > 0
