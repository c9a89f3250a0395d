"""Units' pushes: the network in numpy against the record, its gradient against the real decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: no decoder is made")

from decoders.streaming.drift import follow_share
from export.backends.onnxruntime_cpu import (
    describe_graph,
    open_cpu,
    record_parity,
)
from export.bundle import DecoderBundle, open_bundle, write_bundle
from export.graphs.step_bundle import OPSET
from export.influence import additive
from export.influence.additive import AdditivePushes
from export.influence.left_out import LeftOutPushes
from export.influence.opening import open_pushes
from export.influence.pushes import RunningMoments
from export.influence.spike_train import Bins, SpikeTrain
from export.influence.streaming_network import StreamingNetwork
from export.parity import ParityRecord
from export.shipped import bundle_path
from streams.messages import TokenWindow
from tests.export.families import write_poyo_bundle
from tests.export.untrained import untrained_parts

HOP_S = 0.02


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> DecoderBundle:
    """A random network with a filter, and drift that is followed as slowly as in earnest."""
    fields, contents = untrained_parts()
    contents["tables"]["follow"] = np.array([follow_share(HOP_S)], np.float32)
    contents["parity"] = _replayed(contents)
    return write_bundle(tmp_path_factory.mktemp("influence") / "b", fields, **contents)


def _replayed(contents: dict[str, Any]) -> ParityRecord:
    signature = describe_graph(contents["graph"], OPSET)
    record = contents["parity"]
    return record_parity(
        contents["graph"], signature, contents["tables"], record, list(record.outputs)
    )


def network_of(bundle: DecoderBundle, lead_s: float) -> StreamingNetwork:
    weights = {
        name.removeprefix("decoder."): value
        for name, value in bundle.weights().items()
        if name.startswith("decoder.")
    }
    config = bundle.manifest.training["config"]
    return StreamingNetwork(weights, bundle.tables, config, lead_s)  # type: ignore[arg-type]


def random_train(n_rows: int, seconds: float, rate_hz: float, seed: int = 0) -> SpikeTrain:
    rng = np.random.default_rng(seed)
    n = rng.poisson(n_rows * seconds * rate_hz)
    train = SpikeTrain(keep_s=seconds)
    row = rng.integers(0, n_rows, n, dtype=np.int32)
    train.add(np.sort(rng.uniform(0.0, seconds, n)), row)
    return train


def decoded(bundle: DecoderBundle, bins: Bins, lead_s: float) -> np.ndarray:
    """The real decoder's answer after the bins, from an empty memory; (n_dims,)."""
    backend = open_cpu(bundle)
    answer = {}
    for i in range(len(bins)):
        held = slice(bins.offsets[i], bins.offsets[i + 1])
        tokens = bins.unit[held], bins.t_rel[held], bins.count[held]
        answer = backend.step(TokenWindow(*tokens, t_window=0.0), lead_s)
    names = [output.name for output in bundle.manifest.outputs]
    return np.concatenate([answer[name] for name in names]).astype(np.float64)


def test_the_network_gives_what_the_bundle_recorded() -> None:
    bundle = open_bundle(bundle_path("shipped:demo"))
    record = bundle.parity()
    lead_s = float(record.lead_s[-1])
    network = network_of(bundle, lead_s)
    bins = Bins(record.unit, record.t_rel, record.count, record.offsets)
    nothing = np.zeros(network.d_memory, np.float32), np.zeros(network.n_pooled, np.float32)
    trace = network.run(bins, network.token_weights(bins), *nothing)
    answer, _ = network.read(trace.memory[-1:])
    wanted = record.outputs["velocity"][-1]
    assert answer[0] == pytest.approx(wanted, abs=bundle.manifest.parity.atol_fp32)


