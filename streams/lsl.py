"""Lab Streaming Layer: finding streams, pulling them, and the outlets that we publish.

With `pull_buffer` the only file that imports pylsl. What it knows about LSL and peers get wrong:
`max_buflen` of an irregular stream counts hundreds of samples, clock correction is ours to apply,
and a blocking pull of one sample followed by what is there beats polling.
"""

from __future__ import annotations

import ctypes
import math
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pylsl

from streams.clock import OffsetEstimate
from streams.messages import Float64s, Int32s, StreamsError
from streams.pull_buffer import puller

BUFFER_S = 20.0
RESOLVE_SLICE_S = 1.0
INFO_WITHIN_S = 5.0
KEEP_ALIVE_UNIT = -1
KEEP_ALIVE_EVERY_S = 0.05
_FORMATS = {
    pylsl.cf_float32: "float32",
    pylsl.cf_double64: "double64",
    pylsl.cf_string: "string",
    pylsl.cf_int32: "int32",
    pylsl.cf_int16: "int16",
    pylsl.cf_int8: "int8",
    pylsl.cf_int64: "int64",
}


class StreamAbsentError(StreamsError):
    """No LSL stream answered the description."""


class StreamAmbiguousError(StreamsError):
    """Several LSL streams answer the description."""


class StreamLostError(StreamsError):
    """The source ended, and has no `source_id` that LSL could find it again by."""


class StreamUnfitError(StreamsError):
    """The stream's layout is none that we read."""


def quieten() -> None:
    """Keep liblsl's own log to warnings, unless the lab has an `lsl_api.cfg` that says otherwise.

    Takes effect only before the first use of LSL in the process.
    """
    places = ("lsl_api.cfg", "~/lsl_api/lsl_api.cfg", "/etc/lsl_api/lsl_api.cfg")
    # os.path, as Path raises where there is no home, and where a folder may not be looked into
    found = any(os.path.exists(os.path.expanduser(place)) for place in places)
    if "LSLAPICFG" not in os.environ and not found:
        pylsl.lib.lib.lsl_set_config_content(b"[log]\nlevel = -1\n")


def lsl_now() -> float:
    """LSL's clock, seconds."""
    return float(pylsl.local_clock())


@dataclass(frozen=True, slots=True)
class StreamDescription:
    """What a stream says of itself."""

    name: str
    type: str
    source_id: str
    hostname: str
    n_channels: int
    rate_hz: float
    format: str
    uid: str

    def __str__(self) -> str:
        rate = f"{self.rate_hz:g} Hz" if self.rate_hz else "irregular"
        return (
            f"{self.name!r} (type {self.type}, {self.n_channels} x {self.format}, {rate}, "
            f"source_id {self.source_id!r}, host {self.hostname})"
        )


def describe(info: pylsl.StreamInfo) -> StreamDescription:
    """The description in an LSL stream info."""
    return StreamDescription(
        name=info.name(),
        type=info.type(),
        source_id=info.source_id(),
        hostname=info.hostname(),
        n_channels=info.channel_count(),
        rate_hz=info.nominal_srate(),
        format=_FORMATS.get(info.channel_format(), "undefined"),
        uid=info.uid(),
    )


def visible_streams(wait_s: float = 1.0) -> list[StreamDescription]:
    """Every stream that answers within `wait_s` seconds."""
    return [describe(info) for info in pylsl.resolve_streams(wait_s)]


