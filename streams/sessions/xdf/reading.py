"""A recording in memory: its streams, each with its stamps on the recorder's clock."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from streams.clock import JUMP_LIMIT_S
from streams.errors import RecordingError
from streams.messages import Float64s
from streams.sessions.xdf.loading import Recorded, field_text, load

OVERLAP_S = 1.0
FEW_STRAYS = 3
MOST_DRIFT = 0.01
"""No two clocks differ so much in rate; a line that steep was laid across a reset."""
MANY = 0.25
APART_S = 3600.0
"""Streams in one recording do not lie further apart than this."""
STRAY = 0.01


@dataclass(frozen=True, slots=True)
class Recording:
    """An XDF file's streams.

    Attributes:
        path: the file's.
        created: when, ISO 8601.
        streams: by their number in the file.
        remarks: what was dropped or mended on reading, a sentence each.
    """

    path: Path
    created: str
    streams: Mapping[int, Recorded]
    remarks: tuple[str, ...]

    def pieces(self, stream_type: str, name: str = "") -> list[Recorded]:
        """Find the one stream with a type, and a name unless that is "", in time order.

        It is in several pieces where its outlet was made anew during the recording.

        Raises:
            RecordingError: none or several, or pieces that do not fit together.
        """
        found = self._matching(stream_type, name)
        names = {one.description.name for one in found}
        if len(names) != 1:
            have = "; ".join(str(one.description) for one in self.streams.values()) or "none"
            what = "several streams" if found else "no stream"
            named = f" named {name!r}" if name else ""
            raise RecordingError(
                f"{self.path} holds {what} of type {stream_type!r}{named}; it holds: {have}"
            )
        return self._in_order(found)

    def of_type(self, stream_type: str, name: str = "") -> Recorded:
        """The same as one.

        Raises:
            RecordingError: as `pieces`.
        """
        pieces = self.pieces(stream_type, name)
        return replace(
            pieces[0],
            values=np.concatenate([one.values for one in pieces]),
            stamps_s=np.concatenate([one.stamps_s for one in pieces]),
            t_s=np.concatenate([one.t_s for one in pieces]),
            trouble=next((one.trouble for one in pieces if one.trouble), ""),
        )

    def markers(self, stream_type: str, name: str = "") -> Recorded | None:
        """The markers; None where there are none, or their type is "".

        Raises:
            RecordingError: as `pieces`.
        """
        is_there = stream_type and self._matching(stream_type, name)
        return self.of_type(stream_type, name) if is_there else None

    def _matching(self, stream_type: str, name: str) -> list[Recorded]:
        held = [one for one in self.streams.values() if one.description.type == stream_type]
        return [one for one in held if name in ("", one.description.name)]

    def _in_order(self, found: Sequence[Recorded]) -> list[Recorded]:
        """Sort a stream's pieces; those without samples are left out if others have some."""
        held = sorted((one for one in found if len(one)), key=lambda one: float(one.t_s.min()))
        for one, then in itertools.pairwise(held):
            both = f"{self.path}: {one.description} and {then.description}"
            if one.layout != then.layout:
                raise RecordingError(
                    f"{both} do not fit together: their channels are {_remark_on(one)}, and "
                    f"{_remark_on(then)}. Record the second to a file of its own"
                )
            if float(then.t_s.min()) < float(one.t_s.max()) - OVERLAP_S:
                raise RecordingError(
                    f"{both} were there at the same time, and have one name: give them two, or "
                    "record one of them (`spikeloop record --stream TYPE:NAME@HOST`)"
                )
        return held or list(found[:1])


