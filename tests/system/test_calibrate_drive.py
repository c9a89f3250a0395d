"""With `[drive]` the subject drives while trials are collected; every decode is made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from export.bundle import open_bundle
from streams.simulation.control import block_of
from tests.recording.recorded import only_run, redecoded
from tests.system.calibrating import write_config
from tests.system.conftest import DaemonStarter
from tests.system.driven import BASE, SUBJECT, subject_drives
from tests.system.running import Process, unique


@pytest.mark.long
@pytest.mark.alone
def test_the_subject_drives_while_it_is_calibrated(
    run: Callable[..., Process], serve: DaemonStarter, tmp_path: Path
) -> None:
    name, records = unique("drive"), tmp_path / "recordings"
    record = {"enabled": True, "folder": str(records)}
    daemon, subject = subject_drives(run, serve, name, record=record)
    config = write_config(
        tmp_path,
        name,
        BASE,
        calibration={"subject": f"sim-{SUBJECT}"},
        collect={"fewest_trials": 12, "patience_s": 20.0, "most_s": 30.0},
        learn={"first_s": 10.0, "every_s": 5.0},
        drive={"enabled": True},
        deploy={"control": daemon.control},
    )
    folder = tmp_path / "day"
    wizard = run("calibrate", str(config), "--auto", "--json", "--folder", str(folder))
    daemon.until(lambda heard: not wizard.is_alive)
    assert wizard.code() == 0, wizard.err
    assert subject.is_alive, subject.err
    told = json.loads((folder / "progress.json").read_text())
    steps, notes = told["steps"], told["notes"]
    base_id, last = open_bundle(BASE).manifest.id, steps["adapt"]["checksum"]
    # It drove before the collecting was over, and tables alone followed one another.
    assert notes["drove"]
    assert not notes["is_driving"]
    events = [(one["event"], one["detail"]) for one in daemon.heard.events]
    served = [detail["checksum"] for event, detail in events if event == "tables_swapped"]
    assert served[0] == base_id
    assert len(served) >= 4
    assert served[-1] == last
    assert not [event for event, _ in events if event in ("join", "promote", "refused")]
    blocks = [block for one in daemon.heard.events if (block := block_of(one)) is not None]
    kinds = [block.kind for block in blocks]
    assert kinds[0] == "open-loop"
    assert kinds[1:] == ["closed-loop"] * len(kinds[1:])
    assert blocks[1].assist > blocks[-1].assist == 0.0
    assert steps["deploy"]["before"] == base_id
    assert daemon.ask("status").result["standby"] == base_id
    for field in ("seq", "beat"):
        numbers = [decode[field] for decode in daemon.heard.decodes]
        assert all(after == before + 1 for before, after in pairwise(numbers))
    assert daemon.end() == 0
    report = redecoded(only_run(records))
    for what in ("differing", "other_values", "other_tokens", "other_checkpoints"):
        assert report[what] == 0
    assert report["compared"] == report["decodes"]
    assert report["bit_for_bit"]
    assert len(report["by_decoder"]) >= 4
