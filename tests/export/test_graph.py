"""From a training run to a bundle: the exported graph is the trained network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from lightning_fabric import Fabric

from decoders.checkpoint import save_checkpoint
from decoders.streaming.shape import OutputSpec, StreamingConfig
from decoders.streaming.step import StepModule
from decoders.streaming.trainer import Trainer
from decoders.training.recordings import Recording, record
from export.backends.onnxruntime_cpu import open_cpu
from export.backends.opening import require_parity
from export.bundle import DecoderBundle, open_bundle
from export.errors import ExportError
from export.graphs.run_fields import token_buckets
from export.graphs.streaming import export_run, exported_rows, streaming_graph
from streams.messages import TokenWindow
from tests.decoders.sessions import small_config, tuned_session

N_OPS = 92


class Trained:
    """A short training, its run directory and its bundle."""

    def __init__(self, folder: Path) -> None:
        config = small_config(sessions={"glob": ["*"], "same_array": True})
        sessions = [tuned_session("a", n_units=9, seed=1), tuned_session("b", n_units=7, seed=2)]
        self.recordings: list[Recording] = [record(session, config) for session in sessions]
        self.trainer = Trainer(config, self.recordings, Fabric(accelerator="cpu"))
        for _ in range(5):
            self.trainer.step()
        self.run_dir = folder / "run"
        self.run_dir.mkdir()
        save_checkpoint(self.run_dir / "checkpoint.pt", self.trainer.progress())
        self.bundle: DecoderBundle = export_run(self.run_dir, folder / "demo")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("trained"))


def test_the_manifest_says_what_was_trained(trained: Trained) -> None:
    manifest = open_bundle(trained.bundle.path).manifest
    assert (manifest.name, manifest.family) == ("demo", "streaming")
    assert manifest.session == "made-up/2026-01-01/b"
    assert (manifest.hop_s, manifest.bin_s, manifest.context_s) == (0.02, 0.02, 0.4)
    assert [(o.name, o.dims, o.unit, o.safe) for o in manifest.outputs] == [
        ("velocity", 2, "cm/s", "zero"),
        ("phase", 2, "probability", "nan"),
    ]
    assert manifest.lead_s.ends == (-0.04, 0.1)
    recorded = trained.bundle.parity().lead_s
    np.testing.assert_allclose((recorded[0], recorded[-1]), manifest.lead_s.ends)
    assert len(np.unique(recorded)) == len(recorded)
    assert manifest.stale_after_s >= 0.1
    assert manifest.graph.memory == ("memory_h", "memory_filter", "memory_drift")
    low, high = manifest.outputs[0].low, manifest.outputs[0].high
    np.testing.assert_allclose([low, high], [[-10.0] * 2, [10.0] * 2], atol=0.5)


def test_the_last_session_s_rows_stand_for_its_keys_and_others_fill_in(trained: Trained) -> None:
    network, bundle = trained.trainer.learner.average, trained.bundle
    folded = network.tables().numpy()
    row = bundle.row_of_key
    assert sorted(row) == [f"u{i}" for i in range(9)]
    for key, i_row in (
        ("u3", 9 + 3),
        ("u8", 8),
    ):  # folded twice: on some processors not bit for bit
        away = np.abs(folded - bundle.tables["table"][row[key]]).max(axis=1)
        assert away[i_row] < 1e-5
        assert np.delete(away, i_row).min() > 1e-3
    np.testing.assert_array_equal(bundle.tables["session"], network.session[1].numpy())


def test_other_arrays_bring_no_rows() -> None:
    sessions = [{"unit_keys": ["u1", "u2"]}, {"unit_keys": ["u2"]}]
    assert exported_rows(sessions, 1, same_array=False) == (["u2"], [2])
    assert exported_rows(sessions, 0, same_array=True) == (["u1", "u2"], [0, 1])


def test_the_graph_decodes_what_training_decodes(trained: Trained) -> None:
    """Bin by bin through the exported graph, against torch's whole windows."""
    recording, backend = trained.recordings[1], open_cpu(trained.bundle)
    expected = trained.trainer.decode(1, 0, recording.n_bins)
    row = np.array([trained.bundle.row_of_key[key] for key in recording.unit_keys], np.int32)
    tokens = recording.tokens
    for _ in range(2):
        backend.reset()
        for i in range(recording.n_bins):
            part = slice(tokens.offsets[i], tokens.offsets[i + 1])
            window = TokenWindow(
                row[tokens.unit[part]], tokens.t_rel[part], tokens.count[part], 0.0
            )
            values = backend.step(window, 0.0)
            np.testing.assert_allclose(values["velocity"], expected[i, :2], atol=1e-4)


