from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.backends.opening import open_backend
from export.backends.table import require_one_onnxruntime
from export.bundle import DecoderBundle, write_bundle
from export.choice.gate import N_HOPELESS_RUNS, N_TIMED_RUNS, N_WARMUP_RUNS
from export.errors import BackendUnavailable, BundleError
from export.tensorrt.library import library_for
from streams.clock import ManualClock
from streams.messages import TokenWindow
from tests.export.tiny_graph import tiny_parts

CPU = "onnxruntime-cpu"
KEYS = ["u1", "u2", "u3"]


def _beat(bundle: DecoderBundle) -> TokenWindow:
    return bundle.parity().window(3)


def test_opened_backend_is_ready(pristine: DecoderBundle) -> None:
    opened = open_backend(pristine, CPU)
    assert (opened.backend.name, opened.backend.precision) == (CPU, "fp32")
    assert opened.parity_error <= 1e-4
    assert 0 < opened.step_p50_s <= opened.step_p99_s
    assert opened.tried == ()


def test_memory_is_zero_after_the_gate(pristine: DecoderBundle) -> None:
    backend = open_backend(pristine, CPU).backend
    first = backend.step(_beat(pristine), 0.0)["velocity"].copy()
    backend.step(_beat(pristine), 0.0)
    backend.reset()
    np.testing.assert_array_equal(backend.step(_beat(pristine), 0.0)["velocity"], first)


def test_unknown_name_gives_the_nearest(pristine: DecoderBundle) -> None:
    with pytest.raises(BackendUnavailable, match="did you mean onnxruntime-cpu or onnxruntime-cud"):
        open_backend(pristine, "onnxruntme-cpu")
    with pytest.raises(BackendUnavailable, match="no backend 'abacus'; there are: onnxruntime-cpu"):
        open_backend(pristine, "abacus")


def test_unknown_fallback_is_refused_before_it_is_needed(pristine: DecoderBundle) -> None:
    with pytest.raises(BackendUnavailable, match="did you mean tensorrt"):
        open_backend(pristine, CPU, ["tensort"])


def test_fallbacks_are_tried_in_order_and_told(pristine: DecoderBundle) -> None:
    opened = open_backend(pristine, "tensorrt", ["onnxruntime-cuda", CPU, "torch"])
    assert opened.backend.name == CPU
    assert [attempt.name for attempt in opened.tried] == ["tensorrt", "onnxruntime-cuda"]
    assert "no NVIDIA GPU" in opened.tried[0].reason
    assert "spikeloop[gpu]" in opened.tried[1].reason


def test_no_fallback_is_taken_that_was_not_listed(pristine: DecoderBundle) -> None:
    with pytest.raises(BackendUnavailable, match="no NVIDIA GPU"):
        open_backend(pristine, "tensorrt")


def test_every_refusal_is_told(pristine: DecoderBundle) -> None:
    with pytest.raises(BackendUnavailable, match=r"tensorrt: .*; onnxruntime-cuda: "):
        open_backend(pristine, "tensorrt", ["onnxruntime-cuda"])


def _disagreeing(where: Path, by: float) -> DecoderBundle:
    """One value of one beat differs."""
    fields, contents = tiny_parts(KEYS, with_position=True)
    record = contents["parity"]
    position = record.outputs["position"].copy()
    position[7, 1] += by
    contents["parity"] = replace(record, outputs={**record.outputs, "position": position})
    return write_bundle(where, fields, **contents)


def test_backend_that_disagrees_is_refused(tmp_path: Path) -> None:
    bundle = _disagreeing(tmp_path / "b", 5e-4)
    with pytest.raises(BundleError, match="disagrees with the outputs recorded") as caught:
        open_backend(bundle, CPU)
    assert "by 0.0005 where 0.0001 is allowed (fp32)" in str(caught.value)


def test_rounding_is_allowed(tmp_path: Path) -> None:
    opened = open_backend(_disagreeing(tmp_path / "b", 5e-5), CPU)
    assert opened.parity_error == pytest.approx(5e-5, rel=0.1)


def test_a_bundle_that_ran_and_disagreed_is_a_refused_bundle(tmp_path: Path) -> None:
    bundle = _disagreeing(tmp_path / "b", 1.0)
    with pytest.raises(
        BundleError, match=r"every backend refused: tensorrt: .*; onnxruntime-cpu: "
    ):
        open_backend(bundle, "tensorrt", [CPU])


@pytest.mark.filterwarnings("ignore:invalid value")
def test_output_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    fields, contents = tiny_parts(KEYS)
    contents["tables"]["session"][0] = np.nan
    bundle = write_bundle(tmp_path / "b", fields, **contents)
    with pytest.raises(BundleError, match="by inf where"):
        open_backend(bundle, CPU)


