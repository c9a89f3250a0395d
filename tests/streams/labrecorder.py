"""XDF files laid out chunk by chunk as LabRecorder does it, for what our own writer does not write.

The recorder's clock begins at `T0_S`; a sender's clock shows the recorder's time less its offset.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

T0_S = 5000.0
SECONDS = 40
OFFSET_EVERY_S = 5
MARK = bytes.fromhex("43a546dccbf5410fb30ed5467383cbe4")
TYPES = {"int32": "<i4", "int64": "<i8", "float32": "<f4", "double64": "<f8", "int16": "<i2"}
Offset = Callable[[float], float]


def length(n: int) -> bytes:
    return struct.pack("<BB", 1, n) if n < 256 else struct.pack("<BI", 4, n)


def chunk(tag: int, content: bytes, number: int | None = None) -> bytes:
    body = struct.pack("<H", tag) + (b"" if number is None else struct.pack("<I", number)) + content
    return length(len(body)) + body


@dataclass
class Source:
    """A stream: its header, and its samples as the recorder's time would have them."""

    number: int
    name: str
    kind: str
    fmt: str
    labels: Sequence[str]
    t_s: np.ndarray
    values: Sequence[Sequence[object]]
    rate: float = 0.0
    offset: Offset = field(default=lambda t_s: 0.0)
    source_id: str = "app"
    hostname: str = "rig"
    has_footer: bool = True
    has_offsets: bool = True

    def header(self) -> bytes:
        channels = "".join(
            f"<channel><label>{label}</label><unit>cm</unit></channel>" for label in self.labels
        )
        text = (
            f'<?xml version="1.0"?><info><name>{self.name}</name><type>{self.kind}</type>'
            f"<channel_count>{len(self.labels)}</channel_count>"
            f"<nominal_srate>{self.rate}</nominal_srate>"
            f"<channel_format>{self.fmt}</channel_format><source_id>{self.source_id}</source_id>"
            f"<uid>u{self.number}</uid><hostname>{self.hostname}</hostname>"
            f"<desc><channels>{channels}</channels></desc></info>"
        )
        return chunk(2, text.encode(), self.number)

    def samples(self, begin_s: float, end_s: float) -> bytes:
        chosen = np.flatnonzero((self.t_s >= begin_s) & (self.t_s < end_s))
        if not len(chosen):
            return b""
        body = b"".join(self._sample(int(i)) for i in chosen)
        return chunk(3, length(len(chosen)) + body, self.number)

    def _sample(self, i: int) -> bytes:
        t_s = float(self.t_s[i])
        stamp = struct.pack("<Bd", 8, t_s - self.offset(t_s))
        if self.fmt == "string":
            texts = [str(one).encode() for one in self.values[i]]
            return stamp + b"".join(length(len(text)) + text for text in texts)
        return stamp + np.asarray(self.values[i], TYPES[self.fmt]).tobytes()

    def measured(self, now_s: float) -> bytes:
        offset_s = self.offset(now_s)
        return chunk(4, struct.pack("<dd", now_s - offset_s, offset_s), self.number)

    def footer(self) -> bytes:
        text = f"<info><sample_count>{len(self.t_s)}</sample_count></info>"
        return chunk(6, f'<?xml version="1.0"?>{text}'.encode(), self.number)


def file_chunks(sources: Sequence[Source], seconds: int = SECONDS) -> list[bytes]:
    """The chunks of a file: headers, then a second of each stream at a time, then footers."""
    text = b'<?xml version="1.0"?><info><datetime>2026-05-04T10:00:00+0200</datetime></info>'
    chunks = [b"XDF:" + chunk(1, text), *(one.header() for one in sources)]
    for k in range(seconds):
        now_s = T0_S + k
        if k % OFFSET_EVERY_S == 0:
            chunks += [one.measured(now_s) for one in sources if one.has_offsets]
            chunks.append(chunk(5, MARK))
        chunks += [held for one in sources if (held := one.samples(now_s, now_s + 1))]
    return chunks + [one.footer() for one in sources if one.has_footer]


def write(path: Path, sources: Sequence[Source], seconds: int = SECONDS) -> Path:
    path.write_bytes(b"".join(file_chunks(sources, seconds)))
    return path


def spikes(number: int = 1, seconds: int = SECONDS, fmt: str = "int32", **more: object) -> Source:
    """Spikes of eight units at random times."""
    rng = np.random.default_rng(number)
    t_s = T0_S + np.sort(rng.uniform(0.0, seconds, 60 * seconds))
    units = rng.integers(0, 8, len(t_s))
    return Source(number, "amplifier", "Spikes", fmt, ("unit",), t_s, units[:, None], **more)  # type: ignore[arg-type]


def hand(number: int = 2, seconds: int = SECONDS, rate: float = 0.0, **more: object) -> Source:
    """A hand that moves in a circle, sampled at 50 Hz."""
    t_s = T0_S + np.arange(0.0, seconds, 0.02)
    values = np.column_stack([10 * np.cos(t_s), 10 * np.sin(t_s)])
    labels = ("hand_x", "hand_y")
    return Source(number, "hand", "Position", "double64", labels, t_s, values, rate, **more)  # type: ignore[arg-type]


def markers(
    number: int = 3,
    fmt: str = "string",
    texts: tuple[object, object] = ("trial_start", "trial_stop"),
    seconds: int = SECONDS,
    **more: object,
) -> Source:
    """A trial of 3 s every 5 s."""
    starts_s = T0_S + np.arange(0.2, seconds - 4.0, 5.0)
    t_s = np.sort(np.concatenate([starts_s, starts_s + 3.0]))
    values = [texts for _ in starts_s]
    flat = [[text] for pair in values for text in pair]
    return Source(number, "task", "Markers", fmt, ("code",), t_s, flat, **more)  # type: ignore[arg-type]