def test_torch_and_onnxruntime_agree_at_any_lead(trained: Trained) -> None:
    assert require_parity(trained.bundle, open_cpu(trained.bundle)) < 1e-5
    backend = open_cpu(trained.bundle)
    window = TokenWindow(
        np.array([0, 3], np.int32),
        np.array([0.004, 0.019], np.float32),
        np.ones(2, np.float32),
        0.0,
    )
    now = {name: value.copy() for name, value in backend.step(window, 0.0).items()}
    backend.reset()
    later = backend.step(window, 0.1)
    assert np.abs(now["velocity"] - later["velocity"]).max() > 1e-6
    assert later["phase"].sum() == pytest.approx(1.0, abs=1e-6)


def test_the_graph_stays_small(trained: Trained) -> None:
    model = onnx.load(trained.bundle.graph_path)
    kinds = [node.op_type for node in model.graph.node]
    assert len(kinds) <= N_OPS, kinds
    assert not {"Loop", "Scan", "If", "Einsum", "Where", "Expand", "GRU"} & set(kinds)


def test_the_same_run_gives_the_same_bundle(trained: Trained, tmp_path: Path) -> None:
    again = export_run(trained.run_dir / "checkpoint.pt", tmp_path / "demo")
    assert again.manifest.id == trained.bundle.manifest.id


def test_an_unknown_session_and_no_run_are_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"not trained on session 'c'; it has: .*/a, .*/b"):
        export_run(trained.run_dir, tmp_path / "x", session="c")
    with pytest.raises(ExportError, match="no checkpoint"):
        export_run(tmp_path / "nowhere.pt", tmp_path / "x")


def test_weights_of_another_architecture_are_refused(trained: Trained, tmp_path: Path) -> None:
    progress = trained.trainer.progress()
    weights = {k: v for k, v in progress["weights"].items() if "mix_norm" not in k}
    save_checkpoint(tmp_path / "checkpoint.pt", progress | {"weights": weights})
    with pytest.raises(ExportError, match=r"another architecture: missing.*mix_norm"):
        export_run(tmp_path, tmp_path / "x")


def test_buckets_cover_twice_the_busiest_bin() -> None:
    assert token_buckets(20.0) == [128]
    assert token_buckets(200.0) == [128, 256, 512]


def test_memory_is_carried_and_reset(trained: Trained) -> None:
    backend = open_cpu(trained.bundle)
    window = TokenWindow(
        np.zeros(3, np.int32), np.full(3, 0.01, np.float32), np.ones(3, np.float32), 0.0
    )
    first = backend.step(window, 0.0)["velocity"].copy()
    second = backend.step(window, 0.0)["velocity"].copy()
    backend.reset()
    assert np.abs(first - second).max() > 1e-7
    np.testing.assert_array_equal(backend.step(window, 0.0)["velocity"], first)


def test_the_graph_names_no_file_of_the_machine_that_made_it() -> None:
    config = StreamingConfig(outputs=(OutputSpec("velocity", 2),), bin_s=0.02)
    assert b".py" not in streaming_graph(StepModule(config))