class Inlet:
    """One stream, opened.

    Args:
        info: the stream, as resolved.
        budget_per_s: samples per second that the buffer is sized for.
        recover: let LSL reconnect by itself to a stream of the same source_id. What comes back
            may have other labels, and LSL does not say that it is another.

    Raises:
        StreamAbsentError: the sender did not answer, or has just gone.
    """

    def __init__(
        self, info: pylsl.StreamInfo, budget_per_s: float, *, recover: bool = True
    ) -> None:
        self.description = describe(info)
        buffered = BUFFER_S if info.nominal_srate() else budget_per_s * BUFFER_S / 100
        self._inlet = pylsl.StreamInlet(
            info, max_buflen=max(1, math.ceil(buffered)), recover=recover, as_numpy=True
        )
        with self._answering(INFO_WITHIN_S):
            full = self._inlet.info(timeout=INFO_WITHIN_S)
        self.labels = tuple(label or "" for label in full.get_channel_labels() or ())
        self.xml: str = full.as_xml()
        per_s = info.nominal_srate() or budget_per_s
        self._pull = puller(self._inlet, max(1024, math.ceil(per_s)))

    @property
    def same_host(self) -> bool:
        """Whether the sender runs on this machine."""
        return bool(self.description.hostname == socket.gethostname())

    def open(self, timeout_s: float = 5.0) -> None:
        """Start the transmission.

        Raises:
            StreamAbsentError: the sender did not answer.
        """
        with self._answering(timeout_s):
            self._inlet.open_stream(timeout=timeout_s)

    @contextmanager
    def _answering(self, timeout_s: float) -> Iterator[None]:
        try:
            yield
        except (TimeoutError, pylsl.util.LostError) as err:
            raise StreamAbsentError(
                f"LSL stream {self.description} did not open within {timeout_s:g} s; is a firewall "
                "between the two machines?"
            ) from err

    def pull(self, timeout_s: float) -> tuple[np.ndarray, Float64s]:
        """Wait for a sample, then take all that is there.

        Returns:
            (n, n_channels) values in the stream's own type, and (n,) stamps of the sender's clock;
            n = 0 when the timeout passed or the source is away (it is waited for).

        Raises:
            StreamLostError: the source ended for good.
        """
        try:
            return self._pull(timeout_s)
        except pylsl.util.LostError as err:
            raise StreamLostError(f"LSL stream {self.description} ended") from err

    def clock_offset(self, timeout_s: float) -> OffsetEstimate | None:
        """Measure the sender's clock; None when it did not answer in time."""
        remote, uncertainty = ctypes.c_double(), ctypes.c_double()
        error = ctypes.c_int()
        measure = pylsl.lib.lib.lsl_time_correction_ex
        measure.restype = ctypes.c_double
        offset_s = measure(
            self._inlet.obj,
            ctypes.byref(remote),
            ctypes.byref(uncertainty),
            ctypes.c_double(timeout_s),
            ctypes.byref(error),
        )
        if error.value:
            return None
        return OffsetEstimate(lsl_now(), float(offset_s), float(uncertainty.value))

    def close(self) -> None:
        """Stop the transmission."""
        self._inlet.close_stream()


def find_inlet(
    stream_type: str,
    *,
    name: str = "",
    source_id: str = "",
    hostname: str = "",
    budget_per_s: float = 50_000.0,
    timeout_s: float = 5.0,
    recover: bool = True,
) -> Inlet:
    """Find the one stream that matches; `Inlet.open` starts it. `recover`: see `Inlet`.

    Raises:
        StreamAbsentError: none answered (the text lists what is visible), or it has just gone.
        StreamAmbiguousError: several answered; the text lists them.
    """
    wanted = [
        ("type", stream_type),
        ("name", name),
        ("source_id", source_id),
        ("hostname", hostname),
    ]
    predicate = " and ".join(f"{key}={_quoted(value)}" for key, value in wanted if value)
    found = _resolve(predicate, timeout_s)
    if found:  # a second one may need another moment to answer
        found = pylsl.resolve_bypred(predicate, minimum=len(found) + 1, timeout=0.5) or found
    if not found:
        visible = ", ".join(str(s) for s in visible_streams()) or "none"
        raise StreamAbsentError(
            f"no LSL stream with {predicate} answered within {timeout_s:g} s; visible: {visible}. "
            "Is the amplifier's app running, and is multicast let through?"
        )
    if len(found) > 1:
        several = "; ".join(str(describe(info)) for info in found)
        raise StreamAmbiguousError(
            f"{len(found)} LSL streams match {predicate}: {several}. "
            "Name one with `name`, `source_id` or `hostname`, whichever differs."
        )
    return Inlet(found[0], budget_per_s, recover=recover)


def _quoted(value: str) -> str:
    return f'"{value}"' if "'" in value else f"'{value}'"


def _resolve(predicate: str, timeout_s: float) -> list[pylsl.StreamInfo]:
    """Wait for the first streams that match; comes up for air, so that a signal ends the wait."""
    t_end_s = lsl_now() + timeout_s
    while (left_s := t_end_s - lsl_now()) > 0:
        if found := pylsl.resolve_bypred(predicate, 1, min(RESOLVE_SLICE_S, left_s)):
            return list(found)
    return []


def _info(
    name: str, stream_type: str, labels: Sequence[str], rate_hz: float, fmt: int, source_id: str
) -> pylsl.StreamInfo:
    info = pylsl.StreamInfo(name, stream_type, len(labels), rate_hz, fmt, source_id)
    info.set_channel_labels(list(labels))
    return info


class Outlet:
    """A stream that we publish; stamps are LSL seconds.

    Args:
        info: the stream.
        budget_per_s: samples per second that its buffer holds `BUFFER_S` of.
    """

    def __init__(self, info: pylsl.StreamInfo, budget_per_s: float = 1000.0) -> None:
        buffered = BUFFER_S if info.nominal_srate() else budget_per_s * BUFFER_S / 100
        self._outlet = pylsl.StreamOutlet(info, max_buffered=max(1, math.ceil(buffered)))

    def has_consumers(self) -> bool:
        """Whether somebody listens."""
        return bool(self._outlet.have_consumers())

    def wait_for_consumers(self, timeout_s: float) -> bool:
        """Wait until somebody listens; False when nobody came."""
        return bool(self._outlet.wait_for_consumers(timeout_s))

    def close(self) -> None:
        """Take the stream off the network."""
        del self._outlet


