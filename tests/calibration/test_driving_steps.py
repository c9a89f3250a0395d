"""Steps go into the daemon and come out again: by the score, by trouble, and however it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.adaptation.adapted import write_child
from calibration.errors import WizardError
from calibration.prequential.traces import Recent
from calibration.wizard.behavior import Pace
from calibration.wizard.config import DriveSection
from calibration.wizard.driving import (
    ASSIST_FALLS,
    KEEP_S,
    SCORED_WITHIN_S,
    Driving,
    end_driving,
)
from calibration.wizard.learner import Learnt
from calibration.wizard.run import CalibrationRun
from export.bundle import DecoderBundle, open_bundle
from streams.clock import ManualClock
from streams.simulation.control import Block, block_of
from streams.wire.client import DeclinedError
from tests.calibration.wizard_rigs import DEMO, run_of

CONFIG = DriveSection(enabled=True)
GOOD = Recent(8, 0.45, 0.1, -0.2)


class StandIn:
    """A daemon's answers: what is in service, what stands by, what is refused."""

    def __init__(self, served: str, graph: str) -> None:
        self.served, self.standby, self.graph = served, "", graph
        self.by_tables = self.standby_by_tables = False
        self.marks: list[str] = []
        self.asked: list[tuple[str, bool]] = []
        self.refuses = ""
        self.max_speed, self.keep_s, self.kept = 60.0, 0.0, threading.Event()

    def ask(self, command: str, attached: bytes | None = None, **a: Any) -> dict[str, Any]:
        """As `DaemonClient.ask`."""
        if command == "status":
            shaping = {"max_speed": self.max_speed}
            ids = {"checksum": self.served, "standby": self.standby}
            return ids | {"graph": self.graph, "shaping": shaping}
        if command == "mark":
            self.marks.append(a["text"])
        elif command == "keep":
            self.kept.set()
        elif command == "shape":
            self.max_speed = a["max_speed"]
        elif command == "rollback":
            if not self.standby:
                raise DeclinedError("nothing was swapped")
            self.served, self.standby = self.standby, self.served
            now, self.by_tables = self.by_tables, self.standby_by_tables
            self.standby_by_tables = now
        elif command == "swap":
            self.asked.append((Path(a["bundle"]).name, a.get("tables", False)))
            self.keep_s = a.get("keep_s", 0.0)
            if not self.refuses:
                self._take(open_bundle(Path(a["bundle"])), tables=a.get("tables", False))
        return {"over": True, "refused": self.refuses, "stages": []}

    def _take(self, bundle: DecoderBundle, *, tables: bool) -> None:
        # As `DecoderSlots`: the decoder from before the tables stands by.
        if not (tables and self.by_tables):
            self.standby, self.standby_by_tables = self.served, self.by_tables
        self.by_tables = tables
        self.served, self.graph = bundle.manifest.id, bundle.graph_sha256


@pytest.fixture
def run(tmp_path: Path) -> Iterator[CalibrationRun]:
    """A calibration from the demo's decoder, in which the subject is to drive."""
    made = run_of(tmp_path / "day", drive={"enabled": True})
    yield made
    made.progress.close()


@pytest.fixture
def daemon(run: CalibrationRun) -> StandIn:
    """Runs the demo's decoder."""
    bundle = open_bundle(DEMO)
    made = StandIn(bundle.manifest.id, bundle.graph_sha256)
    run.__dict__["daemon"] = made
    return made


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two decoders of the demo's network."""
    folder, base = tmp_path_factory.mktemp("steps"), open_bundle(DEMO)
    fields = base.manifest.model_dump(mode="json")
    for i in (1, 2):
        tables = {name: table * np.float32(1.0 + 0.1 * i) for name, table in base.tables.items()}
        graph = base.graph_path.read_bytes()
        out = folder / f"step-{i}"
        write_child(out, base, fields | {"name": out.name}, graph=graph, tables=tables, learnt={})
    return [folder / "step-1", folder / "step-2"]


def driving_of(run: CalibrationRun, daemon: StandIn) -> Driving:
    return Driving(run, daemon, lambda line: None)  # type: ignore[arg-type]


