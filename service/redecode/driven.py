"""A recorded run with the behaviour that was recorded beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from export.bundle import MANIFEST
from service.redecode.reading import RecordingError, fitting_together, open_run
from service.redecode.session import session_of_run
from service.telemetry.recording import records
from streams.sessions.convert.convert import Reading, behavior_in
from streams.sessions.session import Behavior, Session, Trials
from streams.sessions.xdf.reading import read_recording
from streams.wire.schema import Decode

PATTERN = "behavior-*.xdf"


def session_of_driven_run(path: Path, reading: Reading | None = None) -> Session:
    """Return a recorded run as a session, with its behaviour.

    Args:
        path: the run's folder; the behaviour lies in it as `behavior-*.xdf`.
        reading: what means what in these.

    Raises:
        RecordingError: the run cannot be read, or no behaviour was recorded beside it.
        streams.errors.StreamsError: the behaviour cannot be read.
    """
    session, _, _ = session_of_run(path, None)
    begins_s = float(session.provenance["lsl_time_of_start"])
    files = sorted(path.glob(PATTERN))
    if not files:
        raise RecordingError(
            f"{path}: no behaviour was recorded beside the run. Name its streams under `[record] "
            "behavior` in the daemon's config, or give what `spikeloop record` wrote instead"
        )
    parts = [behavior_in(read_recording(file), reading or Reading(), begins_s) for file in files]
    names = dict.fromkeys(name for behavior, _ in parts for name in behavior)
    behavior = {name: _chained([part[name] for part, _ in parts if name in part]) for name in names}
    trials = _all_trials([part for _, part in parts if part is not None])
    return replace(session, behavior={**session.behavior, **behavior}, trials=trials)


def decoder_of_run(path: Path) -> Path | None:
    """Find the bundle that was in service last; None where it is not there any more.

    Raises:
        RecordingError: the run cannot be read.
    """
    run, checksum = open_run(path), ""
    opened: dict[int, dict[str, Any]] = {}
    with fitting_together(path):
        for one in run.records():
            match one:
                case records.Header():
                    opened |= one.decoders
                case records.Opened():
                    opened[one.number] = one.facts
                case records.Said(topic="decode"):
                    checksum = msgspec.json.decode(one.decode, type=Decode).checksum
        places = [Path(told["bundle"]) for told in opened.values() if told["checksum"] == checksum]
    return next((place for place in places if (place / MANIFEST).exists()), None)


def _chained(parts: Sequence[Behavior]) -> Behavior:
    """Return one signal of several that follow one another in time."""
    t_s = np.concatenate([one.t_s for one in parts])
    values = np.concatenate([one.values for one in parts])
    order = np.unique(t_s, return_index=True)[1]
    return Behavior(t_s[order], values[order], parts[0].unit)


def _all_trials(parts: Sequence[Trials]) -> Trials | None:
    if not parts:
        return None
    columns = {
        name: np.concatenate([one.columns[name] for one in parts]) for name in parts[0].columns
    }
    start_s, stop_s = (
        np.concatenate([getattr(one, name) for one in parts]) for name in ("start_s", "stop_s")
    )
    return Trials(start_s, stop_s, columns)
