"""Adaptation in closed form: no gradient, no torch, and a bundle like any other."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.adaptation.adapt import adapt, write_adapted
from calibration.adaptation.adapted import Options
from calibration.adaptation.calibration_data import prepare
from calibration.adaptation.closed_form import ClosedForm, posterior_same
from calibration.errors import CalibrationError
from calibration.evaluate import evaluate
from export.backends.opening import open_backend
from export.bundle import DecoderBundle, open_bundle, write_bundle
from streams.messages import SpikeBatch
from streams.sessions.nwb.writer import write_session
from streams.sessions.reading import read_session
from streams.sessions.session import Session
from tests.calibration.newcomers import DURATION_S, adapted
from tests.decoders.sessions import VELOCITY, tuned_session

WITHOUT_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "lightning_fabric", "onnx", "matplotlib"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
from service.cli import main

sys.argv = ["spikeloop", *sys.argv[1:]]
code = main()
trained = ("train", "poyo", "streaming.trainer", "streaming.network", "training.optimisation")
assert not [name for name in trained if f"decoders.{name}" in sys.modules]
sys.exit(code)
"""


@pytest.mark.parametrize("kind", ["counts", "spikes"])
def test_unseen_neurons_are_decoded(folder: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    result = adapt(folder / kind, folder / "new.nwb", seconds=30.0, out=out, gradient=False)
    velocity, phase = result["outputs"]["velocity"], result["outputs"]["phase"]
    assert min(velocity["r2"]) > 0.55
    assert min(velocity["r2"]) > max(*velocity["r2_before"], *velocity["shuffled_r2"]) + 0.2
    assert phase["accuracy"][0] > 0.65
    assert (result["n_steps"], result["start"]) == (0, "activity")
    assert json.loads(json.dumps(result)) == result
    found = evaluate(out, [folder / "new.nwb"])["outputs"]["velocity"]["r2"]
    np.testing.assert_allclose(velocity["r2"], found, atol=2e-3)


def test_it_begins_where_the_gradient_begins(folder: Path, tmp_path: Path) -> None:
    """The same tables, but for the steps: of the usual, the filter, and the units' rates."""
    closed = adapted(folder, tmp_path / "closed", gradient=False, seconds=30.0)
    stepped = adapted(folder, tmp_path / "stepped", seconds=30.0)
    difference = np.subtract(
        stepped["outputs"]["velocity"]["r2"], closed["outputs"]["velocity"]["r2"]
    )
    assert np.mean(difference) < 0.1
    made, other = (open_bundle(tmp_path / name) for name in ("closed", "stepped"))
    assert made.graph_sha256 == other.graph_sha256
    assert {n: v.shape for n, v in made.tables.items()} == {
        n: v.shape for n, v in other.tables.items()
    }
    np.testing.assert_allclose(
        made.weights()["units.profile"], other.weights()["units.profile"], atol=1e-4
    )
    assert made.manifest.parent_id == other.manifest.parent_id
    open_backend(made, "onnxruntime-cpu")
    open_backend(made, "numba-cpu")


def test_it_needs_neither_torch_nor_the_training(folder: Path, tmp_path: Path) -> None:
    arguments = ["adapt", folder / "spikes", folder / "new.nwb", "--no-gradient", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments), "-o", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert min(json.loads(done.stdout)["outputs"]["velocity"]["r2"]) > 0.55
    open_backend(open_bundle(tmp_path / "out"), "onnxruntime-cpu")


def test_an_adapted_decoder_is_adapted_again(folder: Path, tmp_path: Path) -> None:
    adapted(folder, tmp_path / "first", gradient=False)
    again = adapt(
        tmp_path / "first",
        folder / "new.nwb",
        out=tmp_path / "second",
        same_array=True,
        gradient=False,
        seconds=20.0,
    )
    assert again["start"] == "drifted"
    assert min(again["outputs"]["velocity"]["r2"]) > 0.55


def test_known_units_begin_from_their_last_day(folder: Path, tmp_path: Path) -> None:
    session = tuned_session("later", 12, DURATION_S, seed=30)
    options = {"gradient": False, "seconds": 6.0}
    known = adapted(folder, tmp_path / "known", session, same_array=True, **options)
    unknown = adapted(folder, tmp_path / "unknown", session, **options)
    known_r2, unknown_r2 = (
        np.mean(result["outputs"]["velocity"]["r2"]) for result in (known, unknown)
    )
    assert known_r2 > max(0.6, unknown_r2)


def test_the_test_part_is_never_learnt_from(folder: Path, tmp_path: Path) -> None:
    session = tuned_session("new", 13, DURATION_S, seed=9)
    spikes = session.spikes
    later = spikes.t_us > 30_000_000
    moved = np.where(later, (spikes.unit + 5) % 13, spikes.unit).astype(np.int32)
    spoilt = replace(session, spikes=replace(spikes, unit=moved))
    for name, one in (("true", session), ("spoilt", spoilt)):
        adapted(folder, tmp_path / name, one, gradient=False, test=f"30-{DURATION_S}", seconds=1e6)
    true, other = (open_bundle(tmp_path / name) for name in ("true", "spoilt"))
    for name, table in true.tables.items():
        np.testing.assert_array_equal(table, other.tables[name])


def test_few_seconds_do(folder: Path, tmp_path: Path) -> None:
    session = replace(tuned_session("new", 13, DURATION_S, seed=9), trials=None)
    result = adapted(folder, tmp_path / "out", session, seconds=3.0, gradient=False)
    assert np.isfinite(result["outputs"]["velocity"]["r2"]).all()


def test_a_decoder_of_before_is_refused_with_what_to_do(folder: Path, tmp_path: Path) -> None:
    older = without_encoder(open_bundle(folder / "counts"), tmp_path / "older")
    with pytest.raises(CalibrationError, match="export it again from its run"):
        adapt(older, folder / "new.nwb", out=tmp_path / "out", gradient=False)
    assert not (tmp_path / "out").exists()


def without_encoder(bundle: DecoderBundle, out: Path) -> Path:
    """The bundle as one was exported that did not hold the profile encoder."""
    weights = {k: v for k, v in bundle.weights().items() if not k.startswith("identity.")}
    write_bundle(
        out,
        bundle.manifest.model_dump(mode="json"),
        graph=bundle.graph_path.read_bytes(),
        tables=bundle.tables,
        weights=weights,
        parity=bundle.parity(),
    )
    return out


def test_the_network_cannot_learn_without_gradient(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="--unfreeze"):
        adapted(folder, tmp_path / "out", gradient=False, unfreeze=True)


def test_the_shipped_decoder_holds_what_it_needs(tmp_path: Path) -> None:
    from export.shipped import bundle_path
    from streams.simulation.openloop import record_open_loop

    path = tmp_path / "later.nwb"
    write_session(record_open_loop(1, 12, 1.5, 96, "random"), path)
    result = adapt(
        bundle_path("shipped:demo"),
        path,
        out=tmp_path / "out",
        same_array=True,
        gradient=False,
        seconds=20.0,
    )
    velocity = result["outputs"]["velocity"]
    assert np.mean(velocity["r2"]) > np.mean(velocity["r2_before"])


def test_renumbered_units_are_found_out(folder: Path, tmp_path: Path) -> None:
    session = tuned_session("later", 12, DURATION_S, seed=30)
    keys = tuple(f"u{(i * 5 + 3) % 12}" for i in range(12))
    renumbered = replace(session, unit_keys=keys)
    result = adapted(
        folder, tmp_path / "out", renumbered, same_array=True, seconds=30.0, gradient=False
    )
    assert result["start"] == "activity"
    assert min(result["outputs"]["velocity"]["r2"]) > 0.55


def test_each_unit_is_judged_for_itself() -> None:
    few = posterior_same(np.array([3.0, 2.0, 4.0, -8.0]))
    assert (few[:3] > 0.9).all()
    assert few[3] < 0.1
    assert (posterior_same(np.full(40, -6.0)) < 0.1).all()
    np.testing.assert_allclose(posterior_same(np.zeros(3)), 0.9)


def test_a_decoder_is_made_again_while_trials_are_collected(folder: Path, tmp_path: Path) -> None:
    """Each new stretch is decoded by the decoder that was made before it came."""
    closed = ClosedForm(open_bundle(folder / "counts"))
    session, errors = read_session(folder / "new.nwb"), []
    made = None
    for until_s in (10.0, 15.0, 20.0):
        held = session_until(session, until_s)
        data = prepare(closed.bundle, held, seconds=1e6, start_s=None, test=None)
        if made is not None:
            first, last = round((until_s - 5.0) / data.hop_s), data.recording.n_bins
            decoded = closed.decode(made, data, first, last)[:, :2]
            errors.append(decoded - data.targets[first:last, :2])
        made = closed.adapt(data, Options(False, False, True, 0, None))
    assert np.std(np.concatenate(errors)) < 0.8 * np.std(session.behavior[VELOCITY].values)
    assert made is not None
    told = write_adapted(tmp_path / "out", closed.bundle, data, made)
    assert told["outputs"] == {}
    assert open_bundle(tmp_path / "out").manifest.verification is None


def session_until(session: Session, until_s: float) -> Session:
    held = session.spikes.t_us <= until_s * 1e6
    spikes = session.spikes
    some = SpikeBatch(spikes.t_us[held], spikes.unit[held], spikes.count[held])
    return replace(session, spikes=some, duration_s=until_s)
