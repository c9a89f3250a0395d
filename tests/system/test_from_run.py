"""A run of the demo, recorded with its behaviour, becomes a decoder: in real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from export.bundle import open_bundle
from service.redecode.driven import decoder_of_run, session_of_driven_run
from service.redecode.reading import open_run
from service.redecode.session import session_of_run
from service.telemetry.recording import records
from service.telemetry.unit_agreement import ADVISED_R2
from streams.exit_codes import ExitCode
from tests.system.conftest import DaemonStarter

pytestmark = pytest.mark.alone  # a subject that is held up drives badly, and labels follow it

SPIKELOOP = [sys.executable, "-c", "import sys; from service.cli import main; sys.exit(main())"]
SECONDS = 60
PLACE = "processing/behavior"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run in which the simulated subject drove."""
    folder = tmp_path_factory.mktemp("runs")
    command = [*SPIKELOOP, "demo", "--seconds", str(SECONDS), "--json", "--record", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.stdout, done.stderr
    (found,) = (one for one in folder.iterdir() if one.is_dir())
    return found


def test_the_behaviour_lies_beside_the_run_on_its_clock(run: Path) -> None:
    session = session_of_driven_run(run)
    cursor = session.behavior[f"{PLACE}/Position/cursor_position"]
    assert len(cursor.t_s) > 0.8 * 100 * SECONDS
    assert session.trials is not None
    assert len(session.trials) > 3
    # What was decoded moved the cursor: both are on one clock, or they would not go together.
    decoded = session.behavior["processing/decodes/velocity"]
    moved = session.behavior[f"{PLACE}/BehavioralTimeSeries/cursor_velocity"].at(decoded.t_s + 0.02)
    known = np.isfinite(moved).all(axis=1) & np.isfinite(decoded.values).all(axis=1)
    together = np.corrcoef(moved[known, 0], decoded.values[known, 0])[0, 1]
    assert together > 0.9


def test_it_becomes_a_decoder_that_is_verified(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "made"
    command = [*SPIKELOOP, "calibrate", "--from-run", str(run), "-o", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode in (0, 8), done.stderr
    told = json.loads(done.stdout)
    assert told["better"] == (done.returncode == 0)
    assert told["verify"]["decoders"]["today"]["mean"] > 0.2
    base = decoder_of_run(run)
    assert base is not None
    manifest = open_bundle(Path(told["bundle"])).manifest
    assert manifest.parent_id == open_bundle(base).manifest.id
    # In half a minute the units may share too little to tell later how far they have moved.
    agreement = manifest.training.get("agreement")
    assert agreement is None or agreement["reliability"] > 0.0


def test_a_better_one_is_swapped_into_the_running_daemon(
    run: Path, tmp_path: Path, serve: DaemonStarter, stream: str
) -> None:
    """A simulated subject is decoded meanwhile, and no beat hears of it but by its events."""
    daemon = serve(stream, Path("shipped:demo"), input={"wait_s": 0.5, "simulate_if_absent": True})
    before = daemon.until_validity("ok")["decoder_id"]
    command = [*SPIKELOOP, "calibrate", "--from-run", str(run), "-o", str(tmp_path / "made")]
    command += ["--swap", "--control", daemon.control]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    now = daemon.ask("status").result["decoder_id"]
    if done.returncode == ExitCode.BELOW_THRESHOLD:
        assert "Leave the old one in service" in done.stdout
        assert now == before
        return
    assert done.returncode == 0, done.stderr
    assert "It is in service" in done.stdout
    assert now == "made"
    for event in ("join", "promote"):
        assert daemon.until_event(event)["detail"]["decoder_id"] == "made"
    beats = [decode["beat"] for decode in daemon.heard.decodes]
    assert beats == list(range(beats[0], beats[-1] + 1))


@pytest.mark.skipif("SPIKELOOP_FULL" not in os.environ, reason="takes long: SPIKELOOP_FULL=1")
def test_the_heartbeat_says_what_units_cost_since(run: Path, tmp_path: Path) -> None:
    """The same day, the same neurons: nothing is lost, and nothing is advised."""
    out = tmp_path / "made"
    command = [*SPIKELOOP, "calibrate", "--from-run", str(run), "-o", str(out), "--json"]
    subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    command = [*SPIKELOOP, "demo", "--seconds", "140", "--json", "--record", str(tmp_path / "runs")]
    command += ["--bundle", str(out / "decoder" / out.name)]
    subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    (folder,) = (one for one in (tmp_path / "runs").iterdir() if one.is_dir())
    told = [one for one in open_run(folder).records() if isinstance(one, records.Told)]
    lost = [msgspec.json.decode(one.message)["r2_lost"] for one in told if one.topic == "heartbeat"]
    assert lost[0] is None
    assert lost[-1] is not None
    assert lost[-1] < ADVISED_R2
    assert not any(b"recalibration_advised" in one.message for one in told)


def test_a_run_without_behaviour_is_refused_with_what_to_do(run: Path, tmp_path: Path) -> None:
    alone = tmp_path / run.name
    alone.mkdir()
    for part in run.glob("*.rec"):
        (alone / part.name).write_bytes(part.read_bytes())
    assert len(session_of_run(alone, None)[0].spikes)
    command = [*SPIKELOOP, "calibrate", "--from-run", str(alone), "-o", str(tmp_path / "made")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode != 0
    assert "[record] behavior" in done.stderr
    assert not (tmp_path / "made").exists()
