"""Step 2: cued trials, recorded as they come, with a count, their balance and a learning curve."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calibration.wizard.aims import Aim, aims_of
from calibration.wizard.behavior import stream_of, unknown_in, what_to_change
from calibration.wizard.collect_page import body_of, line_of
from calibration.wizard.cues import Cues, cues_of
from calibration.wizard.curve import Point, point_of, still_helps
from calibration.wizard.daemon import Daemon
from calibration.wizard.errors import STREAM, WizardError, as_told_here
from calibration.wizard.face import Choice, Page
from calibration.wizard.holes import (
    Hole,
    holes_of,
    left_out,
    longest_silence_s,
    seconds_left,
    without,
)
from calibration.wizard.marking import how_trials_are_marked, shown
from calibration.wizard.recorder import Recorder, convert_arguments, reading_of, wanted
from calibration.wizard.run import Run, run_command
from calibration.wizard.trials import LEAST_BALANCE, Count, count_trials
from export.bundle import open_bundle
from streams.errors import StreamsError
from streams.sessions.convert.convert import convert
from streams.sessions.convert.markers import marker_texts
from streams.sessions.session import Session
from streams.sessions.xdf.reading import read_recording

STEP = "collect"
TITLE = "Collecting cued trials"
REFRESH_S = 0.2
LOOK_EVERY_S = 1.0
LOOK_SHARE = 0.1
"""Of the time, spent on looking at what has come."""
FEWEST_BIN_S = 1.0
FROZEN = 1e-6
LONGEST_S = 6 * 3600.0
"""No recording of a morning is longer; stamps of several clocks are."""
FEWEST_HELD_OUT = 4
"""Trials: fewer tell little of how sure R2 is."""


@dataclass(frozen=True, slots=True)
class Wants:
    """What the base decoder asks of a session.

    Attributes:
        keys: of its units.
        aims: what it follows.
        longest_silence_s: of all units together; a longer one is a hole.
    """

    keys: tuple[str, ...]
    aims: list[Aim]
    longest_silence_s: float


@dataclass(slots=True)
class Seen:
    """What has come so far.

    Attributes:
        seconds: recorded, earlier parts of this calibration too.
        count: of trials.
        spikes_per_s: over everything.
        points: of the learning curve.
        troubles: what is wrong, and what to do.
        left_out: times and trials that are not used, "" where all are.
        unknown: positions that are NaN, "" where none is.
        lost: what the recorder could not record.
    """

    seconds: float = 0.0
    count: Count = field(default_factory=Count)
    spikes_per_s: float = 0.0
    points: list[Point] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    left_out: str = ""
    unknown: str = ""
    lost: list[str] = field(default_factory=list)

    @property
    def remarks(self) -> list[str]:
        """What was lost or left out of what came."""
        return [*self.lost, *filter(None, (self.left_out, self.unknown))]

    @property
    def helps(self) -> bool | None:
        """Whether more data still help."""
        return still_helps(self.points)


def run(held: Run) -> dict[str, Any]:
    """Record until there is enough, and make a session of it.

    Raises:
        WizardError: the streams give nothing to learn from.
    """
    bundle = open_bundle(held.base)
    wants = Wants(
        tuple(unit.key for unit in bundle.manifest.units),
        aims_of(bundle),
        longest_silence_s(bundle),
    )
    if _wants_anew(held):
        held.progress.keep("recordings", [])
    seen, t_begin_s = Seen(), held.clock.now()
    if not _enough(held, _look(held, seen, wants)):
        _record(held, seen, wants)
    spent_s = held.clock.now() - t_begin_s + (held.progress.note("collect_s") or 0.0)
    held.progress.keep("collect_s", spent_s)
    _require(held, seen)
    line = "; ".join(("making a session of it", *seen.remarks))
    held.face.ask(Page(STEP, TITLE, line, line if seen.remarks else ""), (), wait_s=0.0)
    session, made = _session(held, wants)
    return {
        **made,
        "left_out": seen.remarks,
        "collect_s": spent_s,
        "trials": seen.count.n,
        "sectors": list(seen.count.sectors),
        "balance": seen.count.balance,
        "curve": [asdict(point) for point in seen.points],
        "more_helps": seen.helps,
        "test": test_part(session, held.config.collect.verify_s),
    }


def recordings(held: Run) -> list[Path]:
    """What was recorded so far, in order."""
    paths = [held.folder / name for name in held.progress.note("recordings") or []]
    return [path for path in paths if path.is_file()]


def test_part(session: Session, verify_s: float) -> str:
    """What is held out, as `adapt` takes it: the last seconds, from the start of a trial on.

    Where they hold few trials, `FEWEST_HELD_OUT` are taken, but no more than half of all.
    """
    begin_s = session.duration_s - verify_s
    if session.trials is not None:
        starts_s = np.sort(session.trials.start_s[np.isfinite(session.trials.start_s)])
        i_first = int(np.searchsorted(starts_s, begin_s, side="right")) - 1
        i_first = min(i_first, len(starts_s) - min(FEWEST_HELD_OUT, len(starts_s) // 2))
        begin_s = float(starts_s[i_first]) if i_first >= 0 else begin_s
    return f"{begin_s:.3f}-{session.duration_s:.3f}"


def _wants_anew(held: Run) -> bool:
    parts = recordings(held)
    if not parts:
        return False
    told = f"{len(parts)} recording(s) of this calibration are kept"
    page = Page(STEP, TITLE, f"{told}. Add to them, or leave them aside and begin anew?", told)
    choices = (Choice("a", "add to them"), Choice("n", "begin anew"))
    return held.face.ask(page, choices) == "n"


def _record(held: Run, seen: Seen, wants: Wants) -> None:
    names = held.progress.note("recordings") or []
    path = held.folder / f"collect-{_first_free(held.folder)}.xdf"
    held.progress.keep("recordings", [*names, path.name])
    deploy = held.config.deploy
    daemon = Daemon(deploy.control, deploy.keys) if deploy.control else None
    cues = cues_of(held) if held.config.cues.builtin else None
    recorder = Recorder(held, path, wanted(held.config, cues.name if cues else ""))
    try:
        while not recorder.is_recording:
            held.face.ask(Page(STEP, TITLE, "looking for the streams", ""), (), wait_s=REFRESH_S)
        if daemon is not None:
            daemon.mark("block open-loop")
        _watch(held, recorder, cues, seen, wants)
    finally:
        recorder.stop()
        if cues is not None:
            cues.close()
        if daemon is not None:
            daemon.mark("block rest")
    _look(held, seen, wants)


def _first_free(folder: Path) -> int:
    n = 1
    while (folder / f"collect-{n}.xdf").exists():
        n += 1
    return n


def _watch(
    held: Run,
    recorder: Recorder,
    cues: Cues | None,
    seen: Seen,
    wants: Wants,
) -> None:
    """Until there is enough, or the operator ends it."""
    clock, config = held.clock, held.config.collect
    t_begin_s = t_well_s = clock.now()
    t_look_s = t_begin_s + LOOK_EVERY_S
    while True:
        recorder.check()
        if cues is not None:
            cues.show_for(REFRESH_S)
        page = Page(STEP, TITLE, body_of(held, seen, cues), line_of(seen))
        ready = _enough(held, seen)
        choices = (Choice("f", "finish" if ready else "finish early"),) if seen.count.n else ()
        if held.face.ask(page, choices, wait_s=0.0 if cues else REFRESH_S) == "f":
            return
        if clock.now() < t_look_s:
            continue
        t_now_s = clock.now()
        _look(held, seen, wants)
        seen.lost = list(recorder.status().get("lost", ()))
        t_look_s = clock.now() + max(LOOK_EVERY_S, (clock.now() - t_now_s) / LOOK_SHARE)
        t_well_s = t_well_s if seen.troubles else clock.now()
        if held.auto and clock.now() - t_well_s > config.patience_s:
            raise WizardError(" ".join((*_sentences(seen.lost), *seen.troubles)), STREAM)
        if held.auto and (_enough(held, seen) or clock.now() - t_begin_s > config.most_s):
            return


def _look(held: Run, seen: Seen, wants: Wants) -> Seen:
    """Take in what has come; `seen` afterwards."""
    try:
        paths = recordings(held)
        if not paths:
            return seen
        whole = convert(paths, held.session_id, reading_of(held.config, wants.keys))
        if whole.duration_s > LONGEST_S * len(paths):  # before anything is made of that length
            seen.troubles = [_too_long(whole.duration_s)]
            return seen
        holes = _holes(whole, wants)
    except StreamsError as err:
        seen.troubles = [as_told_here(err)]
        return seen
    session = without(whole, holes)
    seen.seconds = seconds_left(whole, holes)
    seen.count = count_trials(session, held.config.behavior.body)
    seen.spikes_per_s = len(session.spikes) / max(seen.seconds, 1e-9)
    seen.left_out = left_out(whole, [one for one in holes if one.to_s < whole.duration_s])
    seen.unknown = unknown_in(whole, wants.aims)
    seen.troubles = _troubles(held, session, wants.aims, paths[-1])
    seen.troubles += [_away(one) for one in holes if one.to_s >= whole.duration_s]
    point = None if seen.troubles else point_of(session, wants.aims[0])
    if point is not None and (not seen.points or point.n_trials > seen.points[-1].n_trials):
        seen.points.append(point)
    return seen


def _sentences(said: Sequence[str]) -> list[str]:
    return [f"{one.rstrip('.')}." for one in said]


def _holes(session: Session, wants: Wants) -> list[Hole]:
    have = [aim.behavior for aim in wants.aims if _has(session, aim.behavior)]
    return holes_of(session, have, wants.longest_silence_s)


def _has(session: Session, name: str) -> bool:
    return any(path == name or path.endswith("/" + name) for path in session.behavior)


def _too_long(seconds: float) -> str:
    return (
        f"What was recorded spans {seconds:,.0f} s by its stamps: they are not all of LSL's clock. "
        "`spikeloop lint` tells whose are not; let its program stamp with LSL's local_clock(), and "
        "begin anew."
    )


def _away(hole: Hole) -> str:
    return (
        f"No {hole.what} since {hole.from_s:.1f} s: does their program run, and is the stream that "
        "is recorded still there? What comes meanwhile is not used."
    )


def _troubles(held: Run, session: Session, aims: list[Aim], newest: Path) -> list[str]:
    found = []
    if session.trials is None or not len(session.trials):
        found.append(_no_trials(held, newest))
    for aim in aims:
        try:
            values = session.signal(aim.behavior).values
        except StreamsError:
            found.append(_no_behavior(held, aim, newest))
            continue
        known = values[np.isfinite(values).all(axis=1)]
        if len(known) > 1 and session.duration_s > FEWEST_BIN_S and np.ptp(known) < FROZEN:
            found.append(
                f"{aim.behavior} is frozen: it has not moved in {session.duration_s:.0f} s. Does "
                "the task run, and is this the stream of what moves?"
            )
    return found


def _no_behavior(held: Run, aim: Aim, newest: Path) -> str:
    config = held.config.behavior
    stream = stream_of(read_recording(newest), config)
    if stream is not None and not len(stream):
        return f"No {aim.behavior}: {stream.description} has brought nothing. Does the task run?"
    if stream is not None and stream.trouble:
        return f"No {aim.behavior}: {stream.description} cannot be used: {stream.trouble}."
    return f"No {aim.behavior}: {what_to_change(stream, aim, config)}."


def _no_trials(held: Run, newest: Path) -> str:
    markers = held.config.markers
    try:
        texts = marker_texts(read_recording(newest).of_type(markers.type))
    except StreamsError as err:
        return f"No trial: {err}."
    if not texts:
        return (
            f"No trial: the stream of {markers.type} brought no marker. Does the task run, and "
            "does it send markers?"
        )
    return f"No trial. {shown(texts)}: {how_trials_are_marked(markers, texts)}."


def _enough(held: Run, seen: Seen) -> bool:
    config = held.config.collect
    return (
        not seen.troubles
        and seen.seconds >= config.learn_s + config.verify_s
        and seen.count.n >= config.fewest_trials
        and (seen.count.n_directed == 0 or seen.count.balance >= LEAST_BALANCE)
    )


def _require(held: Run, seen: Seen) -> None:
    """Refuse what nothing could be learnt from; it stays recorded.

    Raises:
        WizardError: says what is missing.
    """
    config = held.config.collect
    if seen.troubles:
        raise WizardError(" ".join((*_sentences(seen.lost), *seen.troubles)), STREAM)
    if seen.count.n < config.fewest_trials:
        raise WizardError(
            f"too few trials: {seen.count.n} in {seen.seconds:.0f} s, where {config.fewest_trials} "
            "are needed. Go on collecting (they are kept), or lower `fewest_trials`",
            STREAM,
        )
    if seen.count.n_directed and seen.count.balance < LEAST_BALANCE:
        raise WizardError(
            f"all {seen.count.n} trials go along one direction (balance "
            f"{seen.count.balance:.2f}): the other cannot be learnt. Show targets all around",
            STREAM,
        )


def _session(held: Run, wants: Wants) -> tuple[Session, dict[str, Any]]:
    """The session, without what lies in holes, and what there is in it."""
    from streams.sessions.nwb.writer import write_session
    from streams.sessions.reading import read_session

    paths, out = recordings(held), held.folder / "session.nwb"
    summary = convert_to_nwb(held, paths, out)
    whole = read_session(out)
    if holes := _holes(whole, wants):
        write_session(without(whole, holes), out)
    return read_session(out), {
        "session": str(out),
        "session_id": summary["session"],
        "recordings": [path.name for path in paths],
        "units": summary["units"],
        "spikes": summary["spikes"],
        "seconds": summary["seconds"],
    }


def convert_to_nwb(held: Run, paths: list[Path], out: Path) -> dict[str, Any]:
    """Make a session of recordings, in a process of its own; what that told.

    Raises:
        WizardError: they hold no session.
    """
    told = run_command(
        "convert", *map(str, paths), "-o", str(out), "--id", held.session_id,
        "--bundle", str(held.base), *convert_arguments(held.config),
        out=held.folder / "convert.out", err=held.folder / "convert.err",
    )  # fmt: skip
    summary: dict[str, Any] = json.loads(told)
    return summary
