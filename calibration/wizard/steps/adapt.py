"""Steps 3 and 8: today's decoder from what was collected, and from what was meant while driving."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.text import Text

from calibration.errors import CalibrationError, WizardError
from calibration.wizard.behavior import (
    find_gaps,
    longest_silence_s,
    pace_of,
    test_part,
    with_intention,
    without_gaps,
)
from calibration.wizard.learner import is_closed_form
from calibration.wizard.recording import POLL_S, recording_to, save_session, session_of_recordings
from calibration.wizard.results import AdaptResult, RecalibrateResult, needed
from calibration.wizard.run import CalibrationRun
from calibration.wizard.steps.deploy import deploy
from calibration.wizard.steps.verify import (
    decide,
    scored_while_collecting,
    verification_line,
    verification_table,
    verify,
)
from calibration.wizard.ui import Choice, Page
from export.bundle import open_bundle
from export.signing.signer import signer_of
from streams.exit_codes import ExitCode
from streams.sessions.convert.convert import joined
from streams.sessions.reading import read_session

ADAPTING = ("adapt", "Making today's decoder")
DRIVING = ("recalibrate", "The subject drives")
EVERYTHING_S = 1e6
# A daemon may run on the same machine, and comes first.
POLITELY = 5


def step(run: CalibrationRun) -> AdaptResult:
    """Adapt the base decoder to the session.

    Raises:
        WizardError: nothing can be learnt from the session.
    """
    collected = needed(run.results.collect)
    out = run.folder / "decoder" / decoder_name(run)
    return adapted(run, run.base, Path(collected.session), out, collected.test)


def decoder_name(run: CalibrationRun) -> str:
    """Name today's decoder, the wire's `decoder_id`."""
    subject, day, name = run.session_id.split("/")
    return f"{subject}-{day}" if name == day else f"{subject}-{name}"


def adapted(run: CalibrationRun, base: Path, session: Path, out: Path, test: str) -> AdaptResult:
    """Adapt a decoder, showing how far it is; one that was left half done is made anew.

    Raises:
        WizardError: nothing can be learnt from the session.
    """
    from calibration.adaptation.adapt import adapt  # brings torch

    sign, gradient = signer_of(run.signing_key), not is_closed_form(run)
    os.nice(POLITELY)
    _show(run, 0, 0, gradient=gradient)
    # A bundle is never changed; what a killed wizard left is no bundle yet.
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    calibration = run.config.calibration
    try:
        result = adapt(
            base,
            session,
            out=out,
            seconds=EVERYTHING_S,
            same_array=calibration.same_array,
            follow_drift=calibration.follow_drift,
            test=test or None,
            gradient=gradient,
            seed=calibration.seed,
            facts=_pace_as_fact(run),
            on_progress=lambda done, most: _show(run, done, most, gradient=gradient),
            verification=None if test else scored_while_collecting(run),
        )
    except CalibrationError as err:
        raise WizardError(str(err), ExitCode.STREAM) from err
    sign(out)
    return AdaptResult.model_validate(result | {"bundle": str(out)})


def _pace_as_fact(run: CalibrationRun) -> dict[str, Any]:
    """Give the subject's pace, which decoders that learn from driving need; {} without targets."""
    try:
        if run.drove is not None:
            pace = run.drove.pace
        else:
            collected = read_session(Path(needed(run.results.collect).session))
            pace = pace_of(collected, run.config.behavior.body)
    except WizardError:
        return {}
    return {"pace": {"top": pace.top, "slow_within": pace.slow_within}}


def _show(run: CalibrationRun, done: int, most: int, *, gradient: bool = True) -> None:
    if not gradient:
        line = "today's decoder, of all trials"
        run.show(Page(*ADAPTING, Text(line), line))
        return
    if done == most > 0:
        line = "scoring the held-out trials, and writing the decoder"
        run.show(Page(*ADAPTING, Text(line), line))
        return
    bar = ProgressBar(total=max(most, 1), completed=done, width=50, pulse=not most)
    share = f"{done} of at most {most} steps" if most else "looking at what each unit does"
    note = Text("It ends by itself when held-out trials no longer gain.", style="dim")
    run.show(Page(*ADAPTING, Group(bar, Text(share), Text(), note), "learning"))


