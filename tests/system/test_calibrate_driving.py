"""The subject drives a running daemon, and a decoder of what it meant takes over, over sockets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from calibration.registry import Registry
from tests.system.calibrating import write_config
from tests.system.conftest import DaemonStarter
from tests.system.driven import BASE, SUBJECT, subject_drives
from tests.system.running import Process, unique

FOLDER = "day"
ASSIST = [0.25]


@pytest.mark.long
def test_a_decoder_of_what_was_meant_takes_over(
    run: Callable[..., Process], serve: DaemonStarter, tmp_path: Path
) -> None:
    name = unique("driving")
    daemon, subject = subject_drives(run, serve, name)
    config = write_config(
        tmp_path,
        name,
        BASE,
        calibration={"subject": f"sim-{SUBJECT}"},
        collect={"learn_s": 5.0, "verify_s": 3.0, "fewest_trials": 4, "patience_s": 20.0},
        deploy={"control": daemon.control},
        recalibrate={"assist": ASSIST, "block_s": 6.0, "verify_s": 3.0, "least_r2": -1e3},
    )
    folder = tmp_path / FOLDER
    wizard = run("calibrate", str(config), "--auto", "--json", "--folder", str(folder))
    daemon.until(lambda heard: not wizard.is_alive)
    assert wizard.code() == 0, wizard.err
    assert subject.is_alive, subject.err
    steps = json.loads((folder / "progress.json").read_text())["steps"]
    driven = steps["recalibrate"]
    assert driven["recordings"] == ["driven-1.xdf"]
    assert driven["decide"]["decided"] == "accept"
    first, last = steps["adapt"]["checksum"], driven["adapt"]["checksum"]
    assert driven["deploy"]["before"] == first
    assert driven["deploy"]["lost_messages"] == 0
    assert daemon.ask("status").result["checksum"] == last
    assert Registry(tmp_path / "bundles").current() == last
    served = list(dict.fromkeys(decode["checksum"] for decode in daemon.heard.decodes))
    assert served[1:] == [first, last]
    marks = [event["detail"]["text"] for event in daemon.heard.events if event["event"] == "mark"]
    wanted = [f"block closed-loop assist={share:.2f}" for share in ASSIST]
    assert [mark for mark in marks if mark in wanted] == wanted