# A damaged stamp may be anything, infinite too: it is told as a stamp, not by numpy.
@np.errstate(all="ignore")
def read_recording(path: Path) -> Recording:
    """A recording as it is on the disk now, which may still grow.

    Raises:
        RecordingError: there is none, or it cannot be read.
    """
    if not path.is_file():
        raise RecordingError(f"no recording at {path}; `spikeloop record` makes one")
    loaded = load(path)
    remarks = [
        *loaded.remarks,
        *(text for one in loaded.streams for text in as_sent_if_foreign(one)),
    ]
    stretch = main_stretch([one.t_s[_is_stamped(one)] for one in loaded.streams])
    streams: dict[int, Recorded] = {}
    for one in loaded.streams:
        remarks += remarks_of(one, stretch[0])
        streams[one.number] = _recorded(one, stretch, remarks)
    remarks += _unended(loaded.streams)
    empty = [repr(one.name) for one in loaded.streams if not len(one.t_s)]
    if empty:
        remarks.append(f"{', '.join(empty)} brought no sample")
    if field_text(loaded.header, "stamps") == "arrival":
        remarks.append("its stamps are the times at which samples came to the recorder")
    return Recording(path, field_text(loaded.header, "datetime"), streams, tuple(remarks))


def _remark_on(one: Recorded) -> str:
    labels = ", ".join(one.labels) or "unnamed"
    return f"{labels} ({one.description.n_channels} x {one.description.format}, {one.unit or '-'})"


def _is_stamped(stream: Recorded) -> np.ndarray:
    """Find the samples that have a stamp, (n,) bool.

    LabRecorder writes a first sample without one for a stream that brought nothing.
    """
    is_stamped: np.ndarray = np.isfinite(stream.t_s)
    rate_hz = stream.description.rate_hz
    is_stamped[:1] &= stream.stamps_s[:1] != (1.0 / rate_hz if rate_hz else 0.0)
    return is_stamped


def _recorded(stream: Recorded, stretch: tuple[float, float], remarks: list[str]) -> Recorded:
    """The stream without strays; what was left out is added to `remarks`."""
    kept, trouble = _is_stamped(stream), trouble_of(stream)
    if not kept.all():
        n_left_out = np.count_nonzero(~kept)
        remarks.append(f"{n_left_out} samples of {stream.name!r} without a stamp were left out")
    far = kept & ((stream.t_s < stretch[0]) | (stream.t_s > stretch[1]))
    n_far = int(np.count_nonzero(far))
    off_s = float(np.median(stream.t_s[far])) - stretch[0] if n_far else 0.0
    if n_far and n_far <= max(FEW_STRAYS, STRAY * len(far)) and n_far < np.count_nonzero(kept):
        kept &= ~far
        remarks.append(
            f"{n_far} samples of {stream.name!r} were left out: they lie far from all others, "
            f"{off_s:,.0f} s from the beginning"
        )
    elif n_far:
        trouble = trouble or (
            f"its stamps lie {off_s:,.0f} s from the beginning of the rest of the recording: they "
            "are of another clock, or their clock was reset unnoticed"
        )
    return replace(
        stream,
        values=stream.values[kept],
        stamps_s=stream.stamps_s[kept],
        t_s=stream.t_s[kept],
        trouble=trouble,
    )


def _unended(streams: Sequence[Recorded]) -> list[str]:
    """Remark on missing footers, and on samples that footers count but the file lacks."""
    without = [repr(one.name) for one in streams if not one.has_footer]
    remarks = []
    if without and len(without) == len(streams):
        remarks.append("it has no footers: the recording ended suddenly, or still goes on")
    elif without:
        remarks.append(f"the footer of {', '.join(without)} is missing")
    for one in streams:
        n_missing = (one.n_in_footer or 0) - len(one.t_s)
        if n_missing > 0:
            remarks.append(f"{n_missing} of {one.n_in_footer} samples of {one.name!r} are missing")
    return remarks


def as_sent_if_foreign(stream: Recorded) -> list[str]:
    """Take the stamps as sent where they are not on the measured clock.

    A line through measurements on LSL's clock, laid out to Unix time, ends anywhere.

    Returns:
        Remarks about it.
    """
    at_s = np.sort(stream.clock_times_s)
    if not len(at_s) or not len(stream.stamps_s):
        return []
    right = np.clip(np.searchsorted(at_s, stream.stamps_s), 1, max(1, len(at_s) - 1))
    near = at_s[np.minimum(right, len(at_s) - 1)], at_s[right - 1]
    off_s = float(np.median(np.min([np.abs(stream.stamps_s - one) for one in near], axis=0)))
    if off_s < APART_S:
        return []
    stream.t_s, stream.clock_parts = stream.stamps_s.copy(), []
    return [
        f"the stamps of {stream.name!r} are taken as they were sent: they lie {off_s:,.0f} s from "
        "the measurements of its sender's clock, and are of another clock than LSL's"
    ]