def test_tables_in_turn_are_those_that_a_backend_is_given_in_turn() -> None:
    """As trials are decoded that each other tables have not seen."""
    bundle = open_bundle(bundle_path("shipped:demo"))
    silent = {
        name: np.zeros_like(table) if name in ("blend", "follow", "filter_rows") else table
        for name, table in bundle.tables.items()
    }
    tables = [silent, silent | {"table": 0.8 * silent["table"], "centre": 0.9 * silent["centre"]}]
    weights = {k.removeprefix("decoder."): v for k, v in bundle.weights().items()}
    config = bundle.manifest.training["config"]
    networks = [StreamingNetwork(weights, one, config) for one in tables]  # type: ignore[arg-type]
    turn = np.repeat([1, 0, 1], [5, 20, 15])
    bins = random_train(90, 40 * HOP_S, 20.0).bins(HOP_S * np.arange(1, 41), HOP_S)
    trace = networks[0].run_in_turn(networks, turn, bins)
    backend = open_cpu(bundle)
    for i in range(len(bins)):
        if not i or turn[i] != turn[i - 1]:
            backend.set_tables(tables[turn[i]])
        held = slice(bins.offsets[i], bins.offsets[i + 1])
        tokens = bins.unit[held], bins.t_rel[held], bins.count[held]
        answer = backend.step(TokenWindow(*tokens, t_window=0.0), 0.0)["velocity"]
        found, _ = networks[turn[i]].read(trace.memory[i + 1 : i + 2])
        assert found[0] == pytest.approx(answer, abs=bundle.manifest.parity.atol_fp32)


@pytest.mark.parametrize("lead_s", [0.0, 0.3])
def test_a_spike_more_pushes_the_real_decoder_as_told(
    untrained: DecoderBundle, lead_s: float
) -> None:
    """One small token in every bin that is followed back, a unit at a time."""
    network, n_bins, n_back = network_of(untrained, lead_s), 60, 25
    bins = random_train(30, n_bins * HOP_S, 40.0).bins(HOP_S * np.arange(1, n_bins + 1), HOP_S)
    nothing = np.zeros(network.d_memory, np.float32), np.zeros(network.n_pooled, np.float32)
    trace = network.run(bins, network.token_weights(bins), *nothing)
    gradient = network.gradient(trace, [n_bins - 1], n_back)[:, 0]
    plain, little = decoded(untrained, bins, lead_s), 0.05
    for row, back in ((3, 0), (17, 4), (29, 20)):
        at = n_bins - 1 - back
        more = with_token(bins, at, row, little)
        real = (decoded(untrained, more, lead_s) - plain) / little
        weight = network.token_weights(
            Bins(np.array([row], np.int32), np.array([0.01], np.float32), np.ones(1, np.float32),
                 np.array([0, 1]))
        )[0]  # fmt: skip
        away = network.values[row] - trace.latents[at]
        told = np.einsum("dkj,kj,k->d", gradient[back], away, weight / trace.mass[at])
        if network.taps is not None:
            kernels = [network.taps.kernel(i, n_back)[back] for i in range(len(network.taps.decay))]
            told += np.tensordot(kernels, network.taps.rows[:, row], axes=1)
        assert told == pytest.approx(real, rel=0.1, abs=0.03 * np.abs(real).max() + 1e-4)


def with_token(bins: Bins, at: int, row: int, count: float) -> Bins:
    i = int(bins.offsets[at + 1])
    offsets = bins.offsets.copy()
    offsets[at + 1 :] += 1
    return Bins(
        np.insert(bins.unit, i, row).astype(np.int32),
        np.insert(bins.t_rel, i, 0.01).astype(np.float32),
        np.insert(bins.count, i, count).astype(np.float32),
        offsets,
    )


def without(bins: Bins, row: int, first: int) -> Bins:
    gone = bins.unit == row
    gone[: bins.offsets[first]] = False
    kept = np.flatnonzero(~gone)
    lengths = np.diff(np.concatenate([[0], np.cumsum(~gone)])[bins.offsets])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Bins(bins.unit[kept], bins.t_rel[kept], bins.count[kept], offsets)