class SpikeOutlet(Outlet):
    """Spikes as `type="Spikes"`, int32, irregular, with a sequence channel and keep-alives.

    Args:
        name: name of the stream.
        source_id: lets a receiver recover the stream after an outage.
        keys: unit keys, all `ch<c>/u<u>` (channels `[channel, unit, seq]`) or all `u<id>`
            (channels `[unit, seq]`).
        budget_per_s: spikes per second that the buffer is sized for.

    Raises:
        StreamsError: a key has neither form.
    """

    def __init__(
        self, name: str, source_id: str, keys: Sequence[str], budget_per_s: float = 50_000.0
    ) -> None:
        ids = [parse_key(key) for key in keys]
        flat = all(len(one) == 1 for one in ids)
        if not flat and any(len(one) == 1 for one in ids):
            raise StreamsError(f"unit keys of stream {name!r} mix `u<id>` and `ch<c>/u<u>`")
        labels = ("unit", "seq") if flat else ("channel", "unit", "seq")
        self._ids = np.array(ids, dtype=np.int32).reshape(len(ids), len(labels) - 1)
        self._seq = 0
        info = _info(name, "Spikes", labels, pylsl.IRREGULAR_RATE, pylsl.cf_int32, source_id)
        super().__init__(info, budget_per_s)

    def push(self, t_s: Float64s, key_index: Int32s) -> None:
        """Publish spikes.

        Args:
            t_s: (n,) stamps.
            key_index: (n,) index into the keys.
        """
        self._send(t_s, self._ids[key_index])

    def keep_alive(self, t_s: float) -> None:
        """Say that we live although no unit fires: one sample of unit -1."""
        ids = np.full((1, self._ids.shape[1]), KEEP_ALIVE_UNIT, dtype=np.int32)
        self._send(np.array([t_s]), ids)

    def _send(self, t_s: Float64s, ids: Int32s) -> None:
        n = len(t_s)
        if not n:
            return
        seq = (np.arange(self._seq, self._seq + n) % 2**31).astype(np.int32)
        self._seq = (self._seq + n) % 2**31
        self._outlet.push_chunk(np.column_stack((ids, seq)), t_s.tolist())


def parse_key(key: str) -> tuple[int, ...]:
    """`ch12/u1` -> (12, 1); `u17` -> (17,).

    Raises:
        StreamsError: the key has neither form.
    """
    parts = key.rpartition(":")[2].split("/")
    try:
        if len(parts) == 2 and parts[0].startswith("ch") and parts[1].startswith("u"):
            return int(parts[0][2:]), int(parts[1][1:])
        if len(parts) == 1 and parts[0].startswith("u"):
            return (int(parts[0][1:]),)
    except ValueError:
        pass
    raise StreamsError(f"unit key {key!r} is neither `ch<channel>/u<unit>` nor `u<id>`")


class CountsOutlet(Outlet):
    """Counts per unit at a regular rate, `type="Spikes"`, int32, one channel a unit."""

    def __init__(self, name: str, source_id: str, labels: Sequence[str], rate_hz: float) -> None:
        super().__init__(_info(name, "Spikes", labels, rate_hz, pylsl.cf_int32, source_id))

    def push(self, counts: Int32s, t_s: float) -> None:
        """Publish the (n_units,) counts of the bin that ends at `t_s`."""
        self._outlet.push_sample(counts, t_s)


class MarkerOutlet(Outlet):
    """Event markers: `type="Markers"`, one string channel."""

    def __init__(self, name: str, source_id: str) -> None:
        super().__init__(
            _info(name, "Markers", ("marker",), pylsl.IRREGULAR_RATE, pylsl.cf_string, source_id)
        )

    def push(self, text: str, t_s: float) -> None:
        """Publish one marker."""
        self._outlet.push_sample([text], t_s)


class ValuesOutlet(Outlet):
    """Floating-point channels at irregular stamps: a cursor, a hand, or the decodes."""

    def __init__(
        self, name: str, stream_type: str, source_id: str, labels: Sequence[str], unit: str = ""
    ) -> None:
        info = _info(name, stream_type, labels, pylsl.IRREGULAR_RATE, pylsl.cf_double64, source_id)
        if unit:
            info.set_channel_units([unit] * len(labels))
        super().__init__(info)

    def push(self, values: Float64s | Sequence[float], t_s: float) -> None:
        """Publish one sample, (n_channels,)."""
        self._outlet.push_sample(values, t_s)

    def push_many(self, values: Float64s, t_s: Float64s) -> None:
        """Publish (n, n_channels) samples at (n,) stamps."""
        if len(t_s):
            self._outlet.push_chunk(values, t_s.tolist())


class PositionOutlet(ValuesOutlet):
    """A cursor or a hand: `type="Position"`."""

    def __init__(self, name: str, source_id: str, labels: Sequence[str], unit: str) -> None:
        super().__init__(name, "Position", source_id, labels, unit)
