"""A recorder that ends suddenly, or finds the disk full, leaves a file that opens."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import pyxdf

from streams.sessions.reading import read_session
from streams.sessions.xdf.reading import read_recording
from tests.system.calibrating import REACH_CM, STEP_S, STEPS_PER_TRIAL, Lab
from tests.system.running import _RUN, Process, clock, unique, wait_until

KEYS = tuple(f"ch{i}/u1" for i in range(1, 25))
LOST_AT_MOST_S = 1.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = Lab(unique("recorded"), KEYS)
    made.start()
    yield made
    made.close()


def arguments(lab: Lab, path: Path) -> list[str]:
    streams = (
        f"Spikes:{lab.name_}",
        f"Markers:{lab.name_}-markers",
        f"Position:{lab.name_}-cursor",
    )
    return ["record", str(path), *(word for one in streams for word in ("--stream", one))]


def newest_s(path: Path) -> float:
    return max(float(one.t_s.max()) for one in read_recording(path).streams.values() if len(one))


def test_a_killed_recorder_loses_at_most_the_last_second(
    lab: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "pyxdf")
    path = tmp_path / "a.xdf"
    recorder = Process(tmp_path, *arguments(lab, path))
    try:
        wait_until(lambda: path.exists() and path.stat().st_size > 60_000)
        recorder.signal(signal.SIGKILL)
        t_killed_s = clock.now()
    finally:
        recorder.kill()
    assert t_killed_s - newest_s(path) < LOST_AT_MOST_S
    streams, _ = pyxdf.load_xdf(path, dejitter_timestamps=False)
    by_type = {one["info"]["type"][0]: one for one in streams}
    ours = {one.description.type: one for one in read_recording(path).streams.values()}
    for kind in ("Spikes", "Position"):
        np.testing.assert_array_equal(by_type[kind]["time_series"], ours[kind].values)
        stamps = np.sort(ours[kind].stamps_s)
        assert np.diff(stamps).max() < 0.2


def test_a_full_disk_keeps_what_was_recorded(lab: Lab, tmp_path: Path) -> None:
    path, limit = tmp_path / "a.xdf", 50_000

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    recorder = subprocess.Popen(
        [sys.executable, "-c", _RUN, *arguments(lab, path)],
        preexec_fn=bounded,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
    )
    _, err = recorder.communicate(timeout=60)
    assert recorder.returncode == 2
    assert "the disk refused more of" in err
    assert "free some space there" in err
    assert "Traceback" not in err
    streams, _ = pyxdf.load_xdf(path, dejitter_timestamps=False)
    assert sum(len(one["time_stamps"]) for one in streams) > 100
    assert limit - 10_000 < path.stat().st_size <= limit


def test_the_recorder_ends_with_who_started_it_and_all_it_sent_is_converted(
    lab: Lab, tmp_path: Path
) -> None:
    path = tmp_path / "a.xdf"
    recorder = subprocess.Popen(
        [sys.executable, "-c", _RUN, *arguments(lab, path), "--until-stdin-ends"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    wait_until(lambda: path.exists() and path.stat().st_size > 40_000)
    recorder.communicate(timeout=60)
    assert recorder.returncode == 0
    streams, _ = pyxdf.load_xdf(path, dejitter_timestamps=False)
    for one in streams:
        assert int(one["footer"]["info"]["sample_count"][0]) == len(one["time_stamps"])
    converter = Process(tmp_path, "convert", str(path), "-o", str(tmp_path / "a.nwb"))
    assert converter.code() == 0, converter.err
    told = json.loads(converter.out)
    session = read_session(tmp_path / "a.nwb")
    spikes = next(one for one in streams if one["info"]["type"][0] == "Spikes")
    assert len(session.spikes) == told["spikes"] == len(spikes["time_stamps"])
    velocity = session.signal("cursor_velocity")
    top = 1.875 * REACH_CM / (STEPS_PER_TRIAL * STEP_S)
    assert np.nanmax(np.abs(velocity.values)) == pytest.approx(top, rel=0.05)


def test_a_recording_is_never_written_over(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "a.xdf").write_text("mine")
    recorder = Process(tmp_path, *arguments(lab, tmp_path / "a.xdf"))
    assert recorder.code() == 2
    assert "never written over" in recorder.err
    assert (tmp_path / "a.xdf").read_text() == "mine"
