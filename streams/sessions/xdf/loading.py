"""Load an XDF file with `pyxdf`, and say what it dropped or mended."""

from __future__ import annotations

import itertools
import logging
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree.ElementTree import ParseError

import numpy as np

from streams.errors import RecordingError
from streams.lsl.description import StreamDescription
from streams.messages import Float64s
from streams.sessions.xdf.frames import (
    Frames,
    Span,
    WholeReads,
    after_boundary,
    in_file,
    opened,
    walk,
)

_FAILURES = (
    ArithmeticError, AttributeError, EOFError, KeyError, IndexError, MemoryError, OSError,
    ParseError, RuntimeError, TypeError, ValueError, struct.error,
)  # fmt: skip
MOST_TRIES = 50
_DAMAGE = ("found likely XDF file corruption", "Error reading chunk length", " Read tag")
_TOLD_ELSEWHERE = ("got zero-length chunk", "Segments and clock-segments differ")


@dataclass(slots=True)
class Recorded:
    """One recorded stream.

    Attributes:
        description: the sender's.
        labels: its channels'.
        unit: its channels' physical unit, "" where it says none.
        values: (n, n_channels), in the order in which they came; an object array of str for text.
        stamps_s: (n,) as sent, on the sender's clock.
        t_s: (n,) on the recorder's clock.
        trouble: why its stamps cannot be used; "" where they can.
        number: the stream's in the file.
        clock_times_s: (m,) sender's clock when its offset was measured.
        clock_offsets_s: (m,).
        clock_parts: first and last sample between two clock resets, each.
        n_in_footer: samples that its footer counts; None without one.
        has_footer: whether there is one.
    """

    description: StreamDescription
    labels: tuple[str, ...]
    unit: str
    values: np.ndarray
    stamps_s: Float64s
    t_s: Float64s
    trouble: str = ""
    number: int = 0
    clock_times_s: Float64s = field(default_factory=lambda: np.zeros(0))
    clock_offsets_s: Float64s = field(default_factory=lambda: np.zeros(0))
    clock_parts: Sequence[tuple[int, int]] = ()
    n_in_footer: int | None = None
    has_footer: bool = False

    def __len__(self) -> int:
        return len(self.t_s)

    @property
    def name(self) -> str:
        """Its name."""
        return self.description.name

    @property
    def layout(self) -> tuple[object, ...]:
        """Return everything that must be the same if two streams are one."""
        what = self.description
        return (self.labels, what.n_channels, what.format, what.rate_hz, self.unit)


@dataclass(slots=True)
class Loaded:
    """A file's contents.

    Attributes:
        header: the file's.
        streams: in header order.
        remarks: what was dropped or mended, a sentence each.
    """

    header: Mapping[str, Any]
    streams: list[Recorded]
    remarks: list[str]


@dataclass(slots=True)
class _Attempt:
    """One attempt to read the file with `pyxdf`.

    Attributes:
        file: that it reads; `pyxdf` closes it.
        spans: the parts of the file that are in there.
        raw: the whole file.
        stamps: each stream's, as sent, by chunks.
        ends: for each stream, where each chunk ended (file bytes) and samples up to there.
        damage: file bytes where it lost its way, and where it went on.
        warnings: its other warnings.
    """

    file: BinaryIO
    spans: Sequence[Span]
    raw: BinaryIO
    stamps: dict[int, list[Float64s]] = field(default_factory=dict)
    ends: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    damage: list[Span] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def on_chunk(
        self, values: Any, stamps: Float64s, info: Any, number: int
    ) -> tuple[Any, Float64s, Any]:
        """Note a sample chunk."""
        held = self.stamps.setdefault(number, [])
        held.append(stamps.copy())
        ends = self.ends.setdefault(number, [])
        n_before = ends[-1][1] if ends else 0
        ends.append((in_file(self.file.tell(), self.spans), n_before + len(stamps)))
        return values, stamps, info

    def note(self, text: str) -> None:
        """Note a warning."""
        if any(part in text for part in _TOLD_ELSEWHERE):
            return
        if not text.startswith(_DAMAGE):
            self.warnings.append(text)
            return
        at = in_file(self.file.tell(), self.spans)
        self.damage.append((at, after_boundary(self.raw, at) or at))


class _Listener(logging.Handler):
    def __init__(self, attempt: _Attempt) -> None:
        super().__init__(logging.WARNING)
        self._attempt = attempt

    def emit(self, record: logging.LogRecord) -> None:
        self._attempt.note(record.getMessage())


