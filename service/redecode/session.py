"""A recorded run as a session: spikes as they came, decodes as series, settings as intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from service.redecode.reading import (
    Begins,
    RecordedRun,
    RecordingError,
    fitting_together,
    open_run,
)
from service.telemetry.recording import records
from streams.messages import SpikeBatch, Validity
from streams.sessions.session import Behavior, Session, Trials
from streams.wire.schema import Decode, Event

DECODES = "processing/decodes"


@dataclass(slots=True)
class _Intervals:
    """A table that grows: a row lasts until its values change."""

    rows: list[tuple[float, float, dict[str, Any]]] = field(default_factory=list)

    def now(self, t_s: float, values: Mapping[str, Any]) -> None:
        if self.rows and self.rows[-1][2] == values:
            self.rows[-1] = (self.rows[-1][0], t_s, self.rows[-1][2])
            return
        start_s = t_s
        if self.rows:
            start_s = self.rows[-1][1]
        self.rows.append((start_s, t_s, dict(values)))

    def at(self, t_s: float, values: Mapping[str, Any]) -> None:
        self.rows.append((t_s, t_s, dict(values)))

    def table(self) -> Trials:
        start_s, stop_s, values = zip(*self.rows, strict=True)
        columns = {name: np.array([row[name] for row in values]) for name in values[0]}
        return Trials(np.array(start_s), np.array(stop_s), columns)


@dataclass(slots=True)
class _Gathered:
    """A run's content, as it is read."""

    t0_s: float
    keys: list[str] = field(default_factory=list)
    batches: list[SpikeBatch] = field(default_factory=list)
    decodes: list[Decode] = field(default_factory=list)
    settings: _Intervals = field(default_factory=_Intervals)
    validity: _Intervals = field(default_factory=_Intervals)
    events: _Intervals = field(default_factory=_Intervals)
    holes: _Intervals = field(default_factory=_Intervals)
    shaping: dict[str, Any] = field(default_factory=dict)
    is_paused: bool = False
    hole: str = ""

    def take(self, one: records.Record | Begins) -> None:
        """Take the next record."""
        match one:
            case records.Header():
                self.keys[:] = one.keys
            case records.Keys():
                self.keys += one.keys
            case records.Arrived():
                self.batches.append(one.batch(len(self.keys)))
            case records.Checkpoint():
                self.shaping = one.shaping
            case Begins():
                self.hole = one.why
            case records.Commanded():
                self._command(one.change, one.detail)
            case records.Told(topic="event"):
                event = msgspec.json.decode(one.message, type=Event)
                told = {"event": event.event, "detail": json.dumps(event.detail)}
                self.events.at(event.t_sent - self.t0_s, told)
            case records.Said(topic="decode"):
                self._decode(msgspec.json.decode(one.decode, type=Decode))

    def _command(self, change: str, detail: dict[str, Any]) -> None:
        if change == "shape":
            self.shaping = {**self.shaping, **detail}
        elif change in ("pause", "resume"):
            self.is_paused = change == "pause"

    def _decode(self, decode: Decode) -> None:
        t_s = decode.t_window - self.t0_s
        if self.decodes and t_s <= self.decodes[-1].t_window - self.t0_s:
            return
        if self.hole and self.decodes:
            before_s = self.decodes[-1].t_window - self.t0_s
            self.holes.rows.append((before_s, t_s, {"why": self.hole}))
        self.hole = ""
        self.decodes.append(decode)
        self.validity.now(t_s, {"validity": decode.validity, "reason": decode.reason})
        shaping = {name: json.dumps(value) for name, value in sorted(self.shaping.items())}
        shaping.pop("lead_s", None)
        self.settings.now(
            t_s,
            {
                "decoder_id": decode.decoder_id,
                "checksum": decode.checksum,
                "backend": decode.backend,
                "precision": decode.precision,
                "lead_s": decode.lead_s,
                "paused": self.is_paused,
                "token_cap": -1 if decode.token_cap is None else decode.token_cap,
                **shaping,
            },
        )


