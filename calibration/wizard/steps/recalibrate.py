"""Step 8, optional: the subject drives, less and less assisted, and teaches by what it meant.

A subject in control means to go straight to the target, whatever the decoder did, and to
rest once it is there (ReFIT, Gilja et al. 2012). Its own open-loop reaches tell how fast.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.text import Text

from calibration.errors import STREAM, WizardError
from calibration.wizard.behavior import find_gaps, longest_silence_s, test_part, without_gaps
from calibration.wizard.recording import POLL_S, recording_to, save_session, session_of_recordings
from calibration.wizard.results import RecalibrateResult, needed
from calibration.wizard.run import CalibrationRun
from calibration.wizard.steps.adapt import adapted, decoder_name
from calibration.wizard.steps.deploy import deploy
from calibration.wizard.steps.verify import decide, verification_line, verification_table, verify
from calibration.wizard.ui import Choice, Page
from export.bundle import open_bundle
from streams.messages import Float64s
from streams.sessions.convert.convert import joined
from streams.sessions.reading import read_session
from streams.sessions.session import Behavior, Session

STEP = "recalibrate"
TITLE = "The subject drives"
# After another target has appeared, nobody knows yet what the subject means.
REACTION_S = 0.4
# The very fastest samples are often the tracker's noise.
TOP_QUANTILE = 0.9
# Slower than this share of the top speed is rest.
MOVING_SHARE = 0.1
PLACE = "processing/behavior"


def step(run: CalibrationRun) -> RecalibrateResult:
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
    compared = verify(run, today, out, session, test, run.folder / "verify-driven.npz")
    run.ui.ask(Page(STEP, TITLE, verification_table(compared), verification_line(compared)))
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
    return run.ui.ask(Page(STEP, TITLE, Text(text), text), choices) != "s"


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
    with recording_to(run, path, Page(STEP, TITLE, "looking for the streams")) as recorder:
        t_end_s = run.clock.now() + block_s
        while (left_s := t_end_s - run.clock.now()) > 0:
            recorder.check()
            bar = ProgressBar(total=block_s, completed=block_s - left_s, width=50)
            run.show(Page(STEP, TITLE, Group(Text(text), bar), text), POLL_S)


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


@dataclass(frozen=True, slots=True)
class Pace:
    """The subject's pace: top speed from afar, slower on the second half of the way.

    Attributes:
        top: speed, in the position's unit a second.
        slow_within: distance to the target from which on it slows down.
    """

    top: float
    slow_within: float

    def speed(self, away: Float64s) -> Float64s:
        """(n,) at each distance."""
        speed: Float64s = self.top * np.minimum(1.0, away / self.slow_within)
        return speed


def pace_of(session: Session, body: str) -> Pace:
    """Read a subject's pace from its own movements.

    Raises:
        WizardError: it did not move, or there are no targets.
    """
    moved, position, target = _signals(session, body)
    speed = np.linalg.norm(moved.values, axis=1)
    speed = speed[np.isfinite(speed)]
    moving = speed[speed > MOVING_SHARE * np.max(speed, initial=0.0)]
    trials = session.trials
    starts_s = trials.start_s if trials is not None else np.zeros(0)
    # The target may be sent just after the marker.
    shown = _shown_at(target, starts_s + 0.05)
    reach = np.linalg.norm(shown - position.at(starts_s), axis=1)
    reach = reach[np.isfinite(reach) & (reach > 0)]
    if not len(moving) or not len(reach):
        raise WizardError(
            f"{body!r} does not move to targets in what was collected: how fast the subject means "
            "to go cannot be known",
            STREAM,
        )
    return Pace(float(np.quantile(moving, TOP_QUANTILE)), 0.5 * float(np.median(reach)))


def with_intention(session: Session, body: str, pace: Pace, on_target: float) -> Session:
    """Replace a session's velocity by the one that was meant.

    Args:
        session: in which the subject drove; with the positions of `body` and target.
        body: what moved.
        pace: the subject's.
        on_target: how close counts as on the target, in the position's unit.

    Raises:
        WizardError: there is no target to mean.
    """
    moved, position, target = _signals(session, body)
    shown = _shown_at(target, moved.t_s)
    meant = intended(position.at(moved.t_s), shown, pace, on_target)
    meant[_just_changed(moved.t_s, shown)] = np.nan
    name = f"{PLACE}/BehavioralTimeSeries/{body}_velocity"
    behavior = {**session.behavior, name: Behavior(moved.t_s, meant, moved.unit)}
    return replace(session, behavior=behavior)


def intended(cursor: Float64s, target: Float64s, pace: Pace, on_target: float) -> Float64s:
    """Go straight to the target at the subject's pace, and rest on it.

    Args:
        cursor: (n, d).
        target: (n, d), NaN where none was shown.
        pace: the subject's.
        on_target: how close counts as on it.

    Returns:
        (n, d), NaN where there was no target.
    """
    way = target - cursor
    away = np.linalg.norm(way, axis=1)
    speed = np.where(away <= on_target, 0.0, pace.speed(away))
    meant: Float64s = (speed / np.maximum(away, 1e-9))[:, None] * way
    return meant


def _signals(session: Session, body: str) -> tuple[Behavior, Behavior, Behavior]:
    """The body's velocity and position, and the target's position."""
    names = (
        f"{PLACE}/BehavioralTimeSeries/{body}_velocity",
        f"{PLACE}/Position/{body}_position",
        f"{PLACE}/Position/target_position",
    )
    moved, position, target = (session.behavior.get(name) for name in names)
    if moved is None or position is None or target is None:
        raise WizardError(
            f"the streams give no position of {body!r} and of the target: what the subject means "
            "cannot be known. Send `target_x`, `target_y` beside the cursor",
            STREAM,
        )
    return moved, position, target


def _shown_at(target: Behavior, t_s: Float64s) -> Float64s:
    """(n, d) the target shown at each time: the newest sample before it."""
    i = np.maximum(np.searchsorted(target.t_s, t_s, side="right") - 1, 0)
    return np.asarray(target.values[i], np.float64)


def _just_changed(t_s: Float64s, target: Float64s) -> np.ndarray:
    """(n,) bool, True within a reaction time after the target has changed."""
    changed = np.flatnonzero((np.diff(target, axis=0) != 0).any(axis=1)) + 1
    if not len(changed):
        return np.zeros(len(t_s), np.bool_)
    last = np.searchsorted(changed, np.arange(len(t_s)), side="right") - 1
    since_s = t_s - t_s[changed[np.maximum(last, 0)]]
    return np.asarray((last >= 0) & (since_s < REACTION_S))