def load(path: Path) -> Loaded:
    """Load a file, which may be damaged, cut or still growing.

    Raises:
        RecordingError: it cannot be read.
    """
    with opened(path) as file:
        frames = walk(file)
        numbers = list(frames.sample_bytes)
        remarks = [f"{what}: that stream is left out" for what in frames.bad_headers.values()]
        if frames.n_foreign:
            remarks.append(f"{frames.n_foreign} chunks of kinds that XDF 1.0 has not were left out")
        if not numbers:
            if frames.bad_headers or frames.damaged:
                raise RecordingError(_nothing_left(path, frames))
            return Loaded({}, [], remarks)
        loaded = _load(path, file, frames, numbers if frames.bad_headers else None)
    loaded.remarks[:0] = remarks
    return loaded


def _nothing_left(path: Path, frames: Frames) -> str:
    what = "; ".join(frames.bad_headers.values())
    where = f"it is damaged from byte {frames.damaged[0][0]} on" if frames.damaged else ""
    return f"{path} holds no stream that can be read: {'; '.join(filter(None, (what, where)))}"


def _load(path: Path, file: BinaryIO, frames: Frames, numbers: list[int] | None) -> Loaded:
    """Let `pyxdf` read what is not damaged, and less where it still cannot."""
    whole = [(0, frames.n_bytes)]
    is_fast = frames.kept() == whole
    for _ in range(MOST_TRIES):
        spans = frames.kept()
        attempt = _attempt(path, file, spans, is_fast)
        try:
            streams, header = _ask_pyxdf(attempt, numbers, dejitter=False)
            n_chunks = sum(map(len, attempt.ends.values()))
            if is_fast and n_chunks != len(frames.samples_at):
                raise EOFError("chunks of samples were passed over")
        except _FAILURES as err:
            last_end = max((ends[-1][0] for ends in attempt.ends.values()), default=0)
            # The fast way does not say where it lost its way: the careful one is asked first.
            if not is_fast and not frames.cut_next_samples(last_end, file):
                raise RecordingError(
                    f"{path} cannot be read as XDF: {type(err).__name__}: {err}. "
                    "Is it a whole file of LabRecorder's?"
                ) from err
            is_fast = False
            continue
        smooth = None
        if any(_rate(one) > 0 and len(one["time_stamps"]) for one in streams):
            smooth, _ = _ask_pyxdf(_attempt(path, file, spans, is_fast), numbers, dejitter=True)
        attempt.damage += frames.damaged
        return _account(attempt, frames, streams, smooth, header or {})
    raise RecordingError(
        f"{path} is damaged in more than {len(frames.damaged)} places: it cannot be read"
    )


def _attempt(path: Path, file: BinaryIO, spans: Sequence[Span], is_fast: bool) -> _Attempt:
    if not is_fast:
        return _Attempt(WholeReads(file, spans), spans, file)
    again = opened(path)
    again.seek(0)
    return _Attempt(again, spans, file)


def _ask_pyxdf(attempt: _Attempt, numbers: list[int] | None, *, dejitter: bool) -> Any:
    with attempt.file, _listening(attempt), np.errstate(all="ignore"):
        try:
            import pyxdf
        except ImportError:
            raise RecordingError(
                "reading XDF needs the package pyxdf: pip install 'spikeloop[nwb]'"
            ) from None
        return pyxdf.load_xdf(
            attempt.file,
            select_streams=numbers,
            on_chunk=attempt.on_chunk,
            dejitter_timestamps=dejitter,
        )


@contextmanager
def _listening(attempt: _Attempt) -> Iterator[None]:
    """Take `pyxdf`'s warnings instead of letting them onto the terminal."""
    logger = logging.getLogger("pyxdf.pyxdf")
    propagates, level, logger.propagate = logger.propagate, logger.level, False
    logger.setLevel(logging.WARNING)
    listener = _Listener(attempt)
    logger.addHandler(listener)
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagates
        logger.setLevel(level)


def _account(
    attempt: _Attempt,
    frames: Frames,
    streams: Sequence[Mapping[str, Any]],
    smooth: Sequence[Mapping[str, Any]] | None,
    header: Mapping[str, Any],
) -> Loaded:
    """Return the streams, with remarks on each."""
    held = [_stream(one, attempt) for one in streams]
    remarks = [f"pyxdf says: {text}" for text in attempt.warnings]
    t0_s = min([float(one.t_s.min()) for one in held if len(one.t_s)] or [0.0])
    for span in sorted(one for one in set(attempt.damage) if one[0] < frames.tail):
        remarks.append(_lost_by(span, held, attempt, frames, t0_s))
    if frames.tail < frames.n_bytes:
        remarks.append(
            f"the file ends inside a chunk: its last {frames.n_bytes - frames.tail} bytes are lost"
        )
    for one, other in zip(held, smooth or [{}] * len(held), strict=True):
        if smooth is not None and one.description.rate_hz > 0:
            remarks += _smoothed(one, other)
    return Loaded(header.get("info") or {}, held, remarks)