def trouble_of(stream: Recorded) -> str:
    """Say why the stream's stamps cannot be used; "" where they can."""
    lines = _lines(stream)
    if not lines or not len(stream.clock_times_s):
        return ""
    steepest = max(abs(slope) for _, slope in lines)
    if steepest > MOST_DRIFT:
        return (
            f"its clock seems to run {steepest * 100:.1f} % off the recorder's: it was reset "
            "between two of the few measurements of its offset"
        )
    off_s = _misfits(stream, lines)
    if np.mean(off_s > JUMP_LIMIT_S) > MANY:
        return (
            f"its clock jumped while it was recorded: {np.count_nonzero(off_s > JUMP_LIMIT_S)} of "
            f"{len(off_s)} measurements of its offset lie up to {off_s.max():.3f} s from a line"
        )
    return ""


def remarks_of(stream: Recorded, t0_s: float) -> list[str]:
    """Say what was done to the stream's clock.

    Args:
        stream: as loaded.
        t0_s: the recording's beginning.
    """
    if not len(stream.t_s):
        return []
    if not len(stream.clock_times_s):
        return [
            f"no clock offset of {stream.name!r} was recorded: its stamps are taken for the "
            "recorder's time"
        ]
    remarks = []
    if len(stream.clock_parts) > 1:
        at = ", ".join(f"{stream.t_s[i] - t0_s:.3f} s" for i, _ in stream.clock_parts[1:])
        remarks.append(
            f"the clock of {stream.name!r} was reset while it was recorded: its stamps are brought "
            f"onto the recorder's clock piece by piece, cut at {at}"
        )
    off_s = _misfits(stream, _lines(stream))
    n_off = int(np.count_nonzero(off_s > JUMP_LIMIT_S))
    if n_off:
        remarks.append(
            f"{n_off} of {len(off_s)} measurements of the clock of {stream.name!r} lie up to "
            f"{off_s.max() * 1e3:.0f} ms from a line"
        )
    return remarks


def _lines(stream: Recorded) -> list[tuple[float, float]]:
    """Offset and slope that were applied in each part, where its stamps tell."""
    lines = []
    for first, last in stream.clock_parts:
        sent_s = stream.stamps_s[first : last + 1]
        offset_s = stream.t_s[first : last + 1] - sent_s
        low, high = int(np.argmin(sent_s)), int(np.argmax(sent_s))
        span_s = float(sent_s[high] - sent_s[low])
        if span_s > 1.0:
            slope = float(offset_s[high] - offset_s[low]) / span_s
            lines.append((float(offset_s[low] - slope * sent_s[low]), slope))
    return lines


def _misfits(stream: Recorded, lines: Sequence[tuple[float, float]]) -> Float64s:
    """Measure how far each offset lies from the nearest line, seconds."""
    if not lines or len(lines) != len(stream.clock_parts):
        return np.zeros(0)
    at_s, offset_s = stream.clock_times_s, stream.clock_offsets_s
    nearest: Float64s = np.min([np.abs(a + b * at_s - offset_s) for a, b in lines], axis=0)
    return nearest


def main_stretch(stamps: Sequence[Float64s]) -> tuple[float, float]:
    """Find the stretch, no hour empty, in which most streams have most samples.

    Args:
        stamps: for each stream, (n,) on the recorder's clock.
    """
    together = np.sort(np.concatenate([t_s for t_s in stamps if len(t_s)] or [np.zeros(1)]))
    edges = np.flatnonzero(np.diff(together) > APART_S)
    begins, ends = together[[0, *(edges + 1)]], together[[*edges, -1]]
    votes = np.zeros(len(begins))
    for t_s in stamps:
        if len(t_s):
            votes[np.searchsorted(begins, np.median(t_s), side="right") - 1] += 1
    n_held = np.searchsorted(together, ends, "right") - np.searchsorted(together, begins, "left")
    best = max(range(len(begins)), key=lambda i: (votes[i], n_held[i]))
    return float(begins[best]), float(ends[best])