def test_too_slow_for_its_hop_names_the_hop_that_would_do(tmp_path: Path) -> None:
    fields, contents = tiny_parts(KEYS, hop_s=1e-6, bin_s=0.02)
    bundle = write_bundle(tmp_path / "b", fields, **contents)
    with pytest.raises(BundleError) as caught:
        open_backend(bundle, CPU)
    text = str(caught.value)
    assert "'tiny' is too slow for its hop on onnxruntime-cpu" in text
    assert "at 256 tokens" in text
    assert "half its hop of 0.001 ms is 0.0005 ms" in text
    assert int(text.split("a hop of ")[1].split(" ms")[0]) >= 1


class StepClock(ManualClock):
    """Each reading is 4.6 ms after the one before."""

    def now(self) -> float:
        self.t_s += 4.6e-3
        return self.t_s


def test_hop_that_would_do_is_twice_the_p99(tmp_path: Path) -> None:
    fields, contents = tiny_parts(KEYS, hop_s=0.009, bin_s=0.02)
    bundle = write_bundle(tmp_path / "b", fields, **contents)
    with pytest.raises(BundleError, match=r"is 4\.6 ms, .* a hop of 10 ms would do"):
        open_backend(bundle, CPU, clock=StepClock())


def test_hop_that_would_do_does(tmp_path: Path) -> None:
    fields, contents = tiny_parts(KEYS, hop_s=0.010, bin_s=0.02)
    bundle = write_bundle(tmp_path / "b", fields, **contents)
    assert open_backend(bundle, CPU, clock=StepClock()).step_p99_s == pytest.approx(4.6e-3)


class DisturbedClock(ManualClock):
    """Steps take 1 ms; in the first round one in fifty takes 20 ms."""

    def __init__(self) -> None:
        super().__init__()
        self.n_readings = 0

    def now(self) -> float:
        self.n_readings += 1
        in_first_round = self.n_readings <= 2 * (N_WARMUP_RUNS + N_TIMED_RUNS)
        delayed = in_first_round and self.n_readings % 100 == 0
        self.t_s += 20e-3 if delayed else 1e-3
        return self.t_s


def test_a_round_that_another_program_disturbed_is_timed_again(pristine: DecoderBundle) -> None:
    clock = DisturbedClock()
    assert open_backend(pristine, CPU, clock=clock).step_p99_s == pytest.approx(1e-3)
    assert clock.n_readings == 4 * (N_WARMUP_RUNS + N_TIMED_RUNS)


class SlowClock(DisturbedClock):
    """Every step takes a second."""

    def now(self) -> float:
        self.n_readings += 1
        self.t_s += 1.0
        return self.t_s


def test_a_decoder_far_too_slow_is_not_timed_for_long(pristine: DecoderBundle) -> None:
    clock = SlowClock()
    with pytest.raises(BundleError, match="too slow for its hop"):
        open_backend(pristine, CPU, clock=clock)
    assert clock.n_readings == 2 * (N_WARMUP_RUNS + N_HOPELESS_RUNS)


def _distribution(where: Path, name: str) -> None:
    folder = where / f"{name.replace('-', '_')}-1.31.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.31.0\n")


def test_both_distributions_of_onnxruntime_are_refused(
    pristine: DecoderBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_one_onnxruntime()
    _distribution(tmp_path, "onnxruntime-gpu")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendUnavailable, match=r"both installed .* pip uninstall onnxruntime"):
        open_backend(pristine, CPU)


def test_tensorrt_that_does_not_load_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a shared library is missing."""
    text = "raise OSError('libtensorrt_rtx.so.1: cannot open')"
    (tmp_path / "tensorrt_rtx_bindings.py").write_text(text)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "tensorrt_rtx_bindings", raising=False)
    with pytest.raises(BackendUnavailable, match=r"does not load: libtensorrt.*spikeloop\[rtx\]"):
        library_for(None)


def test_no_tensorrt_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "tensorrt_rtx_bindings", raising=False)
    with pytest.raises(BackendUnavailable, match=r"not installed: pip install 'spikeloop\[rtx\]'"):
        library_for(None)


def test_tensorrt_builds_on_its_own_gpu_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text("__version__ = '10.13'")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "tensorrt_rtx_bindings", raising=False)
    with pytest.raises(BackendUnavailable, match="only on a machine with the GPU"):
        library_for(None)
    assert str(library_for("sm90")) == "tensorrt 10.13"
    monkeypatch.delitem(sys.modules, "tensorrt")


def test_no_onnxruntime_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(BackendUnavailable, match=r"not installed: pip install 'spikeloop\[cpu\]'"):
        require_one_onnxruntime()


def test_daemon_side_loads_no_heavy_library() -> None:
    heavy = "{'torch', 'decoders', 'onnxruntime', 'onnx'} & set(sys.modules)"
    code = f"import sys, export.bundle, export.backends.opening; print({heavy} or 'none')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "none"


def test_torch_does_not_run_what_it_does_not_know(pristine: DecoderBundle) -> None:
    pytest.importorskip("torch")
    opened = open_backend(pristine, "torch", [CPU])
    reasons: Mapping[str, str] = {attempt.name: attempt.reason for attempt in opened.tried}
    assert "no `training.config`" in reasons["torch"]
