"""numba decodes what the network itself decodes, and refuses what it cannot."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

pytest.importorskip("numba", reason="numba is not installed: it is not run")
torch = pytest.importorskip("torch", reason="torch is not installed: the reference is not run")

from decoders.streaming.shape import StreamingConfig  # noqa: E402
from export.backends import streaming_kernel, torch_cpu  # noqa: E402
from export.backends.numba_cpu import NumbaBackend, open_cpu  # noqa: E402
from export.backends.opening import open_backend  # noqa: E402
from export.bundle import DecoderBundle, write_bundle  # noqa: E402
from export.errors import BackendError, BackendUnavailable, BundleError  # noqa: E402
from streams.messages import TokenWindow  # noqa: E402
from tests.export.untrained import CONFIG, KEYS, untrained_parts  # noqa: E402

SHAPES = {
    "small": CONFIG,
    "counts": replace(CONFIG, n_frequencies=0),
    "one latent": replace(CONFIG, n_latents=1, n_frequencies=1),
    "readout wider than memory": replace(CONFIG, d_memory=5, d_readout=40, d_model=7),
    "no linear filter": replace(CONFIG, taps_s=()),
    "a filter of the present": replace(CONFIG, serves_to_s=0.0),
    "as by default": StreamingConfig(CONFIG.outputs, bin_s=0.02),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> DecoderBundle:
    fields, contents = untrained_parts()
    return write_bundle(tmp_path_factory.mktemp("numba") / "b", fields, **contents)


@pytest.fixture
def backend(bundle: DecoderBundle) -> NumbaBackend:
    return open_cpu(bundle)


def window(n_tokens: int, seed: int = 0) -> TokenWindow:
    rng = np.random.default_rng(seed)
    return TokenWindow(
        unit=rng.integers(0, len(KEYS), n_tokens, dtype=np.int32),
        t_rel=rng.uniform(0, 0.02, n_tokens).astype(np.float32),
        count=rng.integers(0, 4, n_tokens).astype(np.float32),
        t_window=0.0,
    )


def copied(values: Any) -> dict[str, np.ndarray]:
    return {name: value.copy() for name, value in values.items()}


@pytest.mark.parametrize("shape", SHAPES)
def test_beats_equal_the_networks(shape: str, tmp_path: Path) -> None:
    fields, contents = untrained_parts(SHAPES[shape])
    bundle = write_bundle(tmp_path / "b", fields, **contents)
    ours, reference = open_cpu(bundle), torch_cpu.open_cpu(bundle)
    for i, n_tokens in enumerate((5, 0, 0, 40, 1, 900, 7)):
        found = ours.step(window(n_tokens, i), 0.03 * i)
        wanted = reference.step(window(n_tokens, i), 0.03 * i)
        assert set(found) == set(wanted)
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, atol=2e-5)


def test_a_filter_of_other_leads_than_the_graphs_does_not_pass_the_gate(tmp_path: Path) -> None:
    """What differs ahead alone is found too: the record asks for every lead."""
    fields, contents = untrained_parts(replace(CONFIG, serves_to_s=0.0))
    fields["training"]["config"] = CONFIG.to_dict()
    bundle = write_bundle(tmp_path / "b", fields, **contents)
    with pytest.raises(BundleError, match="disagrees with the outputs recorded"):
        open_backend(bundle, "numba-cpu")


def test_it_passes_the_gate(bundle: DecoderBundle) -> None:
    opened = open_backend(bundle, "numba-cpu")
    assert (opened.backend.name, opened.backend.precision) == ("numba-cpu", "fp32")
    assert 0 < opened.parity_error < 1e-4


def test_predecoding_is_without_consequence_until_it_is_accepted(backend: NumbaBackend) -> None:
    backend.step(window(20), 0.0)
    backend.predecode(window(30, 1), 0.0)
    predecoded = copied(backend.predecode(window(30, 2), 0.0))
    stepped = copied(backend.step(window(30, 2), 0.0))
    after = copied(backend.step(window(10, 3), 0.0))
    for name, value in stepped.items():
        np.testing.assert_array_equal(predecoded[name], value)
    backend.reset()
    backend.step(window(20), 0.0)
    accepted = copied(backend.predecode(window(30, 2), 0.0))
    backend.accept()
    then = backend.step(window(10, 3), 0.0)
    for name, value in stepped.items():
        np.testing.assert_array_equal(accepted[name], value)
        np.testing.assert_array_equal(then[name], after[name])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_bin_that_grows_is_decoded_as_if_it_had_come_whole(shape: str, tmp_path: Path) -> None:
    """Bit for bit, wherever it stood when it was predecoded; and with another bin in between."""
    fields, contents = untrained_parts(SHAPES[shape])
    bundle = write_bundle(tmp_path / "b", fields, **contents)
    grown, whole = open_cpu(bundle), open_cpu(bundle)
    chance = np.random.default_rng(7)
    for i in range(60):
        tokens = window(int(chance.integers(0, 300)), i)
        n_parts = np.sort(chance.integers(0, len(tokens) + 1, 3))
        for n in n_parts:
            grown.predecode(part(tokens, n), 0.01 * i)
        if i % 5 == 0:
            grown.predecode(window(50, 1000 + i), 0.0)
        found, wanted = grown.step(tokens, 0.0), whole.step(tokens, 0.0)
        for name, value in wanted.items():
            assert found[name].tobytes() == value.tobytes()


def part(tokens: TokenWindow, n: int) -> TokenWindow:
    """The first n tokens."""
    return TokenWindow(tokens.unit[:n], tokens.t_rel[:n], tokens.count[:n], tokens.t_window)


def test_reset_and_tables(bundle: DecoderBundle, backend: NumbaBackend) -> None:
    fresh = copied(backend.step(window(9), 0.0))["velocity"]
    assert np.abs(backend.step(window(9), 0.0)["velocity"] - fresh).max() > 1e-4
    backend.reset()
    np.testing.assert_array_equal(backend.step(window(9), 0.0)["velocity"], fresh)
    backend.set_tables({**bundle.tables, "table": bundle.tables["table"][::-1]})
    backend.reset()
    assert np.abs(backend.step(window(9), 0.0)["velocity"] - fresh).max() > 1e-4
    backend.set_tables(bundle.tables)
    backend.reset()
    np.testing.assert_array_equal(backend.step(window(9), 0.0)["velocity"], fresh)
    with pytest.raises(BundleError, match="none was given"):
        backend.set_tables({})
    short = bundle.tables["filter_rows"][:-1]
    with pytest.raises(BundleError, match="29 rows where `table` has 30"):
        backend.set_tables({**bundle.tables, "filter_rows": short})


def test_another_lead_is_another_decode_and_back(backend: NumbaBackend) -> None:
    now = copied(backend.predecode(window(9), 0.0))["velocity"]
    ahead = copied(backend.predecode(window(9), 0.05))["velocity"]
    assert np.abs(ahead - now).max() > 1e-6
    np.testing.assert_array_equal(backend.predecode(window(9), 0.0)["velocity"], now)


@pytest.mark.parametrize("row", [-1, len(KEYS), 2**31 - 1])
def test_a_row_that_is_not_there_is_a_step_that_failed(backend: NumbaBackend, row: int) -> None:
    whole = copied(backend.predecode(window(9), 0.0))["velocity"]
    wrong = window(9)
    wrong.unit[5] = row
    with pytest.raises(BackendError, match=f"numba-cpu failed on 9 tokens: row {row} of 30"):
        backend.step(wrong, 0.0)
    np.testing.assert_array_equal(backend.predecode(window(9), 0.0)["velocity"], whole)


def test_tokens_of_another_type_are_a_step_that_failed(backend: NumbaBackend) -> None:
    with pytest.raises(BackendError, match="cannot read the tokens"):
        backend.step(replace(window(9), t_rel=np.zeros(9)), 0.0)


def test_what_is_not_finite_comes_out_as_not_finite(
    bundle: DecoderBundle, backend: NumbaBackend
) -> None:
    for column in (0, -1):  # a value, a coefficient of a logit
        table = bundle.tables["table"].copy()
        table[3, column] = np.nan
        backend.set_tables({**bundle.tables, "table": table})
        beat = window(9)
        beat.unit[:] = 4
        assert np.isfinite(backend.predecode(beat, 0.0)["velocity"]).all()
        beat.unit[2], beat.count[2] = 3, 1
        values = backend.predecode(beat, 0.0)
        assert np.isnan(values["velocity"]).all()
        assert np.isnan(values["target"]).all()


def test_steps_leave_no_object_behind(backend: NumbaBackend) -> None:
    """Steps that leave some do so in every round; what else the process keeps comes and goes."""
    beat, grown = window(200), []
    for _ in range(4):
        n_before = sys.getallocatedblocks()
        for _ in range(1000):
            backend.step(beat, 0.0)
        grown.append(sys.getallocatedblocks() - n_before)
    assert min(grown) < 50


def test_another_family_or_precision_is_not_run(
    bundle: DecoderBundle, poyo_bundle: DecoderBundle
) -> None:
    with pytest.raises(BackendUnavailable, match="is of 'poyo': use onnxruntime-cpu"):
        open_backend(poyo_bundle, "numba-cpu")
    assert open_backend(poyo_bundle, "numba-cpu", ["onnxruntime-cpu"]).tried[0].name == "numba-cpu"
    with pytest.raises(BackendUnavailable, match="runs fp32, not fp16"):
        open_backend(bundle, "numba-cpu:fp16")


def test_without_numba_the_extra_is_named(
    bundle: DecoderBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "numba" else find(n))
    with pytest.raises(BackendUnavailable, match=r"pip install 'spikeloop\[numba\]'"):
        open_backend(bundle, "numba-cpu")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    fields, contents = untrained_parts()
    weights = dict(contents["weights"])
    bias = weights["decoder.readout.bias"]
    weights["decoder.readout.bias"] = bias + np.float32(0.01)
    other = write_bundle(tmp_path / "other", fields, **{**contents, "weights": weights})
    with pytest.raises(BundleError, match="'numba-cpu' disagrees"):
        open_backend(other, "numba-cpu")
    del weights["decoder.mix.bias"]
    lacking = write_bundle(tmp_path / "lacking", fields, **{**contents, "weights": weights})
    with pytest.raises(BundleError, match=r"the weights lack 'mix\.bias'"):
        open_backend(lacking, "numba-cpu")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mix.weight", (16, 26)),
        ("mix_geglu.narrow.weight", (16, 15)),
        ("gru.weight_hh_l0", (72, 23)),
        ("memory_norm.weight", (1,)),
        ("query.weight", (12, 25)),
        ("readout.weight", (5, 12)),
        ("lead_narrow.bias", (1,)),
        ("encoder.log_sink", (4,)),
        ("encoder.frequencies", (5,)),
    ],
)
def test_a_weight_of_another_shape_is_refused_before_anything_runs(
    bundle: DecoderBundle, name: str, shape: tuple[int, ...]
) -> None:
    weights = {k.removeprefix("decoder."): v for k, v in bundle.weights().items()}
    weights[name] = np.zeros(shape, np.float32)
    with pytest.raises(BundleError, match="export the bundle again"):
        NumbaBackend(
            weights,
            bundle.manifest.graph,
            bundle.tables,
            {"velocity": (2, False), "target": (4, True)},
        )


@settings(deadline=None, max_examples=50)
@given(arrays(np.float32, st.integers(1, 40), elements=st.floats(-87, 88, width=32)))
def test_exponentials_are_those_of_the_library(x: np.ndarray) -> None:
    found = x.copy()
    streaming_kernel._exponentials(found)
    np.testing.assert_allclose(found, np.exp(x.astype(np.float64)), rtol=2e-7)


def test_exponentials_end_where_float32_does() -> None:
    x = np.array([np.nan, -np.inf, -1e30, -90, 1e30, np.inf], np.float32)
    streaming_kernel._exponentials(x)
    assert np.isnan(x[0])
    assert (x[1:4] < 2e-38).all()
    assert (x[4:] > 1e38).all()
