"""Inlets: finding streams and pulling them.

This folder is the only place that imports pylsl. Three things about LSL are easy to get wrong: for
an irregular stream `max_buflen` counts hundreds of samples; clock correction is ours to apply; and
a blocking pull for one sample, followed by what is there, beats polling.
"""

from __future__ import annotations

import ctypes
import math
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pylsl

from streams.clock import OffsetEstimate
from streams.errors import StreamAbsentError, StreamAmbiguousError, StreamLostError
from streams.lsl.description import SIMULATED, StreamDescription
from streams.messages import Float64s

BUFFER_S = 20.0
RESOLVE_SLICE_S = 1.0
INFO_WITHIN_S = 5.0
TOO_FEW_FILES = "Too few open files are allowed for its sockets? See `ulimit -n`"
_FORMATS = {
    pylsl.cf_float32: "float32",
    pylsl.cf_double64: "double64",
    pylsl.cf_string: "string",
    pylsl.cf_int32: "int32",
    pylsl.cf_int16: "int16",
    pylsl.cf_int8: "int8",
    pylsl.cf_int64: "int64",
}


def quieten() -> None:
    """Keep liblsl's own log to warnings, unless the lab has an `lsl_api.cfg` that says otherwise.

    Takes effect only before the process first uses LSL.
    """
    places = ("lsl_api.cfg", "~/lsl_api/lsl_api.cfg", "/etc/lsl_api/lsl_api.cfg")
    # os.path, as Path raises where there is no home, and where a folder may not be looked into
    found = any(os.path.exists(os.path.expanduser(place)) for place in places)
    if "LSLAPICFG" not in os.environ and not found:
        pylsl.lib.lib.lsl_set_config_content(b"[log]\nlevel = -1\n")


def lsl_now() -> float:
    """LSL's clock, seconds."""
    return float(pylsl.local_clock())


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


def _is_of(full: pylsl.StreamInfo, info: pylsl.StreamInfo) -> bool:
    """True if a description is that of the stream that was found, or of its sender started anew.

    LSL asks an address for its description, not a stream: another outlet may have its port by now.
    """
    if full.uid() == info.uid():
        return True
    told = [(one.name(), one.type(), one.source_id()) for one in (full, info)]
    return bool(info.source_id()) and told[0] == told[1]


class Inlet:
    """One stream, opened.

    Args:
        info: the stream, as resolved.
        budget_per_s: samples per second that the buffer is sized for.
        recover: let LSL reconnect by itself to a stream with the same source_id. What comes back
            may have other labels, and LSL does not say that it is another.

    Raises:
        StreamAbsentError: the sender did not answer, or has just gone.
    """

    def __init__(
        self, info: pylsl.StreamInfo, budget_per_s: float, *, recover: bool = True
    ) -> None:
        self.description = describe(info)
        buffered = BUFFER_S if info.nominal_srate() else budget_per_s * BUFFER_S / 100
        try:
            self._inlet = pylsl.StreamInlet(
                info, max_buflen=max(1, math.ceil(buffered)), recover=recover, as_numpy=True
            )
        except RuntimeError as err:
            raise StreamAbsentError(
                f"LSL cannot open the stream {self.description}: {err} {TOO_FEW_FILES}"
            ) from err
        with self._answering(INFO_WITHIN_S):
            full = self._inlet.info(timeout=INFO_WITHIN_S)
        if not _is_of(full, info):
            raise StreamAbsentError(
                f"LSL stream {self.description} has just gone; {describe(full)} answers at its "
                "address"
            )
        self.labels = tuple(label or "" for label in full.get_channel_labels() or ())
        if full.desc().child_value(SIMULATED) == "true":
            self.description = replace(self.description, simulated=True)
        self.xml: str = full.as_xml()
        per_s = info.nominal_srate() or budget_per_s
        self._pull = puller(self._inlet, max(1024, math.ceil(per_s)))

    @property
    def same_host(self) -> bool:
        """True if the sender runs on this machine."""
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
            (n, n_channels) values in the stream's own type, and (n,) stamps on the sender's clock;
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
        # LSL measures on its own every few seconds: its newest measurement is of that time.
        t_s = float(remote.value) + float(offset_s)
        return OffsetEstimate(t_s, float(offset_s), float(uncertainty.value))

    def is_visible(self, timeout_s: float) -> bool:
        """Return True if this very stream still answers on the network."""
        return bool(pylsl.resolve_byprop("uid", self.description.uid, 1, timeout_s))

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
    gave_up: Callable[[], bool] = lambda: False,
) -> Inlet:
    """Find the one stream that matches; `Inlet.open` starts it. `recover`: see `Inlet`.

    Another thread may end the search by `gave_up`, which is asked once a second.

    Raises:
        StreamAbsentError: none answered (the text lists what is visible), or it has just gone.
        StreamAmbiguousError: several answered; the text lists them.
    """
    predicate = _predicate(type=stream_type, name=name, source_id=source_id, hostname=hostname)
    found = _resolve(predicate, timeout_s, gave_up)
    if gave_up():
        raise StreamAbsentError(f"the search for a stream with {predicate} was given up")
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
            f"{_telling([describe(info) for info in found])}"
        )
    return Inlet(found[0], budget_per_s, recover=recover)


