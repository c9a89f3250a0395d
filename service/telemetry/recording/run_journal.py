"""The run's journal in the daemon: notes wait here until the recorder's thread fetches them.

Whoever notes something appends to a queue, and nothing else. While no recorder takes what was
noted, notes are counted and left out, until a checkpoint begins the record anew.
"""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from export.backends.table import Remembers
from service.loop.decode_loop import DecodeLoop
from service.loop.decoder import Decoder
from service.loop.intake.arrivals import Arrival
from service.loop.journal import Journal
from service.telemetry.recording import records
from service.telemetry.recording.records import Checkpoint, Known, Record
from streams.messages import TokenWindow
from streams.wire.schema import Decode, encode

NOTES_AT_MOST = 50_000
"""A thousand beats at least: the thread that fetches them was held up for many seconds."""

DUE_EVERY_S = 0.05


class RunJournal(Journal):
    """Collects the run's records; see `Journal` for what the loop tells.

    Attributes:
        decoders: those opened so far, by number.
        wants_checkpoint: the loop is asked for one at its next beat's end.
        is_open: notes are taken.
        n_lost: notes that were left out since the newest checkpoint.
    """

    def __init__(self) -> None:
        self.decoders: dict[int, dict[str, Any]] = {}
        self.wants_checkpoint, self.is_open, self.n_lost = False, False, 0
        self._notes: deque[Any] = deque()
        self._known = np.zeros(0, np.bool_)
        self._due = threading.Event()
        self._has_begun, self._t_due_s = False, 0.0

    def opened(self, number: int, facts: Mapping[str, Any]) -> None:
        """See `Journal`."""
        self.decoders[number] = dict(facts)
        self._note(records.Opened(number, dict(facts)))

    def arrival(self, arrival: Arrival, known: np.ndarray) -> None:
        """See `Journal`."""
        if known is not self._known:
            self._known = known
            self._note(Known(known.tobytes()))
        self._note(arrival)

    def cut(self, k: int, end_us: int, rule: str) -> None:
        """See `Journal`."""
        self._note(records.Cut(k, end_us, rule))

    def closed(self, end_us: int) -> None:
        """See `Journal`."""
        self._note(records.Closed(end_us))

    def ran(
        self, number: int, k: int, window: TokenWindow, lead_s: float, token_cap: int | None
    ) -> None:
        """See `Journal`."""
        self._note((number, k, window, lead_s, token_cap))

    def failed(self, number: int, k: int, error: str) -> None:
        """See `Journal`."""
        self._note(records.Failed(number, k, error))

    def forgot(self, number: int, k: int) -> None:
        """See `Journal`."""
        self._note(records.Forgot(number, k))

    def commanded(self, change: str, detail: Mapping[str, Any]) -> None:
        """See `Journal`."""
        self._note(records.Commanded(change, dict(detail)))

    def said(
        self, number: int, decode: Decode, *, was_shaped: bool = False, then_safe: bool = False
    ) -> None:
        """Note a decode that left; see `Said`."""
        self._note(("decode", number, decode, was_shaped, then_safe))

    def shadow(self, number: int, decode: Decode) -> None:
        """Note a decode of the decoder in shadow that left."""
        self._note(("shadow", number, decode, False, False))

    def told(self, topic: str, message: bytes) -> None:
        """Note another message that left."""
        self._note(records.Told(topic, message))

    def checkpoint(self, loop: DecodeLoop) -> None:
        """Note everything that decodes to come depend on; called by the loop's thread."""
        held, slots, n_lost = loop.ring.held(), loop.slots, self.n_lost
        shaper = slots.active.shaper
        self._known = slots.known
        self.n_lost, self.is_open, self.wants_checkpoint = 0, True, False
        self._has_begun = True
        self._note(
            Checkpoint(
                k=loop.last_k,
                n_lost=n_lost,
                late_until_us=held.late_until_us,
                newest_us=held.newest_us,
                t_us=held.batch.t_us.tobytes(),
                unit=held.batch.unit.tobytes(),
                count=held.batch.count.tobytes(),
                known=slots.known.tobytes(),
                decoders=[_memory(slot.decoder) for slot in slots.all],
                shaping=asdict(shaper.shaping),
                smooth=shaper.smooth,
                last_ok=shaper.last_ok,
            )
        )

    def beat_over(self, loop: DecodeLoop, t_s: float) -> None:
        """Once a decode is out: make a checkpoint if asked, and let the notes be fetched.

        Then nothing is in a hurry, and the loop does not want for the interpreter.
        """
        if self.wants_checkpoint:
            self.checkpoint(loop)
        if t_s - self._t_due_s >= DUE_EVERY_S:
            self._t_due_s = t_s
            self._due.set()

    def hurry(self) -> None:
        """Let the notes be fetched at once."""
        self._due.set()

    def wait(self, most_s: float) -> None:
        """Wait until it is time to fetch."""
        self._due.wait(most_s)
        self._due.clear()

    def fetch(self) -> list[Any]:
        """Take out the notes that wait; the recorder's thread alone does."""
        return [self._notes.popleft() for _ in range(len(self._notes))]

    def leave_out(self) -> None:
        """Take no notes, and forget those that wait, until the next checkpoint."""
        self.is_open = self.wants_checkpoint = False
        self.n_lost += len(self.fetch())

    def _note(self, note: Any) -> None:
        if not self.is_open:
            self.n_lost += self._has_begun
        elif len(self._notes) < NOTES_AT_MOST:
            self._notes.append(note)
        else:
            self.is_open = False
            self.n_lost += 1


def record_of(note: Any) -> Record:
    """Return the record of a note."""
    if isinstance(note, Arrival):
        return records.arrived(note)
    if not isinstance(note, tuple):
        record: Record = note
        return record
    first, *rest = note
    if isinstance(first, str):
        number, decode, was_shaped, then_safe = rest
        return records.Said(first, number, encode(decode), was_shaped, then_safe)
    k, window, lead_s, token_cap = rest
    return records.Ran(first, k, lead_s, token_cap, len(window), tokens_crc(window))


def tokens_crc(window: TokenWindow) -> int:
    """Return the CRC-32 of a window's tokens."""
    crc = zlib.crc32(window.unit.data)
    return zlib.crc32(window.count.data, zlib.crc32(window.t_rel.data, crc))


def _memory(decoder: Decoder) -> records.Memory:
    backend, held = decoder.backend, None
    if not decoder.has_memory:
        held = {}
    elif isinstance(backend, Remembers):
        arrays = backend.memory()
        held = {name: (list(a.shape), a.tobytes()) for name, a in arrays.items()}
    return records.Memory(decoder.number, decoder.last_k, decoder.k_reset, held)