def _stream(one: Mapping[str, Any], attempt: _Attempt) -> Recorded:
    info = one["info"]
    number = int(info["stream_id"])
    n, n_channels = len(one["time_stamps"]), int(info["channel_count"][0])
    raw = attempt.stamps.get(number) or [np.zeros(0)]
    values = one["time_series"]
    if info["channel_format"][0] == "string":
        values = np.array(values, object).reshape(n, n_channels)
    footer = one.get("footer")
    channels = _channels(info)
    n_told = field_text((footer or {}).get("info") or {}, "sample_count")
    return Recorded(
        description=_description(info),
        labels=tuple(field_text(channel, "label") for channel in channels),
        unit=next((unit for one in channels if (unit := field_text(one, "unit"))), ""),
        number=number,
        values=values,
        stamps_s=np.concatenate(raw)[:n],
        t_s=np.asarray(one["time_stamps"], np.float64),
        clock_times_s=np.asarray(one["clock_times"], np.float64),
        clock_offsets_s=np.asarray(one["clock_values"], np.float64),
        clock_parts=[(int(first), int(last)) for first, last in info["clock_segments"]],
        n_in_footer=int(n_told) if n_told.isdecimal() else None,
        has_footer=footer is not None,
    )


def _description(info: Mapping[str, Any]) -> StreamDescription:
    return StreamDescription(
        name=field_text(info, "name"),
        type=field_text(info, "type"),
        source_id=field_text(info, "source_id"),
        hostname=field_text(info, "hostname"),
        n_channels=int(field_text(info, "channel_count")),
        rate_hz=float(field_text(info, "nominal_srate")),
        format=field_text(info, "channel_format"),
        uid=field_text(info, "uid"),
    )


def _channels(info: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return each channel's description, in `pyxdf`'s nested dicts."""
    inside: Any = info
    for name in ("desc", "channels"):
        held = inside.get(name) or [None]
        inside = held[0] if isinstance(held[0], Mapping) else {}
    return [one if isinstance(one, Mapping) else {} for one in inside.get("channel") or ()]


SMOOTHED_AT_MOST_S = 0.05
"""Even steps through a regular stream's stamps mend jitter; what lies further off is a hole."""


def _smoothed(one: Recorded, other: Mapping[str, Any]) -> list[str]:
    """Take the straight lines that `pyxdf` lays through a regular stream's stamps, if they fit."""
    t_s = np.asarray(other["time_stamps"], np.float64)
    if len(t_s) != len(one.t_s) or not len(t_s):
        return []
    moved_s, rate_hz = float(np.abs(t_s - one.t_s).max()), one.description.rate_hz
    if moved_s > SMOOTHED_AT_MOST_S:
        return [
            f"the stamps of {one.name!r} are taken as they were sent: they lie up to "
            f"{moved_s * 1e3:.0f} ms from the even steps that {rate_hz:g} Hz would give "
            "(samples are missing, or the rate changed)"
        ]
    one.t_s = t_s
    n_parts = len(other["info"]["segments"])
    return [f"{one.name!r} is in {n_parts} pieces with holes between"] if n_parts > 1 else []


def _lost_by(
    span: Span, streams: Sequence[Recorded], attempt: _Attempt, frames: Frames, t0_s: float
) -> str:
    """Say what a damaged place cost, stream by stream."""
    at, resumed = span
    what = f"the file is damaged at byte {at}"
    if resumed > at and resumed < frames.n_bytes:
        what += f" and was read on from byte {resumed}"
    losses = []
    for one in streams:
        ends = attempt.ends.get(one.number, [])
        n = max((n for end, n in ends if end <= at), default=0)
        if not len(one.t_s):
            continue
        begin = f"{one.t_s[n - 1] - t0_s:.3f} s" if n else "its beginning"
        end = f"{one.t_s[n] - t0_s:.3f} s" if n < len(one.t_s) else "the end of the recording"
        losses.append(f"{one.name!r} between {begin} and {end}")
    return f"{what}; what is missing lies in {', '.join(losses) or 'no stream'}"


def _rate(one: Mapping[str, Any]) -> float:
    return float((one.get("info") or one)["nominal_srate"][0] or 0.0)


def field_text(info: Mapping[str, Any], name: str) -> str:
    """Read an element's text in `pyxdf`'s nested dicts, "" where it has none."""
    held = info.get(name) if isinstance(info, Mapping) else None
    first = next(itertools.chain(held or ()), None)
    return first if isinstance(first, str) else ""
