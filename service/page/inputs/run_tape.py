"""A recorded run as a tape: what the daemon heard and said, from any moment on.

Frames are counted by their lengths, and a moment is found among them by halving. So a run of hours
is opened at once, and none of it is kept.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import error as ZlibError

import msgspec
import numpy as np

from service.page.inputs.wire import Heard
from service.redecode.reading import RecordingError, open_run
from service.telemetry.recording.frames import (
    DamagedError,
    frame_places,
    parts_of,
    read_frames,
    read_head,
)
from service.telemetry.recording.records import (
    Arrived,
    Cut,
    Header,
    Keys,
    Record,
    Said,
    Told,
    decode_record,
)
from streams.messages import Float64s

_UNREADABLE = (OSError, DamagedError, ZlibError, msgspec.DecodeError)


@dataclass(frozen=True, slots=True)
class Spikes:
    """Spikes that arrived together.

    Attributes:
        t_s: of arrival, seconds on the daemon's clock.
        unit: (n,) indices into the tape's keys.
        stamps_s: (n,) seconds on the daemon's clock.
        count: (n,) spikes per entry.
    """

    t_s: float
    unit: np.ndarray
    stamps_s: Float64s
    count: np.ndarray


@dataclass(frozen=True, slots=True)
class _Place:
    """The place at which a frame begins."""

    path: Path
    at: int
    number: int


class RunTape:
    """Reads a recorded run from any moment on.

    Args:
        path: the run's folder.

    Attributes:
        facts: what the record says of the run.
        keys: all units of the run, as `Spikes` counts them.
        begin_s: its first moment, seconds on the daemon's clock.
        end_s: its last moment.
        remarks: what is damaged, a sentence each.

    Raises:
        RecordingError: no recorded run is there, or nothing of it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.facts = open_run(path).facts
        self.remarks: list[str] = []
        self._moments: dict[int, float] = {}
        self._places = [place for part in parts_of(path) for place in self._places_in(part)]
        # Keys only grow: those of the last part are those of the run.
        self.keys = self._keys_in(self._places)
        begin_s, end_s = self._first_moment(0), self._last_moment()
        if begin_s is None or end_s is None:
            raise RecordingError(f"the recorded run {path} holds no moment: nothing can be shown")
        self.begin_s, self.end_s = begin_s, end_s

    def items(self, from_s: float) -> Iterator[Heard | Spikes]:
        """Yield messages and spikes from a moment on, in the order in which they were recorded."""
        rule_of: dict[int, str] = {}
        for record in self._records(self._frame_at(from_s)):
            t_s = _moment(record)
            if isinstance(record, Cut):
                rule_of[record.k] = record.rule
            if t_s is None or t_s < from_s:
                continue
            if isinstance(record, Arrived):
                if (spikes := self._spikes(record)) is not None:
                    yield spikes
            elif isinstance(record, Told):
                yield Heard(t_s, record.topic, json.loads(record.message))
            elif isinstance(record, Said):
                decode = json.loads(record.decode)
                yield Heard(t_s, record.topic, decode)
                if record.topic == "decode":
                    yield Heard(t_s, "timing", timing_of(decode, rule_of.pop(decode["beat"], "")))

    def validities(self, n: int) -> list[str]:
        """Return the validity at n moments, evenly from begin to end; "" where none was said."""
        found = []
        for t_s in np.linspace(self.begin_s, self.end_s, n, endpoint=False):
            validity = ""
            for record in self._records_of(self._frame_at(float(t_s))):
                if isinstance(record, Said) and record.topic == "decode":
                    validity = str(json.loads(record.decode)["validity"])
            found.append(validity)
        return found

    def decoder_at(self, t_s: float) -> dict[str, Any]:
        """Return what the record says of the decoder in service: `bundle`, `checksum`, ..."""
        for heard in self.items(t_s):
            if isinstance(heard, Heard) and heard.topic == "decode":
                return self._decoders().get(heard.message["checksum"], {})
        return {}

    def _decoders(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for place in self._first_of_parts():
            for record in self._records_of(self._places.index(place)):
                if isinstance(record, Header):
                    found |= {told["checksum"]: told for told in record.decoders.values() if told}
        return found

    def _places_in(self, path: Path) -> list[_Place]:
        found = []
        try:
            with path.open("rb") as file:
                for at, number in frame_places(file, read_head(file).first_frame):
                    found.append(_Place(path, at, number))
        except _UNREADABLE as err:
            self._remark(path, err)
        return found

    def _keys_in(self, places: Sequence[_Place]) -> list[str]:
        keys: list[str] = []
        last = places[-1].path if places else None
        for i, place in enumerate(places):
            if place.path != last:
                continue
            for record in self._records_of(i):
                if isinstance(record, Header):
                    keys = list(record.keys)
                elif isinstance(record, Keys):
                    keys += record.keys
        return keys

    def _first_of_parts(self) -> list[_Place]:
        return list({place.path: place for place in reversed(self._places)}.values())

    def _frame_at(self, t_s: float) -> int:
        """Index of the frame in which a moment lies."""
        after = bisect_right(range(len(self._places)), t_s, key=self._moment_of_frame)
        return max(0, after - 1)

    def _moment_of_frame(self, i: int) -> float:
        if i not in self._moments:
            found = self._first_moment(i)
            self._moments[i] = self.end_s if found is None else found
        return self._moments[i]

    def _first_moment(self, i_frame: int) -> float | None:
        moments = (_moment(record) for record in self._records(i_frame))
        return next((t_s for t_s in moments if t_s is not None), None)

    def _last_moment(self) -> float | None:
        for i in reversed(range(len(self._places))):
            moments = [_moment(record) for record in self._records_of(i)]
            known = [t_s for t_s in moments if t_s is not None]
            if known:
                return max(known)
        return None

    def _records(self, i_first: int) -> Iterator[Record]:
        for i in range(i_first, len(self._places)):
            yield from self._records_of(i)

    def _records_of(self, i_frame: int) -> list[Record]:
        """Return the records of one frame; none where it is damaged, which is remarked."""
        place = self._places[i_frame]
        try:
            with place.path.open("rb") as file:
                file.seek(place.at)
                return [decode_record(held) for held in next(read_frames(file, place.number), [])]
        except _UNREADABLE as err:
            self._remark(place.path, err)
            return []

    def _spikes(self, arrived: Arrived) -> Spikes | None:
        """Read an arrival; None for one that is damaged, which is remarked."""
        try:
            batch = arrived.batch(len(self.keys))
        except ValueError as err:
            self._note(str(err))
            return None
        stamps_s = self.facts["t0_s"] + batch.t_us * 1e-6
        return Spikes(arrived.t_s, batch.unit, stamps_s, batch.count)

    def _remark(self, path: Path, err: Exception) -> None:
        self._note(f"{path.name}: {err}")

    def _note(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)


def timing_of(decode: dict[str, Any], rule: str) -> dict[str, Any]:
    """Return what a decode alone tells of its times, in the fields of the wire's `timing`.

    The record holds no `timing`: waiting, decoding and shaping are known, steps within are not.
    """
    t_cut, t_sent = decode["t_cut"], decode["t_sent"]
    kept = ("schema", "run_id", "seq", "beat", "t_window", "t_cut", "t_done", "t_sent")
    return {name: decode[name] for name in kept} | {
        "lsl_age_s": None,
        "t_due": t_cut,
        "cut_by": rule,
        "t_tokens": t_cut,
        "run_s": decode["t_done"] - t_cut,
        "was_ahead": False,
        "t_out": t_sent,
        "t_end": t_sent,
    }


class _Sent(msgspec.Struct):
    t_sent: float


_sent = msgspec.json.Decoder(_Sent)


def _moment(record: Record) -> float | None:
    """Return when a record was made, seconds on the daemon's clock; None where it does not say."""
    if isinstance(record, Arrived):
        return record.t_s
    if isinstance(record, Said):
        return _sent.decode(record.decode).t_sent
    if isinstance(record, Told):
        return _sent.decode(record.message).t_sent
    return None
