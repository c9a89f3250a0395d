"""A POYO adapts: one that torch_brain left as a checkpoint, and one of our own training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.adaptation.adapt import adapt
from calibration.errors import CalibrationError
from calibration.evaluate import evaluate
from decoders.train import train
from export.backends.opening import open_backend, require_parity
from export.backends.torch_cpu import open_cpu as open_torch
from export.bundle import DecoderBundle, open_bundle
from export.graphs.poyo import PoyoOutput, export_poyo
from export.graphs.runs import export_trained
from streams.errors import SessionError
from streams.sessions.nwb.writer import write_session
from tests.decoders.poyo_windows import random_network, tiny_config, write_lightning
from tests.decoders.sessions import tuned_session
from tests.decoders.test_poyo_training import TINY

DURATION_S = 50.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained POYO's bundle, a checkpoint's bundle, and a day whose units nobody knows."""
    folder = tmp_path_factory.mktemp("adapt-poyo")
    write_session(tuned_session("one", n_units=12), folder / "one.nwb")
    (folder / "train.toml").write_text(TINY.replace("steps = 120", "steps = 250"))
    export_trained(train(folder / "train.toml", out=folder / "run"), folder / "trained")
    write_session(
        tuned_session("new", n_units=10, duration_s=DURATION_S, seed=5), folder / "new.nwb"
    )
    network = random_network(tiny_config(), n_units=6)
    write_lightning(folder / "a.ckpt", network.state_dict(), network.config)
    velocity = PoyoOutput("velocity", "cm/s", offset=[0.0, 0.0], scale=[7.0, 7.0])
    export_poyo(folder / "a.ckpt", folder / "foreign", hop_s=0.1, outputs=[velocity])
    return folder


def test_unseen_neurons_are_decoded(folder: Path, tmp_path: Path) -> None:
    result = adapt(folder / "trained", folder / "new.nwb", out=tmp_path / "new", seconds=35.0)
    told = result["outputs"]["velocity"]
    assert result["start"] == "mean unit"
    assert result["n_steps"] > 0
    assert min(told["r2"]) > 0.4
    assert np.mean(told["r2"]) > np.mean(told["shuffled_r2"]) + 0.3
    again = evaluate(tmp_path / "new", [folder / "new.nwb"], split="last:0.2")
    np.testing.assert_allclose(again["outputs"]["velocity"]["r2"], told["r2"], atol=1e-4)
    bundle = open_bundle(tmp_path / "new")
    assert len(bundle.row_of_key) == 10
    assert bundle.graph_sha256 == open_bundle(folder / "trained").graph_sha256
    require_parity(bundle, open_torch(bundle))


def test_an_adapted_poyo_adapts_again_from_its_own_units(folder: Path, tmp_path: Path) -> None:
    adapt(folder / "trained", folder / "one.nwb", out=tmp_path / "a", seconds=20.0, same_array=True)
    again = adapt(tmp_path / "a", folder / "one.nwb", out=tmp_path / "b", same_array=True)
    assert again["start"] == "same array"
    assert min(again["outputs"]["velocity"]["r2"]) > 0.4


def test_a_torch_brain_checkpoint_adapts_and_decodes_live(folder: Path, tmp_path: Path) -> None:
    """Random weights decode nothing well: what must hold is that learning helps, and all opens."""
    result = adapt(folder / "foreign", folder / "new.nwb", out=tmp_path / "new", seconds=30.0)
    told = result["outputs"]["velocity"]
    assert np.mean(told["r2"]) > np.mean(told["r2_before"])
    bundle = open_bundle(tmp_path / "new")
    opened = open_backend(bundle, "onnxruntime-cpu")
    assert opened.parity_error <= bundle.manifest.parity.atol_fp32
    value = opened.backend.step(bundle.parity().window(0), 0.0)["velocity"]
    assert np.isfinite(value).all()
    assert bundle.manifest.session == "made-up/2026-01-01/new"
    assert embeddings(bundle).shape[0] == 11
    assert not embeddings(bundle)[0].any()


def embeddings(bundle: DecoderBundle) -> np.ndarray:
    return bundle.weights()["decoder.unit_emb.weight"]


def test_the_same_seed_gives_the_same_tables(folder: Path, tmp_path: Path) -> None:
    tables = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        adapt(folder / "trained", folder / "new.nwb", out=tmp_path / name, seconds=3.0, seed=seed)
        tables.append(open_bundle(tmp_path / name).tables["table"])
    np.testing.assert_array_equal(tables[0], tables[1])
    assert np.abs(tables[0] - tables[2]).max() > 1e-6


def test_what_cannot_be_is_refused(folder: Path, tmp_path: Path) -> None:
    new = folder / "new.nwb"
    with pytest.raises(CalibrationError, match="of a POYO only embeddings are learnt"):
        adapt(folder / "foreign", new, out=tmp_path / "x", unfreeze=True)
    day = tuned_session("other", n_units=10, duration_s=DURATION_S, seed=5)
    other = replace(day, unit_keys=tuple(f"ch{i}" for i in range(10)))
    write_session(other, tmp_path / "other.nwb")
    with pytest.raises(CalibrationError, match="knows none of the units ch0, ch1"):
        adapt(folder / "foreign", tmp_path / "other.nwb", out=tmp_path / "x", same_array=True)
    export_poyo(folder / "a.ckpt", tmp_path / "unnamed", hop_s=0.1)
    with pytest.raises(SessionError, match=r"no behaviour 'decoded'; it has: .*velocity"):
        adapt(tmp_path / "unnamed", new, out=tmp_path / "x")
