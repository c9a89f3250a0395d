"""A recording in memory: its streams, each with its stamps on the recorder's clock."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from streams.clock import SAME_HOST_LIMIT_S
from streams.lsl import StreamDescription
from streams.messages import Float64s
from streams.recording.xdf import (
    CLOCK_OFFSET,
    FILE_HEADER,
    SAMPLES,
    STREAM_HEADER,
    Chunk,
    RecordingError,
    Tail,
    parse_samples,
)


@dataclass(slots=True)
class Recorded:
    """One stream of a recording; it grows as chunks are taken in.

    Attributes:
        description: what it said of itself.
        labels: of its channels.
        unit: physical unit of its channels, "" where it says none.
    """

    description: StreamDescription
    labels: tuple[str, ...]
    unit: str
    _values: list[np.ndarray] = field(default_factory=list)
    _stamps: list[Float64s] = field(default_factory=list)
    _offsets: list[tuple[float, float]] = field(default_factory=list)
    _same_host: bool = False

    @property
    def values(self) -> np.ndarray:
        """(n, n_channels), in the order in which they came; text as bytes."""
        if not self._values:
            kind = object if self.description.format == "string" else np.float64
            return np.zeros((0, self.description.n_channels), kind)
        if len(self._values) > 1:
            self._values = [np.concatenate(self._values)]
        return self._values[0]

    @property
    def stamps_s(self) -> Float64s:
        """(n,) of the sender's clock."""
        if len(self._stamps) > 1:
            self._stamps = [np.concatenate(self._stamps)]
        return self._stamps[0] if self._stamps else np.zeros(0)

    @property
    def t_s(self) -> Float64s:
        """(n,) on the recorder's clock: offsets are interpolated between measurements."""
        if not self._offsets:
            return self.stamps_s
        at_s, offset_s = np.array(self._offsets).T
        if self._same_host and np.abs(offset_s).max() < SAME_HOST_LIMIT_S:
            return self.stamps_s
        # Offsets are noted at the recorder's time; in the sender's that is so much earlier.
        corrected: Float64s = self.stamps_s + np.interp(self.stamps_s, at_s - offset_s, offset_s)
        return corrected

    @property
    def offset_s(self) -> float | None:
        """The newest measured clock offset."""
        return self._offsets[-1][1] if self._offsets else None

    def __len__(self) -> int:
        return sum(map(len, self._stamps))


class Recording:
    """The streams of an XDF file, which may still grow.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.streams: dict[int, Recorded] = {}
        self.created = ""
        self._host = ""
        self._tail = Tail(path)

    def follow(self) -> None:
        """Take in what was added since.

        Raises:
            RecordingError: it is no XDF file, or damaged before its end.
        """
        self._take(self._tail.take())

    def of_type(self, stream_type: str, name: str = "") -> Recorded:
        """The one stream of a type, and of a name unless that is "".

        Raises:
            RecordingError: none, or several.
        """
        found = [
            one
            for one in self.streams.values()
            if one.description.type == stream_type and name in ("", one.description.name)
        ]
        if len(found) != 1:
            have = "; ".join(str(one.description) for one in self.streams.values()) or "none"
            what = "several streams" if found else "no stream"
            named = f" named {name!r}" if name else ""
            raise RecordingError(
                f"{self.path} holds {what} of type {stream_type!r}{named}; it holds: {have}"
            )
        return found[0]

    def _take(self, chunks: Iterable[Chunk]) -> None:
        for chunk in chunks:
            held = self.streams.get(chunk.stream)
            if chunk.tag == FILE_HEADER:
                root = _xml(chunk.content)
                self._host = root.findtext("recorder_host", "")
                self.created = root.findtext("datetime", "")
            elif chunk.tag == STREAM_HEADER:
                self.streams[chunk.stream] = _stream(chunk.content, self._host)
            elif chunk.tag == SAMPLES and held is not None:
                what = held.description
                values, stamps = parse_samples(chunk.content, what.format, what.n_channels)
                held._values.append(values)
                held._stamps.append(_filled(stamps, held))
            elif chunk.tag == CLOCK_OFFSET and held is not None and len(chunk.content) == 16:
                held._offsets.append(struct.unpack("<dd", chunk.content))


def read_recording(path: Path) -> Recording:
    """A recording as it is on the disk now.

    Raises:
        RecordingError: there is none, or it is damaged.
    """
    if not path.is_file():
        raise RecordingError(f"no recording at {path}; `spikeloop record` makes one")
    recording = Recording(path)
    recording.follow()
    return recording


def _filled(stamps: Float64s, held: Recorded) -> Float64s:
    """Stamps that a regular stream left out follow from the one before and the rate."""
    if not np.isnan(stamps).any():
        return stamps
    step_s = 1.0 / held.description.rate_hz if held.description.rate_hz else 0.0
    last_s = float(held._stamps[-1][-1]) if held._stamps and len(held._stamps[-1]) else 0.0
    for i in range(len(stamps)):
        if np.isnan(stamps[i]):
            stamps[i] = last_s + step_s
        last_s = float(stamps[i])
    return stamps


def _xml(content: bytes) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(content.decode("utf-8", "replace").strip("\x00"))
    except ElementTree.ParseError as err:
        raise RecordingError(f"a header of the recording is damaged: {err}") from err


def _stream(content: bytes, recorder_host: str) -> Recorded:
    info = _xml(content)

    def text(name: str) -> str:
        return info.findtext(name) or ""

    channels = info.findall("desc/channels/channel")
    hostname = text("hostname")
    return Recorded(
        description=StreamDescription(
            name=text("name"),
            type=text("type"),
            source_id=text("source_id"),
            hostname=hostname,
            n_channels=int(text("channel_count") or 0),
            rate_hz=float(text("nominal_srate") or 0.0),
            format=text("channel_format"),
            uid=text("uid"),
        ),
        labels=tuple(channel.findtext("label") or "" for channel in channels),
        unit=next((u for c in channels if (u := c.findtext("unit"))), ""),
        _same_host=bool(hostname) and hostname == recorder_host,
    )
