"""The process that makes decoders beside the wizard: what it says, and what becomes of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from calibration.errors import WizardError
from calibration.prequential.traces import load
from calibration.wizard.learner import Learner, Learnt, has_closed_form, learner_of
from calibration.wizard.run import CalibrationRun
from export.bundle import open_bundle
from tests.calibration.test_closed_form import without_encoder
from tests.calibration.wizard_rigs import run_of, write_rig

LEARN = {"first_s": 5.0, "every_s": 3.0}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[CalibrationRun]:
    """A calibration from the demo's decoder."""
    made = run_of(tmp_path / "day", learn=LEARN)
    yield made
    made.progress.close()


def answer_of(learner: Learner, paths: list[Path], traces: Path | None = None) -> Learnt:
    learner.ask(paths, traces)
    while learner.is_busy:
        learner.hear(1.0)
    return learner.learnt


def test_it_makes_decoders_and_writes_what_was_scored(run: CalibrationRun, tmp_path: Path) -> None:
    path = write_rig(tmp_path / "rig.xdf")
    with learner_of(run) as learner:
        assert learner is not None
        first = answer_of(learner, [path])
        assert first.n_decoders >= 4
        assert first.n_trials >= 8
        assert set(first.scores) == {"today", "yesterday", "wiener", "shuffled"}
        last = answer_of(learner, [path], tmp_path / "traces.npz")
    assert last.n_decoders == first.n_decoders
    assert load(tmp_path / "traces.npz").n_trials == last.n_trials >= first.n_trials


def test_a_recording_that_cannot_be_read_yet_is_no_end(run: CalibrationRun, tmp_path: Path) -> None:
    (tmp_path / "empty.xdf").write_bytes(b"")
    with learner_of(run) as learner:
        assert learner is not None
        assert answer_of(learner, [tmp_path / "empty.xdf"]).refused
        assert answer_of(learner, [write_rig(tmp_path / "rig.xdf")]).n_decoders >= 4


def test_a_process_that_died_is_told(run: CalibrationRun, tmp_path: Path) -> None:
    with ExitStack() as ending:
        learner = Learner(run)
        ending.callback(learner.close)
        learner.ask([tmp_path / "none.xdf"])
        pid = learner._process.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WizardError, match="has ended; what was recorded is kept"):
            learner.hear(60.0)


def test_it_ends_with_the_wizard(run: CalibrationRun) -> None:
    with learner_of(run) as learner:
        assert learner is not None
        process = learner._process
    assert not process.is_alive()


def test_an_answer_that_nobody_reads_is_no_failure(
    run: CalibrationRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    learner = Learner(run)
    learner.ask([write_rig(tmp_path / "rig.xdf")])
    assert learner._ours.poll(60.0)
    learner._ours.close()
    learner._process.join(60.0)
    assert learner._process.exitcode == 0
    assert "Traceback" not in capfd.readouterr().err


def test_decoders_without_closed_form_are_made_afterwards(folder: Path, tmp_path: Path) -> None:
    older = without_encoder(open_bundle(folder / "counts"), tmp_path / "older")
    assert has_closed_form(folder / "counts")
    assert not has_closed_form(older)
    made = run_of(tmp_path / "day", calibration={"base": str(older)})
    with learner_of(made) as learner:
        assert learner is None
    made.progress.close()
    chosen = run_of(tmp_path / "other", learn={"way": "gradient"})
    with learner_of(chosen) as learner:
        assert learner is None
    chosen.progress.close()
