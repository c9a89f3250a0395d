"""Recordings of a subject that drove: read, checked, and with what it meant as the label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from calibration.errors import CalibrationError
from calibration.wizard.behavior import (
    PLACE,
    Pace,
    find_gaps,
    longest_silence_s,
    pace_of,
    without_gaps,
)
from calibration.wizard.meant import velocity_path
from export.bundle import DecoderBundle
from streams.errors import StreamsError
from streams.exit_codes import ExitCode
from streams.sessions.convert.convert import Reading, convert
from streams.sessions.convert.signals import velocity
from streams.sessions.reading import read_session
from streams.sessions.session import Behavior, Session

ReadRun = Callable[[Path], Session]
"""Reads the folder of a run that the daemon recorded."""
SHORTEST_DRIVEN_S = 10.0
"""Less driving than this is no recording to learn from."""


class FromRunError(CalibrationError):
    """The recordings do not tell what the subject meant.

    Args:
        text: what is missing and what to do.
        code: exit code.
    """

    def __init__(self, text: str, code: int = ExitCode.STREAM) -> None:
        super().__init__(text)
        self.code = code


def read_driven(
    path: Path, bundle: DecoderBundle, body: str, reading: Reading, read_run: ReadRun
) -> Session:
    """Read a recording in which the subject drove.

    Args:
        path: XDF, NWB, or the folder of a run that the daemon recorded.
        bundle: the decoder; a silence that is usual for it is no gap.
        body: what was driven, as in `cursor_position`.
        reading: what means what in an XDF file.
        read_run: reads a run's folder.

    Returns:
        The session, with positions of body and target and the velocity under their usual names,
        and nothing in gaps.

    Raises:
        FromRunError: cursor or targets are missing, or too little was driven.
        streams.errors.StreamsError: it cannot be read.
    """
    if path.is_dir():
        session = read_run(path)
    elif path.suffix.lower() == ".xdf":
        session = convert([path], None, reading)
    else:
        session = read_session(path)
    session = _named_as_usual(session, body, path)
    gaps = find_gaps(session, [f"{body}_position"], longest_silence_s(bundle))
    session = without_gaps(session, gaps)
    driven_s = _driven_s(session, body)
    if driven_s < SHORTEST_DRIVEN_S:
        raise FromRunError(
            f"{path}: a target was shown while {body!r} moved for {driven_s:.1f} s, and "
            f"{SHORTEST_DRIVEN_S:g} s are the least: give a recording in which the subject drove"
        )
    return session


def _named_as_usual(session: Session, body: str, path: Path) -> Session:
    position = _found(session, f"{body}_position", path)
    target = _found(session, "target_position", path)
    if position.values.shape[1] != target.values.shape[1]:
        raise FromRunError(
            f"{path}: {body}_position has {position.values.shape[1]} axes and target_position "
            f"{target.values.shape[1]}: what the subject meant cannot be known"
        )
    moved = velocity_path(body)
    if moved in session.behavior:
        speed = session.behavior[moved]
    else:
        speed = Behavior(
            position.t_s, velocity(position.t_s, position.values), f"{position.unit}/s"
        )
    named = {
        f"{PLACE}/Position/{body}_position": position,
        f"{PLACE}/Position/target_position": target,
        moved: speed,
    }
    return replace(session, behavior={**session.behavior, **named})


def _found(session: Session, name: str, path: Path) -> Behavior:
    try:
        return session.signal(name)
    except StreamsError as err:
        have = ", ".join(sorted(one.rpartition("/")[2] for one in session.behavior)) or "nothing"
        raise FromRunError(
            f"{path} holds no {name!r}, and without it nobody knows what the subject meant; it "
            f"holds {have}. Send the cursor and `target_x`, `target_y` on one LSL stream, and "
            "record it: `[record] behavior` in the daemon's config, or `spikeloop record`"
        ) from err


def _driven_s(session: Session, body: str) -> float:
    """Seconds in which both cursor and target are known."""
    position = session.behavior[f"{PLACE}/Position/{body}_position"]
    target = session.behavior[f"{PLACE}/Position/target_position"]
    if len(position.t_s) < 2:
        return 0.0
    known = np.isfinite(position.values).all(axis=1)
    known &= np.isfinite(target.at(position.t_s, 0.5)).all(axis=1)
    return float(np.count_nonzero(known)) * float(np.median(np.diff(position.t_s)))


def pace_for(bundle: DecoderBundle, sessions: Sequence[Session], body: str) -> tuple[Pace, str]:
    """Find how fast the subject means to go, and say where that was learnt.

    Driving itself is the last resort: a decoded cursor is slower than its driver means, and a
    decoder that learns from that is slower still. So a pace that was measured once is kept.

    Raises:
        calibration.errors.WizardError: the subject did not move to targets.
    """
    told = bundle.manifest.training.get("pace")
    if isinstance(told, dict):
        top, slow_within = told.get("top"), told.get("slow_within")
        if isinstance(top, float) and isinstance(slow_within, float):
            return Pace(top, slow_within), "the calibration's reaches"
    return pace_of(sessions[-1], body), "this driving, since the decoder does not tell"
