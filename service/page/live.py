"""Inputs of a live page: the wire, the daemon's status and streams, drained into the room."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from export.bundle import DecoderBundle
from service.page.inputs.lsl import Stream, texts
from service.page.inputs.streams import other_stream, spikes_stream
from service.page.inputs.wire import TOPICS, StatusReader, WireReader
from service.page.options import PageOptions
from service.page.room import Room
from streams.clock import Clock
from streams.errors import StreamsError
from streams.lsl.description import marker_text
from streams.lsl.inlets import Inlet
from streams.spikes.layouts.layout import Layout, LayoutOptions
from streams.spikes.layouts.table import layout_of, resumed_layout
from streams.wire.client import DaemonClient
from streams.wire.curve_keys import read_curve_keys
from streams.wire.sockets import DecodeSubscriber


class LiveInputs:
    """Reads a running daemon and the streams that go with it.

    Args:
        options: which.
        bundle: the decoder, where it lies on this machine.
        clock: ours.

    Raises:
        CurveKeysError: the file of keys holds none.
    """

    def __init__(self, options: PageOptions, bundle: DecoderBundle | None, clock: Clock) -> None:
        client = DaemonClient(options.control, options.keys) if options.control else None
        self.client: DaemonClient | None = client
        self._clock, self.room = clock, Room(clock.now(), bundle)
        self._wire = WireReader(_subscription(options, client), clock)
        self._status = StatusReader(client) if client else None
        known = tuple(bundle.row_of_key) if bundle else ()
        self._layouts = LayoutOptions(
            known_keys=known,
            array=options.array,
            columns=options.columns,
            ignore_units=options.ignore_units,
        )
        self._layout: Layout | None = None
        self._read: Inlet | None = None
        self._spikes = spikes_stream(lambda: self.room.source)
        self._positions = other_stream("Position", options.position, lambda: self.room.source)
        self._markers = other_stream("Markers", options.markers, lambda: self.room.source)

    def drain(self) -> float:
        """Take in all that came; return the time now."""
        room = self.room
        for heard in self._wire.take():
            room.take(heard)
        now_s = self._clock.now()
        room.raster.advance(now_s)
        room.status = self._status.status if self._status else {}
        self._drain_spikes()
        if (pulled := self._positions.pull()) is not None:
            inlet = self._positions.inlet
            room.decoded.open_positions(inlet.labels if inlet else ())
            room.decoded.add_positions(*pulled)
        if (pulled := self._markers.pull()) is not None:
            for text, t_s in zip(texts(pulled[0]), pulled[1].tolist(), strict=True):
                room.trials.take(marker_text(text), t_s)
        room.trouble = {"wire": self._wire.trouble, "spikes": self._spikes.trouble}
        return now_s

    def _drain_spikes(self) -> None:
        inlet = self._spikes.inlet
        if (pulled := self._spikes.pull()) is None or inlet is None:
            return
        if inlet is not self._read:
            self._read = inlet
            try:
                self._layout = _layout(self._layout, inlet, self._layouts)
            except StreamsError as err:
                self._layout, self._spikes.trouble = None, str(err)
        if self._layout is not None and len(pulled[1]):
            parsed = self._layout.parse(*pulled)
            self.room.keys = self._layout.keys
            self.room.add_spikes(parsed.unit, parsed.t_s, parsed.count)

    def recorded(self) -> None:
        """Return None: nothing here can be wound."""

    def obey(self, said: Mapping[str, Any]) -> None:
        """Ignore it: time cannot be wound."""

    def close(self) -> None:
        """End all threads."""
        streams: tuple[Stream, ...] = (self._spikes, self._positions, self._markers)
        for stream in streams:
            stream.close()
        if self._status:
            self._status.close()
        self.room.influence.close()
        self._wire.close()


def _layout(before: Layout | None, inlet: Inlet, options: LayoutOptions) -> Layout:
    if before is None:
        return layout_of(inlet.description, inlet.labels, options)
    return resumed_layout(before, inlet.description, inlet.labels, options)


def _subscription(
    options: PageOptions, client: DaemonClient | None
) -> Callable[[], DecodeSubscriber]:
    keys = read_curve_keys(options.keys) if options.keys else None
    if options.decode or client is None:
        return lambda: DecodeSubscriber(options.decode, TOPICS, keys)
    return lambda: client.subscribe(TOPICS)
