"""`spikeloop build`: what passes its gates is kept and found again, and nothing else is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.backends.opening import Backend, open_backend
from export.bundle import DecoderBundle, write_bundle
from export.engines.build import build
from export.engines.builds import Environment, bucket_name, builds_folder, find_build
from export.errors import BackendUnavailable, BundleError, ExportError, GateError
from tests.export.families import write_streaming_bundle
from tests.export.tiny_graph import tiny_parts

CPU = "onnxruntime-cpu"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPIKELOOP_BUILDS", str(tmp_path / "builds"))
    return tmp_path / "builds"


def loses(drop: float) -> Any:
    """Judges every backend alike, after it has run."""

    def judge(backend: Backend) -> Mapping[str, Any]:
        return {"session": "s", "drop": drop, "r2": {}, "r2_fp32": {}}

    return judge


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*")) if folder.exists() else []


def test_a_build_is_found_and_served_in_its_precision(family: DecoderBundle) -> None:
    with pytest.raises(BackendUnavailable, match=rf"spikeloop build .* --backend {CPU} --prec"):
        open_backend(family, f"{CPU}:fp16")
    made = build(family, CPU, "fp16", judge=loses(0.001))
    opened = open_backend(family, f"{CPU}:fp16")
    assert (opened.backend.precision, opened.choice) == ("fp16", f"{CPU}:fp16")
    assert 1e-4 < opened.parity_error <= family.manifest.parity.atol_reduced
    assert opened.parity_error == pytest.approx(made.record["verdict"]["parity_error"])
    assert made.record["verdict"]["drop"] == 0.001


def test_another_library_or_driver_does_not_find_it(pristine: DecoderBundle) -> None:
    here = Environment("tensorrt 10.13.2", "NVIDIA X, 9.0, 580.1")
    for there in (replace(here, runtime="tensorrt 10.14.0"), replace(here, device="NVIDIA Y")):
        with pytest.raises(BackendUnavailable, match="has not been built"):
            find_build(pristine, "tensorrt", "fp16", there)


def test_a_loss_beyond_the_bound_keeps_nothing(pristine: DecoderBundle, folder: Path) -> None:
    with pytest.raises(GateError, match=r"loses 0\.0200 of R2 on s, more than the 0\.01 allowed"):
        build(pristine, CPU, "fp16", judge=loses(0.02))
    assert kept(folder) == []
    build(pristine, CPU, "fp16", judge=loses(0.02), bound=0.03)
    assert len(kept(folder)) == 1


def test_a_loss_that_is_no_number_keeps_nothing(pristine: DecoderBundle, folder: Path) -> None:
    with pytest.raises(GateError):
        build(pristine, CPU, "fp16", judge=loses(float("nan")))
    assert kept(folder) == []


def test_what_disagrees_with_the_record_is_not_kept(tmp_path: Path, folder: Path) -> None:
    fields, contents = tiny_parts(["u1", "u2"])
    record = contents["parity"]
    moved = {name: values + np.float32(1.0) for name, values in record.outputs.items()}
    contents["parity"] = replace(record, outputs=moved)
    bundle = write_bundle(tmp_path / "moved", fields, **contents)
    with pytest.raises(BundleError, match=r"where 0\.1 is allowed \(fp16\)"):
        build(bundle, CPU, "fp16", judge=loses(0.0))
    assert kept(folder) == []


def test_reduced_precision_needs_a_recording(pristine: DecoderBundle) -> None:
    with pytest.raises(ExportError, match="name one with --session"):
        build(pristine, CPU, "fp16")


def test_decoders_of_one_graph_share_a_build(tmp_path: Path, folder: Path) -> None:
    one = write_streaming_bundle(tmp_path / "one", n_units=100)
    other = write_streaming_bundle(tmp_path / "other", n_units=90)
    assert one.graph_sha256 == other.graph_sha256
    build(one, CPU, "fp16", judge=loses(0.0))
    assert open_backend(other, f"{CPU}:fp16").backend.precision == "fp16"
    assert len(kept(folder)) == 1


def test_a_damaged_build_is_not_found(pristine: DecoderBundle, folder: Path) -> None:
    made = build(pristine, CPU, "fp16", judge=loses(0.0))
    made.file("build.json").write_text("{")
    with pytest.raises(BackendUnavailable, match="has not been built"):
        open_backend(pristine, f"{CPU}:fp16")


@pytest.mark.parametrize(
    ("backend", "precision", "told"),
    [
        ("torch", "fp32", "torch runs bundles as they are"),
        (CPU, "bf16", "has no kernels for bf16"),
        ("onnxruntime-cuda", "fp32", r"no CUDAExecutionProvider.*spikeloop\[gpu\]"),
        ("abacus", "fp32", "no backend 'abacus'"),
    ],
)
def test_what_cannot_be_built_here_says_why(
    pristine: DecoderBundle, backend: str, precision: str, told: str
) -> None:
    with pytest.raises(BackendUnavailable, match=told):
        build(pristine, backend, precision, judge=loses(0.0))


def test_builds_lie_in_the_cache_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPIKELOOP_BUILDS")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert builds_folder() == Path("/somewhere/spikeloop/builds")


def test_bucket_files_sort_by_size() -> None:
    names = [bucket_name(n, "plan") for n in (128, 1024, 32768)]
    assert names == sorted(names)


def test_an_unknown_precision_in_the_config_is_named(pristine: DecoderBundle) -> None:
    with pytest.raises(BackendUnavailable, match=r"no precision 'fp8' in 'tensorrt:fp8'"):
        open_backend(pristine, "tensorrt:fp8")
