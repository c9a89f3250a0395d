"""Bundles decode FALCON's counts as they decode the file; what does not fit is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.errors import CalibrationError, FalconError
from calibration.evaluate import decode_session
from calibration.falcon.decoders import Stepper, SteppersOfBatch, fit_bundle, open_decoders
from calibration.falcon.names import session_of, tag_of
from calibration.falcon.scoring import ScoredFile, evaluate_falcon, weighted_r2
from export.backends.onnxruntime_cpu import open_cpu
from export.bundle import DecoderBundle
from service.cli import main
from streams.sessions.falcon import falcon_task, read_falcon
from tests.calibration.falcon_files import (
    BEHAVIOR,
    DIMS,
    MUSCLES,
    N_UNITS,
    Wanted,
    random_bundle,
    write_m1,
    write_m2,
)

M2 = falcon_task("m2")
VELOCITY = Wanted((("velocity", 2),), ("finger_vel",), sessions={"falcon": "m2"})


def counts_and_decodes(
    bundle: DecoderBundle, file: Path, task: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(n_bins, n_units) counts of a file, and what `evaluate` decodes of it."""
    session = read_falcon(file, falcon_task(task))
    counts = np.zeros((round(session.duration_s / 0.02), N_UNITS), np.uint8)
    counts[session.spikes.t_us // 20_000 - 1, session.spikes.unit] = session.spikes.count
    decoded = decode_session(bundle, open_cpu(bundle), session, session.duration_s, 0.0)
    return counts, dict(decoded.values)


@pytest.mark.parametrize(
    "changes",
    [{}, {"n_frequencies": 3}, {"fields": {"bin_s": 0.06}}],
    ids=["plain", "rotary", "wide"],
)
def test_counts_decode_to_the_bit_as_the_file_does(tmp_path: Path, changes: dict[str, Any]) -> None:
    wanted = Wanted((("velocity", 2),), **changes)
    bundle = random_bundle(tmp_path / "bundle", wanted)
    file = write_m2(tmp_path, "20201019", 2, 0)
    counts, decoded = counts_and_decodes(bundle, file, "m2")
    stepper = Stepper(fit_bundle(bundle, M2), open_cpu(bundle))
    stepped = np.stack([stepper.step(bin_counts) for bin_counts in counts[:200]])
    np.testing.assert_array_equal(stepped, decoded["velocity"][:200])


def test_outputs_stand_in_the_tasks_order(tmp_path: Path) -> None:
    names = [f"muscle_{i}" for i in range(16)]
    behaviors = tuple(f"acquisition/preprocessed_emg/{muscle}" for muscle in MUSCLES)
    outputs = (("other", 3), *((name, 1) for name in names))
    bundle = random_bundle(tmp_path / "b", Wanted(outputs, ("elsewhere", *behaviors)))
    in_order = fit_bundle(bundle, falcon_task("m1")).outputs
    assert [MUSCLES[names.index(name)] for name in in_order] == sorted(MUSCLES)
    file = write_m1(tmp_path, "20120924", 0)
    counts, decoded = counts_and_decodes(bundle, file, "m1")
    stepper = Stepper(fit_bundle(bundle, falcon_task("m1")), open_cpu(bundle))
    stepped = np.stack([stepper.step(bin_counts) for bin_counts in counts[:50]])
    for column, muscle in enumerate(sorted(MUSCLES)):
        own = decoded[f"muscle_{MUSCLES.index(muscle)}"][:50, 0]
        np.testing.assert_array_equal(stepped[:, column], own)


def test_each_file_begins_from_zero_memory_with_its_sessions_decoder(tmp_path: Path) -> None:
    folder = tmp_path / "decoders"
    for name in ("20201019", "Run1_20201020"):
        random_bundle(folder / name, Wanted((("velocity", 2),)))
    steppers = SteppersOfBatch(open_decoders(folder, M2))
    counts = np.random.default_rng(0).poisson(0.5, (20, N_UNITS))
    first, other = steppers.begin(["Run1_20201019", "Run1_20201020"])
    values = [first.step(one) for one in counts]
    for one in counts[::-1]:
        other.step(one)
    (again,) = steppers.begin(["Run2_20201019"])
    np.testing.assert_array_equal([again.step(one) for one in counts], values)
    with pytest.raises(FalconError, match=r"no decoder .* 'Run2_20201020'; .* 20201019, Run1_2020"):
        steppers.begin(["Run2_20201020"])


@pytest.mark.parametrize(
    ("wanted", "task", "why"),
    [
        (Wanted((("v", 2),), fields={"hop_s": 0.05, "bin_s": 0.06}), "m2", "hop of 50 ms"),
        (Wanted((("v", 2),), fields={"hop_s": 0.01}), "m2", "hop of 10 ms"),
        (Wanted((("v", 2),), fields={"bin_s": 0.05}), "m2", "bins of 50 ms"),
        (Wanted((("v", 2),)), "m1", "asks for the 16 dimensions of acq"),
        (Wanted((("v", 2),), ("finger_pos",)), "m2", r"v \(2\); .* asks for the 2 dimensions"),
        (Wanted((("v", 2),), ("finger_vel",)), "m2", r"scores it at -20 ms: .* lag_s = -0\.02"),
        (
            Wanted((("a", 1), ("b", 1)), ("finger_vel/index", "finger_vel/mrs"), (-0.02, 0.0)),
            "m2",
            "different lags",
        ),
        (
            Wanted((("a", 1), ("b", 1)), ("finger_vel/mrs", "finger_vel/mrs")),
            "m2",
            "asks for the 2 dimensions",
        ),
        (Wanted((("v", 7),), ("OpenLoopKinematicsVelocity",), (0.1,)), "h1", r"\+100 ms"),
    ],
)
def test_a_decoder_that_does_not_fit_is_refused(
    tmp_path: Path, wanted: Wanted, task: str, why: str
) -> None:
    bundle = random_bundle(tmp_path / "bundle", wanted)
    with pytest.raises(FalconError, match=why):
        fit_bundle(bundle, falcon_task(task))


def test_a_range_of_leads_serves_another_lag(tmp_path: Path) -> None:
    leads = {"lead_s": {"min": -0.1, "max": 0.1, "default": 0.0}}
    plain = Wanted((("v", 2),), ("finger_vel",), fields=leads)
    assert fit_bundle(random_bundle(tmp_path / "a", plain), M2).lead_s == pytest.approx(-0.02)
    lagged = Wanted((("v", 2),), ("finger_vel",), (-0.02,))
    assert fit_bundle(random_bundle(tmp_path / "b", lagged), M2).lead_s == 0.0
    assert fit_bundle(random_bundle(tmp_path / "c", VELOCITY), M2).lead_s == 0.0


def test_channels_that_are_not_the_decoders_are_refused(tmp_path: Path) -> None:
    shifted = random_bundle(tmp_path / "a", Wanted((("v", 2),), first_unit=1))
    stepper = Stepper(fit_bundle(shifted, M2), open_cpu(shifted))
    with pytest.raises(FalconError, match=rf"reads unit u{N_UNITS} \(1 such\)"):
        stepper.step(np.zeros(N_UNITS, np.int64))
    fewer = random_bundle(tmp_path / "b", Wanted((("v", 2),), n_units=N_UNITS - 2))
    assert fit_bundle(fewer, M2).rows(N_UNITS).tolist() == [*range(N_UNITS - 2), -1, -1]
    with pytest.raises(FalconError, match=rf"knows {N_UNITS - 2} of 96 channels"):
        fit_bundle(fewer, M2).rows(96)


def test_observations_that_are_no_counts_are_refused(tmp_path: Path) -> None:
    bundle = random_bundle(tmp_path / "a", Wanted((("v", 2),)))
    stepper = Stepper(fit_bundle(bundle, M2), open_cpu(bundle))
    stepper.step(np.ones(N_UNITS))
    with pytest.raises(FalconError, match="no counts"):
        stepper.step(np.full(N_UNITS, 0.4))
    with pytest.raises(FalconError, match="no counts"):
        stepper.step(np.full(N_UNITS, np.nan))
    with pytest.raises(FalconError, match="below 0"):
        stepper.step(np.full(N_UNITS, -1))
    with pytest.raises(FalconError, match="5 channels"):
        stepper.step(np.zeros(5, np.int64))


@pytest.mark.parametrize(
    ("name", "tag", "session"),
    [
        ("sub-MonkeyL-held-in-minival_ses-20120924_behavior+ecephys", "20120924", "20120924"),
        ("L_20121004_held_out_eval", "20121004", "20121004"),
        (
            "sub-MonkeyN-held-in-calib_ses-2020-10-19-Run2_behavior+ecephys",
            "Run2_20201019",
            "20201019",
        ),
        ("sub-MonkeyNRun1_20201030_held_out_eval", "Run1_20201030", "20201030"),
        ("S10_set_2_minival", "S10_set_2", "S10"),
        ("S6-set-1-eval", "S6_set_1", "S6"),
        ("sub-HumanPitt-held-in-calib_ses-S0", "S0", "S0"),
        ("sub-HumanPitt-held-in-calib_ses-19250126T113454", "S6_set_1", "S6"),
    ],
)
def test_names_of_files_tell_their_session(name: str, tag: str, session: str) -> None:
    assert tag_of(Path(f"{name}.nwb")) == tag
    assert session_of(tag) == session


def test_names_that_tell_no_session_are_refused() -> None:
    with pytest.raises(FalconError, match="keep the names"):
        tag_of(Path("recording.nwb"))


def test_r2_is_weighted_by_variance() -> None:
    rng = np.random.default_rng(0)
    actual = rng.normal(0, [1.0, 5.0], (50, 2)) + 3
    decoded = actual + rng.normal(0, 1, (50, 2))
    metrics = pytest.importorskip("sklearn.metrics")
    expected = metrics.r2_score(actual, decoded, multioutput="variance_weighted")
    parts = [ScoredFile(decoded[:20], actual[:20]), ScoredFile(decoded[20:], actual[20:])]
    assert weighted_r2(parts) == pytest.approx(expected, abs=1e-12)


def test_files_of_one_day_are_scored_together(tmp_path: Path) -> None:
    files = [write_m2(tmp_path, "20201019", run, run) for run in (1, 2)]
    files.append(write_m2(tmp_path, "20201020", 1, 3))
    random_bundle(tmp_path / "bundle", VELOCITY)
    result = evaluate_falcon(tmp_path / "bundle", files, "m2")
    assert list(result["sessions"]) == ["20201019", "20201020"]
    assert result["falcon"]["R2 Mean"] == pytest.approx(np.mean(list(result["sessions"].values())))
    alone = evaluate_falcon(tmp_path / "bundle", files[:1], "m2")
    assert alone["sessions"]["20201019"] != result["sessions"]["20201019"]
    part = evaluate_falcon(tmp_path / "bundle", files[:1], "m2", split="last:0.5")
    n = part["files"][files[0].stem]["n"]
    assert 0 < n < alone["files"][files[0].stem]["n"]


def test_the_command_line_checks_and_evaluates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_m2(tmp_path, "20201019", 1, 0)
    random_bundle(tmp_path / "bundle", Wanted((("velocity", 2),), n_frequencies=3))
    bundle = str(tmp_path / "bundle")
    assert main(["falcon", bundle, "--task", "m2", "--check"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["decoders"]["all sessions"]["decoder_id"] == "untrained"
    assert "learnt from the times of spikes" in told.err
    assert main(["evaluate", bundle, str(file), "--falcon", "m2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["falcon"]["task"] == "m2"
    assert main(["evaluate", bundle, str(file), "--falcon", "m2", "--figure", "f.png"]) == 2
    assert "--figure cannot be had with --falcon" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["absent", "--task", "m1"], "is no bundle and holds none"),
        (["absent", "--task", "h2"], "asks for the written sentence"),
    ],
)
def test_the_command_line_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    assert main(["falcon", str(tmp_path / arguments[0]), *arguments[1:]]) == 2
    told = capsys.readouterr()
    assert not told.out
    assert re.fullmatch(rf"spikeloop: .*{why}.*\n", told.err)


def test_every_error_is_handled() -> None:
    assert issubclass(FalconError, CalibrationError)
    assert DIMS["m1"] == falcon_task("m1").dims
    assert all(falcon_task(name).behavior.endswith(held) for name, held in BEHAVIOR.items())