def test_pushes_are_those_of_leaving_units_out_of_the_real_decoder(
    untrained: DecoderBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(additive, "REACH_S", 1.0)
    n_bins = 100
    train = random_train(30, n_bins * HOP_S, 20.0)
    pushes = AdditivePushes(network_of(untrained, 0.0), HOP_S, HOP_S, HOP_S)
    pushes.sample_s = HOP_S
    pushes.advance(train, n_bins * HOP_S)
    found = pushes.pushes()
    assert found is not None
    bins = train.bins(HOP_S * np.arange(1, n_bins + 1), HOP_S)
    whole = decoded(untrained, bins, 0.0)
    left = [whole - decoded(untrained, without(bins, row, n_bins - 50), 0.0) for row in range(30)]
    for dim in range(2):
        assert np.corrcoef(found.now[:, dim], np.array(left)[:, dim])[0, 1] > 0.9


def test_pieces_of_any_length_give_the_same(untrained: DecoderBundle) -> None:
    train = random_train(30, 4.0, 20.0)
    whole, pieces = (
        AdditivePushes(network_of(untrained, 0.0), HOP_S, HOP_S, HOP_S) for _ in range(2)
    )
    for until_s in (3.0, 3.9):
        whole.advance(train, until_s)
    for until_s in (0.3, 0.31, 0.9, 2.5, 3.1, 3.9):
        pieces.advance(train, until_s)
    one, other = whole.pushes(), pieces.pushes()
    assert one is not None
    assert other is not None
    assert one.n == other.n
    assert one.spread == pytest.approx(other.spread, rel=1e-3, abs=1e-5)
    assert one.now == pytest.approx(other.now, rel=1e-3, abs=1e-5)


def test_a_hole_does_not_cost_its_length(untrained: DecoderBundle) -> None:
    pushes = AdditivePushes(network_of(untrained, 0.0), HOP_S, HOP_S, HOP_S)
    train = random_train(30, 2.0, 20.0)
    pushes.advance(train, 2.0)
    pushes.advance(train, 100_000.0)
    found = pushes.pushes()
    assert found is not None
    assert np.isfinite(found.spread).all()


def test_groups_left_out_of_a_transformer_tell_what_each_unit_pushes(tmp_path: Path) -> None:
    bundle = write_poyo_bundle(tmp_path / "poyo")
    n_units, window_s = 12, bundle.manifest.bin_s
    pushes = open_pushes(bundle, 0.0, 0.0)
    assert isinstance(pushes, LeftOutPushes)
    train = random_train(n_units, 60.0, 5.0)
    for until_s in np.arange(2.0, 60.0, 0.25):
        pushes.advance(train, float(until_s))
    found = pushes.pushes()
    assert found is not None
    left = np.zeros((40, n_units, 2))
    for i, t_s in enumerate(np.linspace(20.0, 40.0, 40)):
        bins = train.bins(np.array([t_s]), window_s)
        plain = decoded(bundle, bins, 0.0)
        left[i] = [plain - decoded(bundle, without(bins, row, 0), 0.0) for row in range(n_units)]
    # Means say which way a unit pushes, spreads how much it does so.
    assert np.corrcoef(found.mean.ravel(), left.mean(axis=0).ravel())[0, 1] > 0.9
    spread = np.linalg.norm(left.std(axis=0), axis=1)
    assert np.corrcoef(np.linalg.norm(found.spread, axis=1), spread)[0, 1] > 0.7


def test_bins_may_overlap_and_hold_their_right_edge() -> None:
    train = SpikeTrain(keep_s=10.0)
    train.add(np.array([0.03, 0.01, 0.02]), np.array([3, 1, 2]))
    bins = train.bins(np.array([0.02, 0.03]), 0.02)
    assert bins.unit.tolist() == [1, 2, 2, 3]
    assert bins.offsets.tolist() == [0, 2, 4]
    assert bins.t_rel == pytest.approx([0.01, 0.02, 0.01, 0.02])


def test_old_spikes_are_dropped() -> None:
    train = SpikeTrain(keep_s=1.0)
    train.add(np.array([0.5]), np.array([0]))
    train.add(np.array([1.6]), np.array([1]))
    assert train.bins(np.array([2.0]), 2.0).unit.tolist() == [1]


def test_moments_fade_as_weighted_ones() -> None:
    rng = np.random.default_rng(0)
    t_s, value = np.arange(50.0), rng.normal(3.0, 2.0, 50)
    moments = RunningMoments((), fade_s=10.0)
    for t, one in zip(t_s, value, strict=True):
        moments.add(float(t), one)
    weights = np.exp(-(t_s[-1] - t_s) / 10.0)
    mean = np.average(value, weights=weights)
    assert moments.mean == pytest.approx(mean)
    assert moments.spread**2 == pytest.approx(np.average((value - mean) ** 2, weights=weights))
