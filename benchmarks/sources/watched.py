"""One source and the daemons that decode it: what they sent, and what had come by then."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from threading import Event
from typing import Self

from benchmarks.sources.kinds import KINDS
from benchmarks.sources.told import Told
from service.bench.loop import Settings, start_daemon
from service.bench.rig import ProcessFailedError, Rig, beside
from streams.clock import MonotonicClock
from streams.lsl.inlets import find_inlet
from streams.messages import Float64s
from streams.wire.sockets import DecodeSubscriber

CUTS = ("auto", "settled")
TOPICS = ("decode", "timing", "heartbeat", "event")
FOUND_WITHIN_S, KNOWN_WITHIN_S = 30.0, 60.0
AFTER_SETTLING_S = 1.0


class Watched:
    """A source and a daemon for each of `CUTS`; ended by the rig.

    Attributes:
        name: the kind's.
        kind: how it sends.
        t_s: when its phases began and the last ended: as it was, changed, back.

    Args:
        rig: where the processes run.
        name: of the kind.
        settings: of the daemons; rate and units of the source, too.
    """

    def __init__(self, rig: Rig, name: str, settings: Settings) -> None:
        self.name, self.kind, self.t_s = name, KINDS[name], list[float]()
        self._rig, self._clock = rig, MonotonicClock()
        self._stream = f"spikeloop-sources-{os.getpid()}-{name}"
        rig.run(
            self._sender,
            [sys.executable, "-m", "benchmarks.sources.sender", self._stream, name,
             str(settings.n_units), str(settings.rate_hz)],
        )  # fmt: skip
        self._spikes: list[tuple[Float64s, float]] = []
        self._listening = beside(self._listen)
        self._told = {cut: Told() for cut in CUTS}
        endpoints = {
            cut: start_daemon(rig, self._daemon(cut), self._stream, replace(settings, cut=cut))
            for cut in CUTS
        }
        self._subscribers = {cut: DecodeSubscriber(endpoints[cut], TOPICS) for cut in CUTS}

    def __enter__(self) -> Self:
        self._listening.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        # Before its sender: LSL complains of a stream that ends under its receiver.
        self._listening.__exit__(None, None, None)
        for subscriber in self._subscribers.values():
            subscriber.close()
        for process in (*map(self._daemon, CUTS), self._sender):
            self._rig.stop(process)

    @property
    def told(self) -> Mapping[str, Told]:
        """What each daemon told, by its cut."""
        return self._told

    @property
    def spikes(self) -> list[tuple[Float64s, float]]:
        """Per pull so far its spikes' (n,) stamps, and when they were here, seconds."""
        return self._spikes.copy()  # it grows meanwhile

    def take(self) -> None:
        """Take in what the daemons have sent."""
        for cut, subscriber in self._subscribers.items():
            self._rig.check(self._daemon(cut))
            while (received := subscriber.receive(0.0)) is not None:
                self._told[cut].take(*received)
        self._rig.check(self._sender)

    @property
    def is_known(self) -> bool:
        """True once the daemons have settled and know how orderly the source is."""
        return all(told.has_settled_for(AFTER_SETTLING_S) for told in self._told.values())

    def change(self) -> None:
        """Begin the next phase: the source changes, or changes back."""
        self.t_s.append(self._clock.now())
        if self.kind.changes and 1 < len(self.t_s) < 4:
            os.kill(self._rig.pids()[self._sender], signal.SIGUSR1)

    def _listen(self, ending: Event) -> None:
        """Note when each spike is here: a daemon had it about then."""
        inlet = find_inlet("Spikes", name=self._stream, timeout_s=FOUND_WITHIN_S)
        inlet.open()
        while not ending.is_set():
            samples, stamps = inlet.pull(0.1)
            now_s = self._clock.now()
            if len(stamps):
                self._spikes.append((stamps[samples[:, 0] >= 0], now_s))
        inlet.close()

    def _daemon(self, cut: str) -> str:
        return f"{self.name}-{cut}"

    @property
    def _sender(self) -> str:
        return f"{self.name}-sender"


def watch(watched: list[Watched], seconds: float) -> None:
    """Watch sources side by side: a third of the time as they are, changed, and back again.

    Raises:
        ProcessFailedError: a process ended, or the daemons do not settle.
    """
    clock = MonotonicClock()
    t_known_s = clock.now() + KNOWN_WITHIN_S
    while not all(one.is_known for one in watched):
        if clock.now() > t_known_s:
            raise ProcessFailedError(f"not settled within {KNOWN_WITHIN_S:g} s", 1)
        _take_for(watched, 0.1)
    for _ in range(3):
        for one in watched:
            one.change()
        _take_for(watched, seconds / 3)
    for one in watched:
        one.change()
    _take_for(watched, 0.5)  # decodes of the last windows are on their way


def _take_for(watched: list[Watched], seconds: float) -> None:
    clock = MonotonicClock()
    t_end_s = clock.now() + seconds
    while (now_s := clock.now()) < t_end_s:
        for one in watched:
            one.take()
        clock.sleep_until(min(t_end_s, now_s + 0.02))
