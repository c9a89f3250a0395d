"""A POYO checkpoint as a bundle: the exported graph, opened and run as the daemon runs it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decoders.poyo.config import poyo_small
from decoders.poyo.network import Poyo
from decoders.poyo.step import step_from_config, step_of_session
from decoders.poyo.tokens import batch_of
from decoders.streaming.shape import OutputSpec
from export.backends.onnxruntime_cpu import OnnxruntimeBackend, open_cpu
from export.backends.opening import open_backend
from export.bundle import DecoderBundle
from export.errors import BundleError, ExportError
from export.graphs.poyo import PoyoOutput, export_poyo
from export.graphs.run_fields import buckets_up_to
from export.manifest import LeadRange
from streams.messages import SpikeBatch, TokenWindow
from streams.spikes.ring import SpikeRing
from streams.spikes.tokenizer import TokenBins, Tokenizer, cut_bins
from tests.decoders.poyo_windows import (
    RECORDINGS,
    SESSION,
    cut,
    random_network,
    recording,
    tiny_config,
    windows_of,
    write_lightning,
)

N_UNITS = 12
CPU = "onnxruntime-cpu"
VELOCITY = PoyoOutput("velocity", "cm/s", offset=[1.0, -2.0], scale=[20.0, 10.0])


def saved(network: Poyo, where: Path) -> Path:
    write_lightning(where / "a.ckpt", network.state_dict(), network.config)
    return where / "a.ckpt"


@pytest.fixture(scope="module")
def network() -> Poyo:
    return random_network(tiny_config(), N_UNITS)


@pytest.fixture(scope="module")
def checkpoint(network: Poyo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(network, tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> DecoderBundle:
    out = tmp_path_factory.mktemp("bundle") / "poyo-tiny"
    return export_poyo(checkpoint, out, hop_s=0.1, outputs=[VELOCITY], max_tokens=500)


@pytest.fixture
def backend(bundle: DecoderBundle) -> OnnxruntimeBackend:
    return open_cpu(bundle)


def with_units(network: Poyo, n_units: int) -> Poyo:
    """The same network for a session of other units."""
    other = random_network(network.config, n_units, seed=5)
    shared = {k: v for k, v in network.state_dict().items() if not k.startswith("unit_emb")}
    other.load_state_dict(other.state_dict() | shared)
    return other


@torch.no_grad()
def tables_of(network: Poyo) -> dict[str, np.ndarray]:
    outputs = [OutputSpec("velocity", 2)]
    step = step_of_session(network, SESSION, network.unit_emb.words, outputs, [0.0] * 2, [1.0] * 2)
    return {name: table.numpy() for name, table in step.tables().items()}


def windows_in(bins: TokenBins) -> Iterator[TokenWindow]:
    for i in range(len(bins)):
        held = slice(int(bins.offsets[i]), int(bins.offsets[i + 1]))
        yield TokenWindow(bins.unit[held], bins.t_rel[held], bins.count[held], t_window=0.0)


@torch.no_grad()
def by_network(network: Poyo, bins: TokenBins, n_units: int, lead_s: float = 0.0) -> np.ndarray:
    """(n_bins, 2) physical."""
    windows = windows_of(bins, n_units)
    answer = network(batch_of(windows, np.full((len(windows), 1), 1.0 + lead_s), 1.0))
    return answer[:, 0].numpy() * np.array(VELOCITY.scale) + np.array(VELOCITY.offset)


def poisson_spikes(seconds: float = 4.0, rate_hz: float = 15.0, seed: int = 0) -> SpikeBatch:
    """The last two units never fire."""
    rng = np.random.default_rng(seed)
    n = rng.poisson((N_UNITS - 2) * rate_hz * seconds)
    t_us = np.sort(rng.choice(round(seconds * 1e6), n, replace=False) + 1)
    unit = rng.integers(0, N_UNITS - 2, n).astype(np.int32)
    return SpikeBatch(t_us, unit, np.ones(n, np.int32))


def test_manifest(bundle: DecoderBundle) -> None:
    m = bundle.manifest
    assert (m.name, m.family, m.session) == ("poyo-tiny", "poyo", SESSION)
    assert (m.hop_s, m.bin_s, m.context_s) == (0.1, 1.0, 1.0)
    assert [unit.key for unit in m.units] == [f"u{i}" for i in range(N_UNITS)]
    assert m.graph.memory == ()
    assert {t.name for t in m.graph.tables} == {"table", "session"}
    assert (m.lead_s.min, m.lead_s.max, m.lead_s.default) == (-1.0, 0.0, 0.0)
    assert m.outputs[0].low == (-99.0, -52.0)
    assert m.outputs[0].high == (101.0, 48.0)
    assert m.parity.atol_fp32 == pytest.approx(2e-3)
    assert m.token_buckets == (128, 256, 512)


def test_bundle_opens_and_keeps_its_hop(bundle: DecoderBundle) -> None:
    opened = open_backend(bundle, CPU)
    assert opened.parity_error <= bundle.manifest.parity.atol_fp32
    assert opened.step_p99_s <= bundle.manifest.hop_s / 2


@pytest.mark.parametrize("lead_s", [0.0, -0.4])
def test_graph_decodes_as_the_network(
    network: Poyo, backend: OnnxruntimeBackend, lead_s: float
) -> None:
    rows = np.arange(N_UNITS, dtype=np.int32)
    ends_us = np.array([0, 1, 700_000, 1_000_000, 2_345_678, 3_999_999])
    bins = cut_bins(poisson_spikes(), rows, ends_us, 1_000_000)
    assert np.diff(bins.offsets)[0] == 0
    wanted = by_network(network, bins, N_UNITS, lead_s)
    found = [backend.step(w, lead_s)["velocity"].copy() for w in windows_in(bins)]
    assert np.abs(np.diff(wanted, axis=0)).max() > 0.1
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", RECORDINGS)
def test_graph_decodes_recordings_as_the_network(
    name: str, network: Poyo, backend: OnnxruntimeBackend
) -> None:
    """Another session with more units is another table: the graph stays."""
    session = recording(name)
    n_units = len(session.unit_keys)
    other = with_units(network, n_units)
    backend.set_tables(tables_of(other))
    bins = cut(session, n_windows=12)
    found = [backend.step(w, 0.0)["velocity"].copy() for w in windows_in(bins)]
    wanted = by_network(other, bins, n_units)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


def test_beats_over_one_ring_decode_whole_windows(
    network: Poyo, backend: OnnxruntimeBackend, bundle: DecoderBundle
) -> None:
    """Windows of a second overlap at a hop of 0.1 s: each spike goes into ten of them."""
    hop_us, bin_us = round(bundle.manifest.hop_s * 1e6), round(bundle.manifest.bin_s * 1e6)
    spikes, rows = poisson_spikes(), np.arange(N_UNITS, dtype=np.int32)
    ring = SpikeRing(4_000, bin_us, hop_us, hop_us)
    tokenizer = Tokenizer(bin_us, rows)
    ends_us = np.arange(hop_us, 4_000_001, hop_us)
    found, n_tokens = [], 0
    for end_us in ends_us:
        arrived = (spikes.t_us > end_us - hop_us) & (spikes.t_us <= end_us)
        batch = SpikeBatch(spikes.t_us[arrived], spikes.unit[arrived], spikes.count[arrived])
        ring.admit(batch, np.ones(N_UNITS, np.bool_), int(end_us))
        held, slots = ring.cut(int(end_us))
        window, kept = tokenizer.cut(held, int(end_us), t_window=end_us * 1e-6)
        ring.assign_fate(slots[kept], "used")
        ring.close(int(end_us))
        n_tokens += len(window)
        found.append(backend.step(window, 0.0)["velocity"].copy())
    wanted = by_network(network, cut_bins(spikes, rows, ends_us, bin_us), N_UNITS)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
    assert ring.fates.used == len(spikes)
    assert n_tokens > 8 * len(spikes)


def test_padding_is_nothing_to_the_graph(backend: OnnxruntimeBackend) -> None:
    rows = np.arange(N_UNITS, dtype=np.int32)
    bins = cut_bins(poisson_spikes(), rows, np.array([1_500_000]), 1_000_000)
    (window,) = windows_in(bins)
    padded = TokenWindow(
        np.concatenate((window.unit, np.full(50, 3, np.int32))),
        np.concatenate((window.t_rel, np.full(50, 0.25, np.float32))),
        np.concatenate((window.count, np.zeros(50, np.float32))),
        t_window=0.0,
    )
    plain = backend.step(window, 0.0)["velocity"].copy()
    np.testing.assert_allclose(backend.step(padded, 0.0)["velocity"], plain, rtol=0, atol=1e-5)


def test_weights_of_the_bundle_are_those_of_its_graph(bundle: DecoderBundle) -> None:
    """From them torch runs the decoder, and adaptation goes on."""
    config: Mapping[str, Any] = bundle.manifest.training["config"]  # type: ignore[assignment]
    step = step_from_config(config)
    step.load_state_dict({k: torch.from_numpy(v) for k, v in bundle.weights().items()})
    for name, table in step.eval().tables().items():
        np.testing.assert_allclose(table.detach(), bundle.tables[name], rtol=0, atol=1e-6)


def test_hop_that_poyo_cannot_keep_is_refused(tmp_path: Path) -> None:
    """One layer of the published network, 1,000 tokens, 2 ms: a hop that would do is named."""
    path = saved(random_network(replace(poyo_small(2), depth=1), 50), tmp_path)
    bundle = export_poyo(path, tmp_path / "poyo-small", hop_s=0.002, max_tokens=1000)
    with pytest.raises(BundleError, match="'poyo-small' is too slow for its hop") as caught:
        open_backend(bundle, CPU)
    text = str(caught.value)
    assert "at 1024 tokens" in text
    named = re.search(r"a hop of (\d+) ms would do", text)
    assert named is not None
    assert int(named[1]) > 2


def two_sessions() -> Poyo:
    torch.manual_seed(0)
    units = [f"{day}/u{i}" for day in ("lab/day1", "lab/day2") for i in range(3)]
    return Poyo(replace(tiny_config(), depth=1), units, ["lab/day1", "lab/day2"])


def test_one_of_several_sessions(tmp_path: Path) -> None:
    network = two_sessions()
    path = saved(network, tmp_path)
    with pytest.raises(ExportError, match="several sessions: name one; it has lab/day1, lab/day2"):
        export_poyo(path, tmp_path / "b", hop_s=0.1)
    with pytest.raises(ExportError, match="no session 'lab/day3'; it has lab/day1, lab/day2"):
        export_poyo(path, tmp_path / "b", hop_s=0.1, session="lab/day3")
    bundle = export_poyo(path, tmp_path / "b", hop_s=0.1, session="lab/day2")
    assert bundle.row_of_key == {"u0": 0, "u1": 1, "u2": 2}
    assert bundle.manifest.outputs[0].unit == "normalised"
    want = network.session_emb.weight[2].detach().numpy()
    np.testing.assert_array_equal(bundle.tables["session"], want)
    held = bundle.weights()["decoder.unit_emb.weight"]
    np.testing.assert_array_equal(held[1:], network.unit_emb.weight[4:].detach().numpy())


def test_keys_of_the_stream_may_be_told(tmp_path: Path) -> None:
    path = saved(two_sessions(), tmp_path)
    told = {"ch1/u1": "lab/day1/u2", "ch2/u1": "lab/day1/u0"}
    bundle = export_poyo(path, tmp_path / "b", hop_s=0.1, session="lab/day1", unit_words=told)
    assert bundle.row_of_key == {"ch1/u1": 0, "ch2/u1": 1}
    wrong = {"ch1/u1": "lab/day1/u9"}
    with pytest.raises(ExportError, match="vocabulary has no lab/day1/u9"):
        export_poyo(path, tmp_path / "c", hop_s=0.1, session="lab/day1", unit_words=wrong)


def test_units_without_the_sessions_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Poyo(tiny_config(), ["a", "b"], ["s1", "s2"])
    with pytest.raises(ExportError, match="no unit of the vocabulary begins with 's1/'"):
        export_poyo(saved(network, tmp_path), tmp_path / "b", hop_s=0.1, session="s1")


def test_what_cannot_be_exported_says_so(checkpoint: Path, tmp_path: Path) -> None:
    three = PoyoOutput("velocity", "m/s", [0.0] * 3, [1.0] * 3)
    with pytest.raises(ExportError, match="reads out 2 numbers, the outputs have 3"):
        export_poyo(checkpoint, tmp_path / "b", hop_s=0.1, outputs=[three])
    with pytest.raises(ExportError, match="no checkpoint"):
        export_poyo(tmp_path / "absent.ckpt", tmp_path / "b", hop_s=0.1)
    far = LeadRange(min=0.0, max=1.5, default=0.0)
    with pytest.raises(ExportError, match=r"a lead must lie within 1 s of the window"):
        export_poyo(checkpoint, tmp_path / "b", hop_s=0.1, lead_s=far)
    with pytest.raises(BundleError, match=r"`bin_s` \(1\.0\) is shorter than `hop_s`"):
        export_poyo(checkpoint, tmp_path / "b", hop_s=1.5)
    assert not (tmp_path / "b").exists()
    with pytest.raises(ValueError, match="has 1 offsets, 2 scales"):
        PoyoOutput("velocity", "m/s", [0.0], [1.0, 1.0])


def test_buckets_are_powers_of_two() -> None:
    assert buckets_up_to(100) == [128]
    assert buckets_up_to(1000) == [128, 256, 512, 1024]
