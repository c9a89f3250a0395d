"""A lab in simulated time: streams that are sent, and the daemon's own loop that hears them.

Everything from the inlet's pull on is the daemon's code: source, layout, ingest, ring, beat, judge,
graph. Only liblsl, the threads and the clock are replaced, so that a minute takes a second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from export.backends.onnxruntime_cpu import open_cpu
from export.bundle import DecoderBundle
from service.daemon.compose import make_alignment
from service.loop.cut_timer import Cut
from service.loop.decode_loop import DecodeLoop
from service.loop.decoder import Decoder
from service.loop.intake.admission import Admission
from service.loop.intake.arrivals import Arrival
from service.loop.intake.ingest import Ingest
from service.loop.intake.schedule import Schedule
from service.loop.intake.settle import SettleTime
from service.loop.intake.source import OpenInlet, Source
from service.loop.journal import Journal
from service.loop.shaping import Shaper
from service.loop.slots import DecoderSlot
from service.loop.validity import ValidityJudge
from streams.clock import OffsetEstimate
from streams.errors import StreamAbsentError, StreamLostError
from streams.lsl.description import StreamDescription
from streams.messages import Float64s
from streams.spikes.layouts.layout import LayoutOptions
from streams.spikes.ring import SpikeRing
from streams.wire.schema import Decode
from tests.service.kept_windows import KeptWindows

OFFSET_EVERY_S = 1.0
T_BEGIN_S = 5000.0


@dataclass(slots=True)
class Push:
    """One chunk that a sender pushes, when it arrives, and the keys that it is of."""

    t_s: float
    samples: np.ndarray
    stamps: Float64s


@dataclass(slots=True)
class SentStream:
    """A stream as it is sent.

    Attributes:
        labels: of its channels.
        pushes: in order of arrival.
        t_off_s: the sender ends.
        rate_hz: nominal; 0 for events.
        source_id: of the sender.
        clock_steps: (when, by how much) the sender's clock steps ahead.
        form: of the values.
    """

    labels: tuple[str, ...]
    pushes: list[Push]
    t_on_s: float = 0.0
    t_off_s: float = np.inf
    rate_hz: float = 0.0
    source_id: str = "amp-1"
    clock_steps: list[tuple[float, float]] = field(default_factory=list)
    form: str = "int32"

    def offset_s(self, t_s: float) -> float:
        """What makes its stamps ours at `t_s`."""
        return -sum(by_s for at_s, by_s in self.clock_steps if at_s <= t_s)


class World:
    """Time, and the streams in it."""

    def __init__(self, streams: list[SentStream]) -> None:
        self.t_s = T_BEGIN_S
        self.streams = streams
        self.listeners: list[Any] = []

    def now(self) -> float:
        """The daemon's clock."""
        return self.t_s

    def sleep_until(self, t_s: float) -> None:
        """Let time pass; what arrives meanwhile is pulled when it arrives, as by a thread."""
        for listener in self.listeners:
            while (t_next := listener.next_event_s(t_s)) is not None:
                self.t_s = max(self.t_s, t_next)
                listener.attend()
        self.t_s = max(self.t_s, t_s)

    spin_until = sleep_until

    def find(self, timeout_s: float) -> OpenInlet:
        """The stream that is sent now."""
        t_end_s = self.t_s + timeout_s
        for stream in self.streams:
            if stream.t_on_s <= t_end_s and stream.t_off_s > self.t_s:
                self.t_s = max(self.t_s, stream.t_on_s)
                return SimulatedInlet(self, stream)
        self.t_s = t_end_s
        raise StreamAbsentError("no stream is sent")


class SimulatedInlet:
    """What the daemon sees of a stream; hands out what has arrived since it was opened."""

    def __init__(self, world: World, stream: SentStream) -> None:
        self._world, self.stream = world, stream
        self.description = StreamDescription(
            "amp", "Spikes", stream.source_id, "rig", len(stream.labels), stream.rate_hz,
            stream.form, f"uid-{id(stream)}",
        )  # fmt: skip
        self.labels = stream.labels
        self.same_host = True
        self._i_next = 0

    def open(self, timeout_s: float = 5.0) -> None:
        """Start the transmission: what was pushed before is not ours."""
        while self._i_next < len(self.stream.pushes) and self.t_next_s <= self._world.t_s:
            self._i_next += 1

    @property
    def t_next_s(self) -> float:
        """When the next chunk arrives; when the stream ends, after the last."""
        if self._i_next < len(self.stream.pushes):
            return min(self.stream.pushes[self._i_next].t_s, self.stream.t_off_s)
        return self.stream.t_off_s

    def pull(self, timeout_s: float) -> tuple[np.ndarray, Float64s]:
        """Wait for a chunk, then take all that is there."""
        if self.t_next_s > self._world.t_s:
            self._world.t_s = min(self._world.t_s + timeout_s, max(self.t_next_s, self._world.t_s))
        taken = []
        while self._i_next < len(self.stream.pushes) and self.t_next_s <= self._world.t_s:
            if self.stream.pushes[self._i_next].t_s >= self.stream.t_off_s:
                break
            taken.append(self.stream.pushes[self._i_next])
            self._i_next += 1
        if not taken and self._world.t_s >= self.stream.t_off_s:
            raise StreamLostError("it ended")
        if not taken:
            return np.zeros((0, len(self.labels)), np.int32), np.zeros(0)
        samples = np.concatenate([push.samples for push in taken])
        return samples, np.concatenate([push.stamps for push in taken])

    def clock_offset(self, timeout_s: float) -> OffsetEstimate | None:
        """Measure the sender's clock."""
        t_s = self._world.t_s
        return OffsetEstimate(t_s, self.stream.offset_s(t_s), 1e-5)

    def close(self) -> None:
        """Stop the transmission."""