def follow(
    driving: Driving, newest: Path, score: Recent, trouble: str = "", n_trials: int = 0
) -> None:
    """A step, and the look after it, which finds it in service."""
    learnt = Learnt(newest=newest, recent=score, pace=Pace(20.0, 5.0), n_trials=n_trials)
    driving.follow(learnt, trouble)
    driving.follow(learnt, trouble)


def id_of(path: Path) -> str:
    return open_bundle(path).manifest.id


def test_steps_drive_and_yesterdays_stands_by(
    run: CalibrationRun, daemon: StandIn, steps: list[Path]
) -> None:
    driving = driving_of(run, daemon)
    assert daemon.asked == [(DEMO.name, True)]
    assert daemon.marks == []
    follow(driving, steps[0], replace(GOOD, today=CONFIG.least_r2 + 0.05, yesterday=0.0))
    for _ in range(4):
        follow(driving, steps[1], replace(GOOD, today=0.9))
    assert daemon.served == id_of(steps[1])
    assert daemon.standby == id_of(DEMO)
    told = [block_of({"event": "mark", "detail": {"text": one}}) for one in daemon.marks]
    first, last = told[0], told[-1]
    assert first is not None
    assert first.assist > 0.5
    assert last == Block("closed-loop", 0.0)
    ((_, end_s),) = run.progress.notes.drove
    assert end_s is None
    assert run.progress.notes.is_driving
    assert driving.n_swaps == 2


@pytest.mark.parametrize(
    ("score", "trouble", "mark"),
    [
        (replace(GOOD, today=-1.0), "", "block open-loop"),
        (
            replace(GOOD, today=-1.0, yesterday=0.5),
            "",
            f"block closed-loop assist={CONFIG.assist - ASSIST_FALLS:.2f}",
        ),
        (GOOD, "the cursor is frozen", "block open-loop"),
    ],
    ids=["nobody", "yesterday's", "streams"],
)
def test_below_the_floor_yesterdays_is_in_service_again(
    run: CalibrationRun,
    daemon: StandIn,
    steps: list[Path],
    score: Recent,
    trouble: str,
    mark: str,
) -> None:
    driving = driving_of(run, daemon)
    follow(driving, steps[0], GOOD)
    assert daemon.served == id_of(steps[0])
    follow(driving, steps[1], score, trouble)
    assert daemon.served == id_of(DEMO)
    assert daemon.marks[-1] == mark
    assert (run.progress.notes.drove[-1][1] is None) == ("closed" in mark)
    follow(driving, steps[1], GOOD)
    assert daemon.served == id_of(steps[1])
    assert daemon.standby == id_of(DEMO)


def test_a_score_that_is_old_is_none(
    run: CalibrationRun, daemon: StandIn, steps: list[Path]
) -> None:
    """As where markers do not come any more."""
    clock = run.clock
    assert isinstance(clock, ManualClock)
    driving = driving_of(run, daemon)
    follow(driving, steps[0], GOOD, n_trials=8)
    clock.t_s += SCORED_WITHIN_S - 1.0
    follow(driving, steps[0], GOOD, n_trials=8)
    assert daemon.served == id_of(steps[0])
    clock.t_s += 2.0
    follow(driving, steps[0], GOOD, n_trials=8)
    assert daemon.served == id_of(DEMO)
    assert daemon.marks[-1] == "block open-loop"
    assert "no trial was scored" in driving.now.why
    follow(driving, steps[1], GOOD, n_trials=9)
    assert daemon.served == id_of(steps[1])


def test_a_decoder_that_the_daemon_rolled_back_drives_no_more(
    run: CalibrationRun, daemon: StandIn, steps: list[Path]
) -> None:
    driving = driving_of(run, daemon)
    follow(driving, steps[0], GOOD)
    daemon.ask("rollback")  # as for outputs out of range
    follow(driving, steps[1], GOOD)
    assert daemon.served == id_of(DEMO)
    assert daemon.marks[-1] == "block open-loop"
    assert "rolled today's decoder back" in driving.trouble
    follow(driving, steps[1], GOOD)
    assert daemon.served == id_of(DEMO)


