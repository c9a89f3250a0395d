"""Adaptation: unseen neurons are decoded after some labelled seconds, and nothing else changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.adaptation.adapt import adapt
from calibration.adaptation.adapted import write_child
from calibration.adaptation.held_out import likelihood_weights
from calibration.errors import CalibrationError
from calibration.evaluate import evaluate
from decoders.streaming.drift import FOLLOW_S, follow_share
from export.backends.opening import open_backend
from export.bundle import open_bundle
from streams.errors import SessionError
from streams.messages import SpikeBatch
from streams.sessions.nwb.writer import write_session
from streams.sessions.session import Session
from tests.calibration.newcomers import DURATION_S, adapted, new_session, shifted, with_velocity
from tests.decoders.sessions import PHASE, tuned_session


@pytest.mark.parametrize("kind", ["counts", "spikes"])
def test_unseen_neurons_are_decoded(folder: Path, tmp_path: Path, kind: str) -> None:
    result = adapt(folder / kind, folder / "new.nwb", seconds=30.0, out=tmp_path / "out")
    velocity, phase = result["outputs"]["velocity"], result["outputs"]["phase"]
    assert min(velocity["r2"]) > 0.6
    assert min(velocity["r2"]) > max(*velocity["r2_before"], *velocity["shuffled_r2"]) + 0.2
    assert phase["accuracy"][0] > 0.7
    assert {len(values) for values in velocity.values()} == {2}
    assert json.loads(json.dumps(result)) == result


def test_the_result_is_what_evaluate_finds(folder: Path, tmp_path: Path) -> None:
    result = adapted(folder, tmp_path / "out")
    found = evaluate(tmp_path / "out", [folder / "new.nwb"])
    expected = found["outputs"]["velocity"]["r2"]
    np.testing.assert_allclose(result["outputs"]["velocity"]["r2"], expected, atol=2e-3)


def test_a_drift_of_rates_is_followed(folder: Path, tmp_path: Path) -> None:
    """Without labels, by the graph, as it decodes."""
    path = tmp_path / "drifted.nwb"
    write_session(shifted(new_session(), "u103", 20.0, 60.0), path)
    adapt(folder / "counts", path, out=tmp_path / "made", seconds=19.0)
    made = open_bundle(tmp_path / "made")
    faster = np.float32(follow_share(made.manifest.bin_s) * FOLLOW_S / 10.0)
    found = {}
    for name, share in (("still", np.float32(0.0)), ("following", faster)):
        tables = made.tables | {"follow": np.array([share], np.float32)}
        graph = made.graph_path.read_bytes()
        fields = made.manifest.model_dump(mode="json")
        write_child(
            tmp_path / name, made, fields | {"name": name}, graph=graph, tables=tables, learnt={}
        )
        found[name] = np.mean(evaluate(tmp_path / name, [path])["outputs"]["velocity"]["r2"])
    assert found["following"] > found["still"] + 0.02


def test_looks_count_by_how_likely_they_make_the_held_out_trials() -> None:
    np.testing.assert_allclose(likelihood_weights([0.5, 0.5], 30.0), 0.5)
    few, many = (likelihood_weights([0.51, 0.5, 0.55], held_s) for held_s in (1.0, 1000.0))
    assert few.sum() == pytest.approx(1.0)
    assert few.max() < 0.4
    assert few[1] > few[0] > few[2]
    assert many[1] > 0.99


def test_only_tables_change(folder: Path, tmp_path: Path) -> None:
    adapted(folder, tmp_path / "out")
    base, made = open_bundle(folder / "counts"), open_bundle(tmp_path / "out")
    assert made.graph_path.read_bytes() == base.graph_path.read_bytes()
    for name, value in base.weights().items():
        if name.startswith("decoder."):
            np.testing.assert_array_equal(made.weights()[name], value)
    assert made.manifest.parent_id == base.manifest.id
    assert made.manifest.session == "made-up/2026-01-01/new"
    assert [unit.key for unit in made.manifest.units] == [f"u{i + 100}" for i in range(13)]
    assert made.manifest.verification is not None
    assert made.manifest.verification.n_trials > 0
    assert made.manifest.training["adaptation"] is not None
    open_backend(made, "onnxruntime-cpu")
    open_backend(made, "torch")


def test_the_same_seed_gives_the_same_bundle(folder: Path, tmp_path: Path) -> None:
    first, again, other = (
        adapted(folder, tmp_path / name / "out", seed=seed)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert first["checksum"] == again["checksum"]
    assert first["checksum"] != other["checksum"]


def test_the_test_part_is_never_learnt_from(folder: Path, tmp_path: Path) -> None:
    def spoil(t_s: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.where(t_s[:, None] > 30.0, -3.0 * values[:, ::-1], values)

    test = f"30-{DURATION_S}"
    adapted(folder, tmp_path / "true", seconds=1e6, test=test)
    adapted(folder, tmp_path / "spoilt", with_velocity(spoil), seconds=1e6, test=test)
    true, spoilt = (open_bundle(tmp_path / name) for name in ("true", "spoilt"))
    for name, table in true.tables.items():
        np.testing.assert_array_equal(table, spoilt.tables[name])


def test_labels_are_taken_up_to_the_test_part(folder: Path, tmp_path: Path) -> None:
    result = adapted(folder, tmp_path / "out", start_s=10.0, seconds=1e6, test="last:0.5")
    assert (result["start_s"], result["seconds"]) == (10.0, pytest.approx(20.0, abs=0.05))


def test_the_last_day_is_a_start_where_the_array_is_the_same(folder: Path, tmp_path: Path) -> None:
    session = tuned_session("later", 12, DURATION_S, seed=30)
    result = adapted(folder, tmp_path / "out", session, same_array=True, seconds=10.0)
    assert result["start"] in ("last day", "drifted")
    assert min(result["outputs"]["velocity"]["r2_before"]) > 0.5
    assert min(result["outputs"]["velocity"]["r2"]) > 0.6


def test_renumbered_units_are_found_out(folder: Path, tmp_path: Path) -> None:
    session = tuned_session("later", 12, DURATION_S, seed=30)
    keys = tuple(f"u{(i * 5 + 3) % 12}" for i in range(12))
    renumbered = replace(session, unit_keys=keys)
    result = adapted(folder, tmp_path / "out", renumbered, same_array=True, seconds=30.0)
    assert result["start"] == "activity"
    assert min(result["outputs"]["velocity"]["r2"]) > 0.6


def test_few_seconds_do(folder: Path, tmp_path: Path) -> None:
    session = replace(new_session(), trials=None)
    result = adapted(folder, tmp_path / "out", session, seconds=3.0)
    assert np.isfinite(result["outputs"]["velocity"]["r2"]).all()


def test_gaps_in_the_behaviour_are_left_out(folder: Path, tmp_path: Path) -> None:
    def with_gaps(t_s: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.where((t_s[:, None] % 4.0) < 1.0, np.nan, values)

    result = adapted(folder, tmp_path / "out", with_velocity(with_gaps), seconds=30.0)
    assert min(result["outputs"]["velocity"]["r2"]) > 0.5


def test_units_may_be_missing(folder: Path, tmp_path: Path) -> None:
    session = new_session()
    silent = session.spikes.unit < 3
    held = SpikeBatch(*(getattr(session.spikes, n)[~silent] for n in ("t_us", "unit", "count")))
    result = adapted(folder, tmp_path / "out", replace(session, spikes=held), seconds=30.0)
    assert min(result["outputs"]["velocity"]["r2"]) > 0.5


def _dead(session: Session) -> Session:
    late = session.spikes.t_us > 40_000_000
    held = SpikeBatch(*(getattr(session.spikes, n)[late] for n in ("t_us", "unit", "count")))
    return replace(session, spikes=held)


@pytest.mark.parametrize(
    ("session", "message"),
    [
        (with_velocity(lambda t_s, v: np.where(t_s[:, None] < 30, np.nan, v)), "next label"),
        (with_velocity(lambda t_s, v: v[:, :1] * [1.0, 0.5]), "one direction only"),
        (with_velocity(lambda t_s, v: np.where(t_s[:, None] < 30, 1.0, v)), "frozen"),
        (with_velocity(lambda t_s, v: np.column_stack([v, v[:, 0]])), "velocity 3 for 2"),
        (_dead(new_session()), "none of its 13 units fires"),
    ],
    ids=["no labels", "one direction", "frozen", "dimensions", "dead"],
)
def test_what_nothing_can_be_learnt_from_is_refused(
    folder: Path, tmp_path: Path, session: Session, message: str
) -> None:
    with pytest.raises(CalibrationError, match=message):
        adapted(folder, tmp_path / "out", session, start_s=0.0)
    assert not (tmp_path / "out").exists()


def test_a_missing_behaviour_is_named(folder: Path, tmp_path: Path) -> None:
    session = new_session()
    without = replace(session, behavior={PHASE: session.behavior[PHASE]})
    with pytest.raises(SessionError, match="no behaviour 'velocity'"):
        adapted(folder, tmp_path / "out", without)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0.0}, "--seconds 0"),
        ({"seconds": float("nan")}, "--seconds nan"),
        ({"start_s": 100.0}, "outside the test part"),
        ({"start_s": 50.0}, "outside the test part"),
        ({"test": "all"}, "outside the test part"),
        ({"test": "100-200"}, "no beat in the test part"),
        ({"test": "nonsense"}, "cannot score split"),
    ],
)
def test_impossible_options_are_refused(
    folder: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CalibrationError, match=message):
        adapted(folder, tmp_path / "out", **options)


def test_the_same_array_needs_a_known_key(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="knows none of the units u100"):
        adapted(folder, tmp_path / "out", same_array=True)


def test_a_bundle_is_never_overwritten(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(CalibrationError, match="never changed"):
        adapted(folder, tmp_path / "out")


def test_second_stage_has_its_own_graph_and_goes_on(folder: Path, tmp_path: Path) -> None:
    result = adapted(folder, tmp_path / "out", seconds=40.0, unfreeze=True)
    told = open_bundle(tmp_path / "out").manifest.training["adaptation"]
    assert told["n_steps_unfrozen"] == result["n_steps_unfrozen"] > 0
    same = (tmp_path / "out/graph.onnx").read_bytes() == (folder / "counts/graph.onnx").read_bytes()
    assert not same
    assert min(result["outputs"]["velocity"]["r2"]) > 0.6
    open_backend(open_bundle(tmp_path / "out"), "onnxruntime-cpu")
    again = adapt(tmp_path / "out", folder / "day-1.nwb", out=tmp_path / "next", seconds=30.0)
    assert min(again["outputs"]["velocity"]["r2"]) > 0.5
