"""Inputs of a page that shows a recorded run: a tape with a time bar, played into the room."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from export.bundle import DecoderBundle, open_bundle
from export.errors import ExportError
from service.page.inputs.run_tape import RunTape, Spikes
from service.page.inputs.wire import Heard
from service.page.panels.decoded import TRACE_S
from service.page.room import Room
from streams.clock import Clock
from streams.wire.client import DaemonClient

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
LED_IN_S = 20.0
"""Fed before the moment that is wound to, so that traces and rates are full."""
BAR_CELLS, TICK_S = 400, 0.1
TOGETHER_S = 0.05
"""Arrivals so near are added at once: there may be a thousand a second."""


class RecordedInputs:
    """Plays a recorded run; to the page it is what `LiveInputs` is for a running daemon.

    Args:
        path: the run's folder.
        bundle: the decoder; None to take the one that the record names, where it still lies there.
        clock: ours.

    Attributes:
        room: what the page knows; another one each time that it is wound.
        client: None; a recording cannot be commanded.

    Raises:
        RecordingError: no recorded run is there.
    """

    def __init__(self, path: Path, bundle: DecoderBundle | None, clock: Clock) -> None:
        self._tape, self._clock = RunTape(path), clock
        self._bundle = bundle or _bundle_of(self._tape)
        stretches = groupby(self._tape.validities(BAR_CELLS))
        self._stretches = [[validity, len(list(same))] for validity, same in stretches]
        self.client: DaemonClient | None = None
        self.room = Room(self._tape.begin_s, is_live=False)
        self.is_playing, self.speed = True, 1.0
        self._head_s, self._t_s = self._tape.begin_s, clock.now()
        self._t_ticked_s = self._head_s
        self.wind(0.0)

    def drain(self) -> float:
        """Play up to now; return the moment on the tape, seconds on the daemon's clock."""
        t_s = self._clock.now()
        if self.is_playing:
            self._head_s += self.speed * (t_s - self._t_s)
            if self._head_s >= self._tape.end_s:
                self._head_s, self.is_playing = self._tape.end_s, False
        self._t_s = t_s
        self._feed()
        return self._head_s

    def obey(self, said: Mapping[str, Any]) -> None:
        """Carry out what the time bar asks; anything else is left alone.

        Args:
            said: `wind_to_s` from the run's beginning, `speed` one of `SPEEDS`, `is_playing`.
        """
        speed, to_s = said.get("speed"), said.get("wind_to_s")
        if isinstance(speed, int | float) and speed in SPEEDS:
            self.speed = float(speed)
        if isinstance(to_s, int | float) and math.isfinite(to_s):
            self.wind(float(to_s))
        if isinstance(said.get("is_playing"), bool):
            self.is_playing = said["is_playing"]
            if self.is_playing and self._head_s >= self._tape.end_s:
                self.wind(0.0)

    def wind(self, to_s: float) -> None:
        """Go to a moment.

        Args:
            to_s: seconds from the run's beginning; bounded to the run.
        """
        tape = self._tape
        self._head_s = tape.begin_s + min(max(0.0, to_s), tape.end_s - tape.begin_s)
        first_s = max(tape.begin_s, self._head_s - LED_IN_S)
        self.room.influence.close()
        self.room = Room(first_s, self._bundle, is_live=False)
        self.room.keys = tape.keys
        self._items: Iterator[Heard | Spikes] = tape.items(first_s)
        self._next: Heard | Spikes | None = next(self._items, None)
        self._t_s, self._t_ticked_s = self._clock.now(), first_s
        self._feed()

    def recorded(self) -> dict[str, Any]:
        """Return where the recording stands, for the time bar."""
        tape = self._tape
        return {
            "at_s": round(self._head_s - tape.begin_s, 2),
            "length_s": round(tape.end_s - tape.begin_s, 2),
            "utc_of_begin": tape.facts["utc_of_t0"] + tape.begin_s - tape.facts["t0_s"],
            "speed": self.speed,
            "is_playing": self.is_playing,
            "stretches": self._stretches,
            "remarks": tape.remarks,
        }

    def close(self) -> None:
        """End the room's threads."""
        self.room.influence.close()

    def _feed(self) -> None:
        """Give the room all that lies before the head, its clock going with it."""
        together: list[Spikes] = []
        while self._next is not None and self._next.t_s <= self._head_s:
            item = self._next
            if together and item.t_s > together[0].t_s + TOGETHER_S:
                self._add(together)
            # What the room does with time it does here too, but for what a browser still wants.
            if self._t_ticked_s + TICK_S <= item.t_s:
                self._t_ticked_s = item.t_s
                if item.t_s < self._head_s - TRACE_S:
                    self.room.tick(item.t_s)
                else:
                    self.room.mark_validity(item.t_s)
            if isinstance(item, Spikes):
                together.append(item)
            else:
                self.room.take(item)
            self._next = next(self._items, None)
        self._add(together)

    def _add(self, together: list[Spikes]) -> None:
        """Give the room some arrivals at once, and empty the list."""
        if not together:
            return
        self.room.raster.advance(together[-1].t_s)
        parts = [(one.unit, one.stamps_s, one.count) for one in together]
        unit, stamps_s, count = (np.concatenate(of) for of in zip(*parts, strict=True))
        self.room.add_spikes(unit, stamps_s, count)
        together.clear()


def _bundle_of(tape: RunTape) -> DecoderBundle | None:
    """Open the bundle that the record names; None where another or none lies there now."""
    told = tape.decoder_at(tape.begin_s)
    try:
        bundle = open_bundle(Path(told["bundle"]))
    except (KeyError, ExportError):
        return None
    return bundle if bundle.manifest.id == told["checksum"] else None
