"""Step 2: cued trials, recorded as they come, and decoders made of them meanwhile.

Each trial is scored by the decoder that was made before it. Where decoders are made afterwards, a
quick filter's learning curve says whether more data help.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from calibration.errors import WizardError
from calibration.prequential.traces import AHEAD_S
from calibration.wizard.behavior import (
    FEWEST_HELD_OUT,
    SECTORS,
    TrialCount,
    test_part,
    without_gaps,
)
from calibration.wizard.collected import BaseNeeds, Collected
from calibration.wizard.driving import Driving, require_drivable
from calibration.wizard.learner import Learner, Learnt, is_closed_form, learner_of
from calibration.wizard.recording import (
    POLL_S,
    Cues,
    Recorder,
    builtin_cues,
    recording_to,
    save_session,
    session_of_recordings,
)
from calibration.wizard.results import CollectResult, LearningPoint
from calibration.wizard.run import CalibrationRun
from calibration.wizard.steps.verify import TRACES
from calibration.wizard.ui import Choice, Page
from export.bundle import open_bundle
from streams.exit_codes import ExitCode

STEP = "collect"
TITLE = "Collecting cued trials"
SHORT_NAMES = {
    "today": "today's",
    "yesterday": "yesterday's",
    "wiener": "Wiener filter",
    "shuffled": "units shuffled",
}
# Reading all that came costs more than a decoder is late by.
ASK_EVERY_S = 2.0
LOOK_EVERY_S = 1.0
# Share of the time spent on reading what has come.
LOOK_SHARE = 0.1
BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH = 40
ADVICE = {
    None: ("too early to say whether more data help", "dim"),
    True: ("more data still help", "yellow"),
    False: ("more data no longer help", "green"),
}


def step(run: CalibrationRun) -> CollectResult:
    """Record until there is enough, and write it as a session.

    Raises:
        WizardError: the streams give nothing to learn from.
    """
    drives, daemon = run.config.drive.enabled, run.daemon
    if drives:
        require_drivable(run.config, closed_form=is_closed_form(run))
    if _begins_anew(run):
        run.progress.keep(recordings=(), drove=(), pace=None)
    with learner_of(run) as learner:
        driving = Driving(run, daemon, partial(_show, run)) if drives and daemon else None
        return _collect(run, learner, driving)


def _show(run: CalibrationRun, line: str) -> None:
    run.show(Page(STEP, TITLE, line, line))


def _collect(
    run: CalibrationRun, learner: Learner | None, driving: Driving | None
) -> CollectResult:
    needs, config = BaseNeeds.of(open_bundle(run.base)), run.config.collect
    collected = Collected(needs, has_quick_filter=learner is None)
    t_begin_s = run.clock.now()
    collected.update(run)
    if learner is not None and run.recordings:
        _wait_for(run, learner, "going on from what was recorded")
    # A wizard that was killed may have collected all of it.
    if not _is_enough(run, collected, learner):
        _record(run, collected, learner, driving)
    spent_s = run.clock.now() - t_begin_s + run.progress.notes.collect_s
    run.progress.keep(collect_s=spent_s)
    collected.require(config)
    if learner is not None:
        _wait_for(run, learner, "scoring the last trials", run.folder / TRACES)
        _require_scored(run, collected, learner.learnt)
    line = "; ".join(("making a session of it", *collected.remarks))
    run.show(Page(STEP, TITLE, line, line if collected.remarks else ""))
    result = _session(run, collected, spent_s, learner)
    if driving is None:
        return result
    drove = {
        "driving_s": driving.seconds,
        "swaps": driving.n_swaps,
        "drive_trouble": driving.trouble,
    }
    return result.model_copy(update=drove)


def _wait_for(run: CalibrationRun, learner: Learner, text: str, traces: Path | None = None) -> None:
    """Have the learner take in everything recorded; write what was scored to `traces`."""
    _hear_out(run, learner, text)
    learner.ask(run.recordings, traces, run.drove)
    _hear_out(run, learner, text)


def _hear_out(run: CalibrationRun, learner: Learner, text: str) -> None:
    while learner.is_busy:
        run.show(Page(STEP, TITLE, learner.phase or text, text), POLL_S)
        learner.hear()


def _is_enough(run: CalibrationRun, collected: Collected, learner: Learner | None) -> bool:
    config = run.config
    if learner is None:
        return collected.is_enough(config.collect)
    more_helps = learner.learnt.more_helps(config)
    return collected.is_fit(config.collect) and more_helps is False


def _require_scored(run: CalibrationRun, collected: Collected, learnt: Learnt) -> None:
    """Refuse what no decoder could be made of, or too few trials to say how good it is.

    Raises:
        WizardError: says why.
    """
    if learnt.refused and not learnt.n_decoders:
        raise WizardError(learnt.refused, ExitCode.STREAM)
    fewest = FEWEST_HELD_OUT
    if learnt.n_trials < fewest:
        raise WizardError(
            f"too few trials: {collected.count.n} in {collected.seconds:.0f} s, of which "
            f"{learnt.n_trials} came after the first decoder and tell how good it is, where "
            f"{fewest} are needed. Go on collecting (they are kept)",
            ExitCode.STREAM,
        )


def _begins_anew(run: CalibrationRun) -> bool:
    parts = run.recordings
    if not parts:
        return False
    text = f"{len(parts)} recording(s) of this calibration are kept"
    page = Page(STEP, TITLE, f"{text}. Add to them, or leave them aside and begin anew?", text)
    choices = (Choice("a", "add to them"), Choice("n", "begin anew"))
    return run.ui.ask(page, choices) == "n"


def _record(
    run: CalibrationRun, collected: Collected, learner: Learner | None, driving: Driving | None
) -> None:
    n = 1
    while (path := run.folder / f"collect-{n}.xdf").exists():
        n += 1
    run.progress.keep(recordings=(*run.progress.notes.recordings, path.name))
    looking = Page(STEP, TITLE, "looking for the streams")
    try:
        with (
            builtin_cues(run) as cues,
            recording_to(run, path, looking, cues.name if cues else "") as recorder,
        ):
            run.mark("block open-loop")
            _watch(run, recorder, cues, collected, learner, driving)
    finally:
        if driving is not None:
            driving.pause()
        # Who drives goes on until today's decoder is accepted or not.
        if driving is None or driving.now.by == "task":
            run.mark("block rest")
    collected.update(run)


def _watch(
    run: CalibrationRun,
    recorder: Recorder,
    cues: Cues | None,
    collected: Collected,
    learner: Learner | None,
    driving: Driving | None,
) -> None:
    """Go on until there is enough, or the operator ends it."""
    clock, config = run.clock, run.config.collect
    t_begin_s = t_well_s = clock.now()
    t_look_s = t_begin_s + LOOK_EVERY_S
    next_ask_s = 0.0 if driving else run.config.learn.first_s
    while True:
        recorder.check()
        if cues is not None:
            cues.show_for(POLL_S)
        if learner is not None:
            learner.hear()
            if driving is not None:
                trouble = "the streams give trouble" if collected.troubles else ""
                driving.follow(learner.learnt, trouble)
        is_enough = _is_enough(run, collected, learner)
        body = _body(run, collected, cues, learner, driving)
        page = Page(STEP, TITLE, body, _log_line(collected, learner, driving))
        finish = Choice("f", "finish" if is_enough else "finish early")
        choices = (finish,) if collected.count.n else ()
        if run.ui.ask(page, choices, wait_s=0.0 if cues else POLL_S) == "f":
            return
        if clock.now() < t_look_s:
            continue
        t_now_s = clock.now()
        collected.update(run)
        collected.lost = recorder.status().lost
        # The longer a look takes, the rarer: the daemon may run on the same machine.
        t_look_s = clock.now() + max(LOOK_EVERY_S, (clock.now() - t_now_s) / LOOK_SHARE)
        t_well_s = t_well_s if collected.troubles else clock.now()
        # Nobody is there to mend it.
        if run.auto and clock.now() - t_well_s > config.patience_s:
            raise collected.trouble
        if learner is not None and not collected.troubles and collected.seconds >= next_ask_s:
            learner.ask(run.recordings, driven=run.drove)
            next_ask_s = collected.seconds + (LOOK_EVERY_S if driving else ASK_EVERY_S)
        is_late = clock.now() - t_begin_s > config.most_s
        if run.auto and (_is_enough(run, collected, learner) or is_late):
            return


def _session(
    run: CalibrationRun, collected: Collected, spent_s: float, learner: Learner | None
) -> CollectResult:
    """Write the session, without what lies in gaps."""
    paths, out = run.recordings, run.folder / "session.nwb"
    whole = session_of_recordings(run, paths, run.drove)
    session = without_gaps(whole, collected.needs.gaps(whole))
    save_session(session, out)
    learnt = learner.learnt if learner else Learnt()
    held_out = learner is None or run.config.learn.hold_out
    curve = [LearningPoint(one.seconds, one.n_trials, one.r2) for one in learnt.curve]
    return CollectResult(
        session=str(out),
        session_id=session.id,
        recordings=[path.name for path in paths],
        units=len(whole.unit_keys),
        spikes=len(whole.spikes),
        seconds=round(whole.duration_s, 3),
        left_out=collected.remarks,
        collect_s=spent_s,
        trials=collected.count.n,
        sectors=list(collected.count.sectors),
        balance=collected.count.balance,
        curve=curve if learner else collected.curve,
        more_helps=_more_helps(run, collected, learner),
        test=test_part(session, run.config.collect.verify_s) if held_out else "",
        decoders=learnt.n_decoders,
        expected_gain=learnt.gain.mean if learnt.gain else None,
    )


def _more_helps(run: CalibrationRun, collected: Collected, learner: Learner | None) -> bool | None:
    if learner is None:
        return collected.more_helps
    return learner.learnt.more_helps(run.config)


def _body(
    run: CalibrationRun,
    collected: Collected,
    cues: Cues | None,
    learner: Learner | None,
    driving: Driving | None,
) -> Group:
    """Show counts, balance, how good the decoder is, and what is wrong."""
    config, count = run.config.collect, collected.count
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(width=16)
    table.add_column(width=WIDTH)
    table.add_column()
    wanted_s = config.most_s if learner else config.learn_s + config.verify_s
    limit = "at most " if learner else ""
    time = f"{collected.seconds:.0f} of {limit}{wanted_s:.0f} s"
    table.add_row("time", _bar(collected.seconds, wanted_s), time)
    trials = f"{count.n} of at least {config.fewest_trials}"
    table.add_row("trials", _bar(count.n, config.fewest_trials), trials)
    table.add_row("directions", _sectors(count), _balance(count))
    if learner is None:
        table.add_row("learning curve", _spark(collected.curve), _latest(collected.curve))
    else:
        add_decoder_rows(table, learner.learnt, learner.phase)
        if driving is not None:
            table.add_row("drives", Text(driving.trouble or driving.now.text), "")
    table.add_row("", Text(*ADVICE[_more_helps(run, collected, learner)]), "")
    table.add_row("spikes", f"{collected.spikes_per_s:.0f} a second", "")
    if _is_enough(run, collected, learner):
        table.add_row("", Text("enough: finish when it suits you", style="bold green"), "")
    parts: list[RenderableType] = [
        table,
        *(Text(f"\n{one}", style="bold yellow") for one in collected.troubles),
        *(Text(f"\n{one}", style="yellow") for one in collected.remarks),
    ]
    return Group(*parts, cues.drawn()) if cues else Group(*parts)


def add_decoder_rows(table: Table, learnt: Learnt, phase: str) -> None:
    """Show the sequence of decoders: their curve, their scores, and what is being done."""
    curve = learnt.curve
    made = f"{learnt.n_decoders} made, the newest of {learnt.seconds:.0f} s"
    table.add_row("decoders", made if learnt.n_decoders else "none yet", phase)
    if learnt.refused:
        table.add_row("", Text(learnt.refused, style="yellow"), "")
    points = [LearningPoint(one.seconds, one.n_trials, one.r2) for one in curve]
    scored = f"R2 of {learnt.n_trials} trials, each before it was learnt" if curve else ""
    table.add_row("learning curve", _spark(points), scored)
    for name, one in learnt.scores.items():
        low, high = one.mean_ci
        bar = _bar(max(one.mean, 0.0), 1.0)
        table.add_row(SHORT_NAMES[name], bar, f"R2 {one.mean:.2f} ({low:.2f} to {high:.2f})")
    if learnt.gain is not None:
        gain = f"{max(learnt.gain.mean, 0.0):.3f}, at most {max(learnt.gain.most, 0.0):.3f}"
        table.add_row(f"{AHEAD_S:.0f} s more", f"would gain {gain}", "")


def _log_line(collected: Collected, learner: Learner | None, driving: Driving | None) -> str:
    """Say for a log, every ten seconds and when somebody else drives, how far it is."""
    drives = "" if driving is None else driving.trouble or driving.now.text
    told = (*collected.lost, collected.left_out, drives)
    remarks = "".join(f"; {one}" for one in told if one)
    seconds = collected.seconds
    if not seconds:
        return f"recording{remarks}"
    curve = learner.learnt.curve if learner else collected.curve
    latest = _latest(collected.curve) if learner is None else _latest_of(learner.learnt)
    latest = f", {latest}" if curve and seconds % 10 < 1 else ""
    return f"{seconds // 10 * 10:.0f} s{latest}{remarks}"


def _latest_of(learnt: Learnt) -> str:
    return f"R2 {learnt.curve[-1].r2:.2f} of trials before they were learnt" if learnt.curve else ""


def _bar(done: float, wanted: float) -> ProgressBar:
    return ProgressBar(total=wanted, completed=min(done, wanted), width=WIDTH - 4)


def _sectors(count: TrialCount) -> Text:
    most = max(*count.sectors, 1)
    text = Text()
    for name, n in zip(SECTORS, count.sectors, strict=True):
        text.append(f"{name:>2}", style="dim")
        text.append(f"{BLOCKS[round(n / most * 8)]} ", style="cyan" if n else "dim")
    return text


def _balance(count: TrialCount) -> str:
    if count.n_directed < 4:
        return ""
    n_met = sum(1 for n in count.sectors if n)
    return f"{n_met} of {len(SECTORS)} met, balance {count.balance:.2f}"


def _spark(curve: Sequence[LearningPoint]) -> Text:
    levels = [round(min(max(point.r2, 0.0), 1.0) * 8) for point in curve[-WIDTH + 4 :]]
    return Text("".join(BLOCKS[level] for level in levels), style="green")


def _latest(curve: Sequence[LearningPoint]) -> str:
    return f"R2 {curve[-1].r2:.2f} by a quick filter" if curve else ""
