"""Step 2: cued trials, recorded as they come, with a count, their balance and a learning curve."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from calibration.wizard.behavior import SECTORS, TrialCount, test_part, without_gaps
from calibration.wizard.collected import BaseNeeds, Collected
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
from calibration.wizard.ui import Choice, Page
from export.bundle import open_bundle

STEP = "collect"
TITLE = "Collecting cued trials"
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
    collected, config = Collected(BaseNeeds.of(open_bundle(run.base))), run.config.collect
    if _begins_anew(run):
        run.progress.keep(recordings=())
    t_begin_s = run.clock.now()
    collected.update(run)
    # A wizard that was killed may have collected all of it.
    if not collected.is_enough(config):
        _record(run, collected)
    spent_s = run.clock.now() - t_begin_s + run.progress.notes.collect_s
    run.progress.keep(collect_s=spent_s)
    collected.require(config)
    line = "; ".join(("making a session of it", *collected.remarks))
    run.show(Page(STEP, TITLE, line, line if collected.remarks else ""))
    return _session(run, collected, spent_s)


def _begins_anew(run: CalibrationRun) -> bool:
    parts = run.recordings
    if not parts:
        return False
    text = f"{len(parts)} recording(s) of this calibration are kept"
    page = Page(STEP, TITLE, f"{text}. Add to them, or leave them aside and begin anew?", text)
    choices = (Choice("a", "add to them"), Choice("n", "begin anew"))
    return run.ui.ask(page, choices) == "n"


def _record(run: CalibrationRun, collected: Collected) -> None:
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
            _watch(run, recorder, cues, collected)
    finally:
        run.mark("block rest")
    collected.update(run)


def _watch(
    run: CalibrationRun, recorder: Recorder, cues: Cues | None, collected: Collected
) -> None:
    """Go on until there is enough, or the operator ends it."""
    clock, config = run.clock, run.config.collect
    t_begin_s = t_well_s = clock.now()
    t_look_s = t_begin_s + LOOK_EVERY_S
    while True:
        recorder.check()
        if cues is not None:
            cues.show_for(POLL_S)
        page = Page(STEP, TITLE, _body(run, collected, cues), _log_line(collected))
        finish = Choice("f", "finish" if collected.is_enough(config) else "finish early")
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
        is_late = clock.now() - t_begin_s > config.most_s
        if run.auto and (collected.is_enough(config) or is_late):
            return


def _session(run: CalibrationRun, collected: Collected, spent_s: float) -> CollectResult:
    """Write the session, without what lies in gaps."""
    paths, out = run.recordings, run.folder / "session.nwb"
    whole = session_of_recordings(run, paths)
    session = without_gaps(whole, collected.needs.gaps(whole))
    save_session(session, out)
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
        curve=collected.curve,
        more_helps=collected.more_helps,
        test=test_part(session, run.config.collect.verify_s),
    )


def _body(run: CalibrationRun, collected: Collected, cues: Cues | None) -> Group:
    """Show counts, balance, learning curve, and what is wrong."""
    config, count = run.config.collect, collected.count
    wanted_s = config.learn_s + config.verify_s
    time = f"{collected.seconds:.0f} of {wanted_s:.0f} s"
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(width=16)
    table.add_column(width=WIDTH)
    table.add_column()
    table.add_row("time", _bar(collected.seconds, wanted_s), time)
    trials = f"{count.n} of at least {config.fewest_trials}"
    table.add_row("trials", _bar(count.n, config.fewest_trials), trials)
    table.add_row("directions", _sectors(count), _balance(count))
    table.add_row("learning curve", _spark(collected.curve), _latest(collected.curve))
    table.add_row("", Text(*ADVICE[collected.more_helps]), "")
    table.add_row("spikes", f"{collected.spikes_per_s:.0f} a second", "")
    is_long_enough = collected.seconds >= wanted_s and count.n >= config.fewest_trials
    if is_long_enough and not collected.troubles:
        table.add_row("", Text("enough: finish when it suits you", style="bold green"), "")
    parts: list[RenderableType] = [
        table,
        *(Text(f"\n{one}", style="bold yellow") for one in collected.troubles),
        *(Text(f"\n{one}", style="yellow") for one in collected.remarks),
    ]
    return Group(*parts, cues.drawn()) if cues else Group(*parts)


def _log_line(collected: Collected) -> str:
    """Say for a log, every ten seconds, how far it is."""
    remarks = "".join(f"; {one}" for one in (*collected.lost, collected.left_out) if one)
    seconds = collected.seconds
    if not seconds:
        return f"recording{remarks}"
    latest = f", {_latest(collected.curve)}" if collected.curve and seconds % 10 < 1 else ""
    return f"{seconds // 10 * 10:.0f} s{latest}{remarks}"


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
