"""Memory that the daemon shares with its guardian: how far it is, and by when it must be further.

The guardian reads it when no thread of the daemon runs any more, so that writing takes no lock,
and what it needs for the daemon's last words lies here, too.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
from enum import IntEnum
from typing import Any

import msgspec

from streams.wire.packed import Format
from streams.wire.schema import Decode

NO_LIMIT = 0.0
_NUMBERS = struct.Struct("<6d")
_SLOT_BYTES = 2**18
_LENGTH = struct.Struct("<I")


class Phase(IntEnum):
    """The daemon's phase."""

    STARTING = 0
    RUNNING = 1
    ENDING = 2


class LastWords(msgspec.Struct, kw_only=True):
    """Everything that a guardian needs to go on in the daemon's place for a moment.

    Attributes:
        doing: what the daemon does, for the error.
        backend: in use, as the config names it; "" before one was opened.
        after: those to try next.
        decode, control: the bound endpoints; "" before.
        hop_s: between beats.
        run_id: the run's; "" before it was named.
        simulated: its source is a simulated subject.
        form, dims: of the decodes, see `decode_writer`.
        newest: the newest decode; None before the first.
        safe: per output, the value to publish instead of it.
        clients: those who may connect: name, role and key of each.
    """

    doing: str = "the start"
    backend: str = ""
    after: tuple[str, ...] = ()
    decode: str = ""
    control: str = ""
    hop_s: float = 0.0
    run_id: str = ""
    simulated: bool = False
    form: Format = "json"
    dims: dict[str, int] = {}
    newest: Decode | None = None
    safe: dict[str, list[float] | None] = {}
    clients: tuple[tuple[str, int, str], ...] = ()


class Lifeline:
    """One daemon's; made before the guardian forks it, so that both see it.

    Args:
        run_before: the run that hung, where this one goes on; "" for none.
    """

    def __init__(self, run_before: str = "") -> None:
        self.run_before = run_before
        self._memory = mmap.mmap(-1, _NUMBERS.size + 8 + 2 * _SLOT_BYTES)
        self._guardian = 0
        self._phase, self._due_s, self._alive_s = Phase.STARTING, NO_LIMIT, 0.0
        self._seq = self._beat = 0
        self._words = LastWords()
        self._i_slot = 0

    def attach(self) -> None:
        """Note the guardian; called in the daemon's process."""
        self._guardian = os.getppid()

    def ask_end(self) -> None:
        """Ask for the daemon's end, also where its main thread hangs."""
        if self._guardian:
            os.kill(self._guardian, signal.SIGTERM)
        else:
            os.kill(os.getpid(), signal.SIGINT)

    def reach(self, phase: Phase, due_s: float, doing: str) -> None:
        """Begin something that must be over by `due_s`; `NO_LIMIT` if it may take any time."""
        self._phase, self._due_s = phase, due_s
        self.say(doing=doing)
        self._write()

    def alive(self, t_s: float) -> None:
        """Note that Python threads run."""
        self._alive_s = t_s
        self._write()

    def sends(self, decode: Decode) -> None:
        """Note a decode before it leaves, so that no last words carry its number again."""
        self._seq, self._beat = decode.seq, decode.beat
        self._write()

    def beat_over(self, due_s: float) -> None:
        """Note that a beat is over; the next one is due by `due_s`."""
        self._due_s = due_s
        self._write()

    @property
    def has_newest(self) -> bool:
        """Whether there is a decode to go on from."""
        return self._words.newest is not None

    def say(self, **words: Any) -> None:
        """Change last words."""
        self._words = msgspec.structs.replace(self._words, **words)
        packed = msgspec.json.encode(self._words)
        if len(packed) > _SLOT_BYTES - _LENGTH.size:
            return
        # The daemon may be killed while it writes: the slot before stays whole until this one is.
        i_free = 1 - self._i_slot
        start = _NUMBERS.size + 8 + i_free * _SLOT_BYTES
        self._memory[start : start + _LENGTH.size + len(packed)] = (
            _LENGTH.pack(len(packed)) + packed
        )
        self._memory[_NUMBERS.size] = self._i_slot = i_free

    def is_overdue(self, t_s: float) -> bool:
        """Return True if the beats have stopped; asked in the daemon's process."""
        return self._phase is Phase.RUNNING and t_s > self._due_s

    def read(self) -> Reading:
        """Return the numbers; asked in the guardian's process."""
        phase, due_s, alive_s, seq, beat, _ = _NUMBERS.unpack_from(self._memory)
        return Reading(Phase(int(phase)), due_s, alive_s, int(seq), int(beat))

    def last_words(self) -> LastWords:
        """Return the words; asked in the guardian's process."""
        start = _NUMBERS.size + 8 + self._memory[_NUMBERS.size] * _SLOT_BYTES
        (n_bytes,) = _LENGTH.unpack_from(self._memory, start)
        if not n_bytes:
            return LastWords()
        start += _LENGTH.size
        return msgspec.json.decode(self._memory[start : start + n_bytes], type=LastWords)

    def _write(self) -> None:
        _NUMBERS.pack_into(
            self._memory, 0, self._phase, self._due_s, self._alive_s, self._seq, self._beat, 0.0
        )


class Reading(msgspec.Struct, frozen=True):
    """A lifeline's numbers.

    Attributes:
        phase: what the daemon does.
        due_s: by when it must be further; `NO_LIMIT` for no limit.
        alive_s: when a Python thread ran last, noted while it starts; 0 before the first.
        seq, beat: of the newest decode.
    """

    phase: Phase
    due_s: float
    alive_s: float
    seq: int
    beat: int

    @property
    def place(self) -> tuple[Phase, float, int]:
        """The daemon's progress."""
        return self.phase, self.due_s, self.seq