def session_of_run(
    path: Path, session_id: str | None
) -> tuple[Session, dict[str, Trials], list[str]]:
    """Return a recorded run as a session, its tables of intervals, and what was found amiss.

    Times count from the run's `t0`, or from the first spike where that is earlier.

    Args:
        path: the run's folder.
        session_id: `subject/YYYY-MM-DD/name`; None for the run's date and folder.

    Raises:
        RecordingError: it cannot be read, or holds no decode.
    """
    run = open_run(path)
    gathered = _Gathered(run.facts["t0_s"])
    with fitting_together(path):
        for one in run.records():
            gathered.take(one)
    if not gathered.decodes:
        raise RecordingError(f"{path}: no decode was recorded")
    spikes = _sorted(gathered.batches)
    behavior = _series(gathered.decodes, gathered.t0_s)
    named = ("settings", "validity", "events", "holes")
    tables = {name: getattr(gathered, name).table() for name in named
              if getattr(gathered, name).rows}  # fmt: skip
    begins_s = gathered.t0_s
    if len(spikes) and spikes.t_us[0] < 0:
        earlier_s = -float(spikes.t_us[0]) * 1e-6
        spikes = SpikeBatch(spikes.t_us - spikes.t_us[0], spikes.unit, spikes.count)
        begins_s -= earlier_s
        behavior = {name: _moved(one, earlier_s) for name, one in behavior.items()}
        tables = {name: Trials(one.start_s + earlier_s, one.stop_s + earlier_s, one.columns)
                  for name, one in tables.items()}  # fmt: skip
    last_s = float(behavior[f"{DECODES}/validity"].t_s[-1])
    newest_s = float(spikes.t_us[-1]) * 1e-6 if len(spikes) else 0.0
    session = Session(
        id=session_id or f"unknown/{run.facts['began'][:10]}/{path.resolve().name}",
        unit_keys=tuple(gathered.keys),
        spikes=spikes,
        behavior=behavior,
        trials=None,
        duration_s=max(last_s, newest_s),
        provenance=_provenance(run, begins_s),
    )
    return session, tables, run.remarks


def _provenance(run: RecordedRun, begins_s: float) -> dict[str, str]:
    facts = run.facts
    return {
        "description": f"recorded by spikeloop {facts['spikeloop']}, run {facts['run_id']}",
        "recording": run.path.resolve().name,
        "recorded": facts["began"],
        "source": facts["source"],
        "lsl_time_of_start": repr(begins_s),
        "config": json.dumps(facts["config"]),
        "machine": str(facts["machine"]),
        "mended": "\n".join(run.remarks),
    }


def _sorted(batches: list[SpikeBatch]) -> SpikeBatch:
    """Return all spikes by stamp and unit."""
    none = np.zeros(0, np.int32)
    batches = batches or [SpikeBatch(np.zeros(0, np.int64), none, none)]
    t_us = np.concatenate([one.t_us for one in batches])
    unit = np.concatenate([one.unit for one in batches])
    count = np.concatenate([one.count for one in batches])
    order = np.lexsort((unit, t_us))
    return SpikeBatch(t_us[order], unit[order], count[order])


def _series(decodes: list[Decode], t0_s: float) -> dict[str, Behavior]:
    """Return values and raw values of each output, and validity, all at the windows' ends."""
    t_s = np.array([decode.t_window for decode in decodes]) - t0_s
    codes = {validity.name.lower(): int(validity) for validity in Validity}
    validity = np.array([[float(codes[decode.validity])] for decode in decodes])
    found = {f"{DECODES}/validity": Behavior(t_s, validity, "0 ok .. 4 fault")}
    for name, unit in decodes[0].units.items():
        for suffix in ("", "_raw"):
            told = [getattr(one, f"value{suffix}").get(name) for one in decodes]
            dims = max((len(values) for values in told if values), default=1)
            rows = [_row(values, dims) for values in told]
            found[f"{DECODES}/{name}{suffix}"] = Behavior(t_s, np.array(rows), unit)
    return found


def _row(values: list[float | None] | None, dims: int) -> list[float]:
    if values is None:
        return [np.nan] * dims
    return [np.nan if value is None else value for value in values]


def _moved(signal: Behavior, by_s: float) -> Behavior:
    return Behavior(signal.t_s + by_s, signal.values, signal.unit)