def recalibration_step(run: CalibrationRun) -> RecalibrateResult:
    """Blocks in closed loop, a decoder from what was meant, and its way into service.

    Raises:
        WizardError: as the steps that it repeats.
    """
    config = run.config.recalibrate
    if not config.assist or not needed(run.results.deploy).deployed:
        return RecalibrateResult(done=False)
    if not _is_wanted(run):
        return RecalibrateResult(done=False, why="the operator left it out")
    paths = _drive(run)
    session = _meant(run, paths)
    test = test_part(read_session(session), config.verify_s)
    today = Path(needed(run.results.adapt).bundle)
    out = run.folder / "decoder" / f"{decoder_name(run)}-driven"
    made = adapted(run, today, session, out, test)
    traces, seed = run.folder / "verify-driven.npz", run.config.calibration.seed
    compared = verify(today, out, session, test, traces, seed=seed)
    run.ui.ask(Page(*DRIVING, verification_table(compared), verification_line(compared)))
    # What was meant is a guess, so less of it can be decoded than of movement.
    thresholds = run.config.decide.model_copy(update={"least_r2": config.least_r2})
    decided = decide(run, compared, thresholds)
    result = RecalibrateResult(
        done=True,
        recordings=[path.name for path in paths],
        session=str(session),
        adapt=made,
        verify=compared,
        decide=decided,
    )
    if not decided.is_accepted:
        return result
    why = f"closed-loop recalibration {run.session_id}: {decided.reason}"
    return result.model_copy(update={"deploy": deploy(run, out, why)})


def _is_wanted(run: CalibrationRun) -> bool:
    config = run.config.recalibrate
    text = (
        f"{len(config.assist)} blocks of {config.block_s:g} s in which the subject drives, with "
        "less and less assistance"
    )
    choices = (Choice("enter", "begin"), Choice("s", "leave it out"))
    return run.ui.ask(Page(*DRIVING, Text(text), text), choices) != "s"


def _drive(run: CalibrationRun) -> list[Path]:
    """Record each block that is not there yet."""
    assist = run.config.recalibrate.assist
    done = [run.folder / name for name in run.progress.notes.driven]
    for i in range(len(done), len(assist)):
        path = run.folder / f"driven-{i + 1}.xdf"
        path.unlink(missing_ok=True)  # of a wizard that was killed inside the block
        run.mark(f"block closed-loop assist={assist[i]:.2f}")
        try:
            _record(run, path, f"block {i + 1} of {len(assist)}, {assist[i]:.0%} assisted")
        # A task must not go on assisting when the wizard ends early.
        finally:
            run.mark("block closed-loop assist=0")
        done.append(path)
        run.progress.keep(driven=tuple(one.name for one in done))
    return done


def _record(run: CalibrationRun, path: Path, text: str) -> None:
    block_s = run.config.recalibrate.block_s
    with recording_to(run, path, Page(*DRIVING, "looking for the streams")) as recorder:
        t_end_s = run.clock.now() + block_s
        while (left_s := t_end_s - run.clock.now()) > 0:
            recorder.check()
            bar = ProgressBar(total=block_s, completed=block_s - left_s, width=50)
            run.show(Page(*DRIVING, Group(Text(text), bar), text), POLL_S)


def _meant(run: CalibrationRun, paths: list[Path]) -> Path:
    """Join the blocks, as what was meant, to what was collected in open loop."""
    body, on_target = run.config.behavior.body, run.config.recalibrate.on_target
    collected = read_session(Path(needed(run.results.collect).session))
    pace = pace_of(collected, body)
    driven = session_of_recordings(run, paths)
    longest_s = longest_silence_s(open_bundle(run.base))
    used = without_gaps(driven, find_gaps(driven, [f"{body}_position"], longest_s))
    meant = with_intention(used, body, pace, on_target)
    out = run.folder / "meant.nwb"
    save_session(joined([collected, meant]), out)
    return out