def matching_streams(
    stream_type: str = "", *, name: str = "", hostname: str = "", wait_s: float = 3.0
) -> list[pylsl.StreamInfo]:
    """Find every stream that matches and answers within `wait_s` seconds, sorted by name.

    Raises:
        StreamAbsentError: none answered; the text lists what is visible.
    """
    predicate = _predicate(type=stream_type, name=name, hostname=hostname)
    found = (
        pylsl.resolve_bypred(predicate, minimum=1000, timeout=wait_s)
        if predicate
        else pylsl.resolve_streams(wait_s)
    )
    if not found:
        visible = ", ".join(str(s) for s in visible_streams()) or "none"
        raise StreamAbsentError(
            f"no LSL stream{' with ' + predicate if predicate else ''} answered within "
            f"{wait_s:g} s; visible: {visible}. Is its program running, and is multicast let "
            "through?"
        )
    return sorted(found, key=lambda info: (info.name(), info.hostname(), info.uid()))


def _telling(found: Sequence[StreamDescription]) -> str:
    """Say which setting tells streams apart that answer alike."""
    differing = [
        f"`{key}`"
        for key in ("name", "source_id", "hostname")
        if len({getattr(stream, key) for stream in found}) > 1
    ]
    if not differing:
        return "Nothing tells them apart: stop one, or give it another name."
    return f"Name one by {' or '.join(differing)}."


def _predicate(**wanted: str) -> str:
    """Write a condition on streams as LSL reads it."""
    quoted = {key: f'"{value}"' if "'" in value else f"'{value}'" for key, value in wanted.items()}
    return " and ".join(f"{key}={quoted[key]}" for key, value in wanted.items() if value)


def _resolve(
    predicate: str, timeout_s: float, gave_up: Callable[[], bool]
) -> list[pylsl.StreamInfo]:
    """Wait for the first streams that match; comes up for air, so that a signal ends the wait."""
    t_end_s = lsl_now() + timeout_s
    while (left_s := t_end_s - lsl_now()) > 0 and not gave_up():
        if found := pylsl.resolve_bypred(predicate, 1, min(RESOLVE_SLICE_S, left_s)):
            return list(found)
    return []


Pull = Callable[[float], tuple[np.ndarray, Float64s]]


def puller(inlet: pylsl.StreamInlet, n_samples: int) -> Pull:
    """Choose a way to pull at most `n_samples`; see `streams.lsl.inlets.Inlet.pull`."""
    if inlet.channel_format != pylsl.cf_string:
        return PullBuffer(inlet, n_samples).pull

    def pull_text(timeout_s: float) -> tuple[np.ndarray, Float64s]:
        text, stamps = inlet.pull_chunk(
            timeout=timeout_s, max_samples=n_samples, min_samples=1, as_numpy=True
        )
        return np.asarray(text), np.asarray(stamps, dtype=np.float64)

    return pull_text


class PullBuffer:
    """Arrays for the numbers that liblsl pulls: kept, so that a pull costs little.

    Args:
        inlet: sends numbers.
        n_samples: pulled at most at a time.
    """

    def __init__(self, inlet: pylsl.StreamInlet, n_samples: int) -> None:
        self._inlet = inlet
        self._take = pylsl.lib.fmt2pull_chunk[inlet.channel_format]
        dtype = pylsl.lib.fmt2npdtype[inlet.channel_format]
        self._n_channels = inlet.channel_count
        self._values = np.zeros((n_samples, self._n_channels), dtype)
        self._stamps = np.zeros(n_samples)
        self._error = ctypes.c_int()
        self._error_at = ctypes.byref(self._error)
        # In two: a pull of many waits for all of them.
        self._first, self._rest = self._room(0, 1), self._room(1, n_samples)

    def _room(self, i_from: int, i_to: int) -> tuple[Any, ...]:
        n = i_to - i_from
        at = [ctypes.c_void_p(part[i_from:].ctypes.data) for part in (self._values, self._stamps)]
        return (*at, ctypes.c_size_t(n * self._n_channels), ctypes.c_size_t(n))

    def pull(self, timeout_s: float) -> tuple[np.ndarray, Float64s]:
        """Copy what came; see `streams.lsl.inlets.Inlet.pull`.

        Raises:
            pylsl.util.LostError: the source ended for good.
        """
        n = self._fill(self._first, timeout_s)
        if n:
            n += self._fill(self._rest, 0.0)
        return self._values[:n].copy(), self._stamps[:n].copy()

    def _fill(self, room: tuple[Any, ...], timeout_s: float) -> int:
        self._error.value = 0
        n_values = self._take(self._inlet.obj, *room, ctypes.c_double(timeout_s), self._error_at)
        pylsl.util.handle_error(self._error)
        n: int = n_values // self._n_channels
        return n