def test_a_step_that_is_refused_ends_the_driving(
    run: CalibrationRun, daemon: StandIn, steps: list[Path]
) -> None:
    driving = driving_of(run, daemon)
    follow(driving, steps[0], GOOD)
    daemon.refuses = "units that it does not know"
    follow(driving, steps[1], GOOD)
    assert daemon.served == id_of(DEMO)
    assert daemon.marks[-1] == "block open-loop"
    assert "units that it does not know" in driving.trouble


def test_without_targets_nobody_drives(
    run: CalibrationRun, daemon: StandIn, steps: list[Path]
) -> None:
    driving = driving_of(run, daemon)
    driving.follow(Learnt(newest=steps[0], recent=GOOD, no_pace="no targets"), "")
    assert driving.now.by == "task"
    assert "no targets" in driving.now.text
    assert daemon.served == id_of(DEMO)


def test_however_it_ends_yesterdays_is_in_service(
    run: CalibrationRun, daemon: StandIn, steps: list[Path]
) -> None:
    follow(driving_of(run, daemon), steps[0], GOOD)
    for _ in range(2):  # a rollback of a rollback would bring it back
        end_driving(run)
        assert daemon.served == id_of(DEMO)
        assert daemon.marks[-1] == "block rest"
    assert not run.progress.notes.is_driving
    assert len(daemon.marks) == 2


def test_the_cursor_is_bounded_as_long_as_the_subject_drives(
    run: CalibrationRun, daemon: StandIn, steps: list[Path]
) -> None:
    drive = run.config.drive.model_copy(update={"max_speed": 30.0})
    run.__dict__["config"] = run.config.model_copy(update={"drive": drive})
    follow(driving_of(run, daemon), steps[0], GOOD)
    assert daemon.max_speed == 30.0
    driving_of(run, daemon)  # after a wizard that was killed
    assert daemon.max_speed == 30.0
    end_driving(run)
    assert daemon.max_speed == 60.0


def test_the_daemon_keeps_a_step_only_while_the_wizard_lives(
    run: CalibrationRun, daemon: StandIn, steps: list[Path]
) -> None:
    driving = driving_of(run, daemon)
    assert daemon.keep_s == 0.0
    follow(driving, steps[0], GOOD)
    assert daemon.keep_s == KEEP_S
    assert daemon.kept.wait(5.0)


def test_a_killed_wizards_drive_is_over_when_another_goes_on(
    run: CalibrationRun, daemon: StandIn, steps: list[Path]
) -> None:
    follow(driving_of(run, daemon), steps[0], GOOD)
    driving_of(run, daemon)
    assert daemon.marks[-1] == "block rest"
    ((_, end_s),) = run.progress.notes.drove
    assert end_s is not None


@pytest.mark.parametrize("graph", ["another", open_bundle(DEMO).graph_sha256])
def test_where_another_decoder_runs_yesterdays_goes_in_first(
    run: CalibrationRun, daemon: StandIn, steps: list[Path], graph: str
) -> None:
    daemon.served, daemon.graph = "another", graph
    driving = driving_of(run, daemon)
    assert daemon.asked == [(DEMO.name, False), (DEMO.name, True)]
    follow(driving, steps[0], GOOD)
    assert (daemon.served, daemon.standby) == (id_of(steps[0]), id_of(DEMO))
    end_driving(run)
    assert daemon.served == id_of(DEMO)


def test_a_decoder_that_tables_brought_before_is_no_floor(
    run: CalibrationRun, daemon: StandIn, steps: list[Path]
) -> None:
    """As on the morning after a drive: what stands by is the decoder of the day before."""
    daemon.by_tables, daemon.standby = True, "older"
    driving = driving_of(run, daemon)
    follow(driving, steps[0], GOOD)
    assert (daemon.served, daemon.standby) == (id_of(steps[0]), id_of(DEMO))


def test_a_daemon_that_does_not_take_yesterdays_is_told(
    run: CalibrationRun, daemon: StandIn
) -> None:
    daemon.refuses = "its signature is missing"
    with pytest.raises(WizardError, match="its signature is missing"):
        driving_of(run, daemon)