class Listener:
    """The ingest thread and the clock thread, driven by time."""

    def __init__(self, world: World, source: Source, ingest: Ingest) -> None:
        self._world, self._source, self._ingest = world, source, ingest
        self._t_offset_s = world.t_s + OFFSET_EVERY_S
        self._t_look_s = 0.0

    def next_event_s(self, until_s: float) -> float | None:
        """When something happens next, up to `until_s`; None if nothing does."""
        inlet = self._source.inlet
        assert isinstance(inlet, SimulatedInlet)
        t_source = self._t_look_s if self._ingest.is_lost else inlet.t_next_s
        t_s = min(t_source, self._t_offset_s)
        return t_s if t_s <= until_s else None

    def attend(self) -> None:
        """Do what is due."""
        if self._world.t_s >= self._t_offset_s:
            self._t_offset_s = self._world.t_s + OFFSET_EVERY_S
            self._source.measure_offset(0.0)
        elif self._ingest.is_lost:
            t_s = self._world.t_s
            self._ingest.look_for_source()
            self._world.t_s = t_s  # the search runs beside the beat
            self._t_look_s = t_s + 0.5
        else:
            self._ingest.pull_once(0.0)

    def await_arrival(self, wait_s: float) -> None:
        """Return once something was handed over, at the latest after `wait_s`."""
        t_end_s = self._world.t_s + max(0.0, wait_s)
        t_next = self.next_event_s(t_end_s)
        self._world.sleep_until(t_end_s if t_next is None else t_next)

    @contextmanager
    def held_off(self) -> Iterator[None]:
        """Nothing arrives meanwhile: no time passes."""
        yield


class SimulatedDaemon:
    """The daemon's loop over a world.

    Attributes:
        decodes: what it published, in order.
        windows: tokens of each beat.
        events: what it reported.
        arrivals: what it admitted.
    """

    def __init__(
        self,
        world: World,
        bundle: DecoderBundle,
        hop_s: float,
        cut: Cut = "auto",
        journal: Journal | None = None,
    ) -> None:
        manifest, hop_us = bundle.manifest, round(hop_s * 1e6)
        self.world = world
        self.decodes: list[Decode] = []
        kept = KeptWindows()
        self.windows = kept.windows
        self.events: list[tuple[str, dict[str, Any]]] = []
        keys = tuple(unit.key for unit in manifest.units)
        self.source = Source(world.find, LayoutOptions(keys), world)
        self.schedule = Schedule(self.source.origin_s(), hop_us)
        alignment = make_alignment(self.source, self.schedule, cut)
        inbox: deque[Arrival] = deque()
        self.ingest = Ingest(self.source, world, self.schedule, inbox, self._report, self._fail)
        bin_s = self.source.bin_s
        decoder = Decoder(
            manifest, open_cpu(bundle), bundle.row_of_key, self.source.keys, journal=journal or kept
        )
        judge = ValidityJudge(
            manifest.context_s, manifest.stale_after_s, self.source.keep_alive_every_s, hop_s
        )
        listener = Listener(world, self.source, self.ingest)
        ring = SpikeRing(200_000, hop_us, hop_us, hop_us)
        self.loop = DecodeLoop(
            clock=world,
            ring=ring,
            admission=Admission(
                ring,
                self.schedule,
                SettleTime("auto", hop_s, 0.5),
                None if bin_s is None else round(bin_s * 1e6),
                alignment,
            ),
            slot=DecoderSlot(decoder, judge, Shaper(manifest.outputs)),
            inbox=inbox,
            arrivals=listener,
            run_id="sim",
            lead_s=manifest.lead_s.default,
            report=self._report,
            source_fault=lambda: self.ingest.source_fault,
            cut=cut,
            journal=journal or kept,
        )
        world.listeners.append(listener)

    def run(self, until_s: float) -> None:
        """Beat until then."""
        self.loop.begin(self.source.t_open_s)
        while self.world.t_s < until_s:
            decode, _ = self.loop.run_beat(self._publish)
            self.loop.run_shadow()
            self.loop.review_settling(decode)

    def _publish(self, decode: Decode) -> float:
        self.decodes.append(decode)
        return self.world.t_s

    def _report(self, event: str, detail: dict[str, Any]) -> None:
        self.events.append((event, detail))

    def _fail(self, err: Exception) -> None:
        raise err
