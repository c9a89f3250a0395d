"""The records of a run, one ordered log: its decodes, and everything that they depend on.

Arrays are raw little-endian bytes. A record is MessagePack: an array that begins with its kind.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from service.loop.intake.arrivals import Arrival
from streams.messages import Int32s, Int64s, Repeats, SpikeBatch
from streams.wire.schema import as_utf8


class Header(msgspec.Struct, array_like=True, tag="header", frozen=True):
    """The run: a part's first record.

    Attributes:
        facts: by name; docs/recording.md lists them.
        keys: of the source's units so far.
        decoders: those opened so far, by number: what `Opened` says of each.
    """

    facts: dict[str, Any]
    keys: list[str]
    decoders: dict[int, dict[str, Any]]


class Keys(msgspec.Struct, array_like=True, tag="keys", frozen=True):
    """Units that the source showed since: their keys follow those known so far."""

    keys: list[str]


class Opened(msgspec.Struct, array_like=True, tag="opened", frozen=True):
    """A decoder was opened: its memory is zero; numbers are not used again."""

    number: int
    facts: dict[str, Any]


class Arrived(msgspec.Struct, array_like=True, tag="arrived", frozen=True):
    """An arrival was admitted; fields as in `Arrival`.

    Attributes:
        first_us: the first spike's stamp; `offsets` count from it.
        offsets: (n,) int32, or int64 where that is too narrow, microseconds.
        unit: (n,) int32.
        count: (n,) int32; empty where all are 1.
    """

    t_s: float
    t_read_s: float
    first_us: int
    offsets: bytes
    unit: bytes
    count: bytes
    latest_us: int
    newest_keep_alive_us: int | None
    invalid_us: bytes
    n_duplicate: int
    n_lost: int
    n_ignored: int
    repeats: Repeats
    bins_us: bytes | None
    phase_s: float
    begins_anew: bool

    def batch(self, n_units: int) -> SpikeBatch:
        """Return the spikes.

        Raises:
            ValueError: its arrays are not of one length, or a unit is not one of `n_units`.
        """
        unit = np.frombuffer(self.unit, np.int32)
        width = len(self.offsets) // max(1, len(unit))
        offsets = np.frombuffer(self.offsets, np.int64 if width == 8 else np.int32)
        count = np.frombuffer(self.count, np.int32) if self.count else np.ones(len(unit), np.int32)
        if not len(unit) == len(offsets) == len(count):
            raise ValueError(f"{len(unit)} units, {len(offsets)} stamps, {len(count)} counts")
        # Compiled code would read beyond its tables.
        if len(unit) and not 0 <= int(unit.min()) <= int(unit.max()) < n_units:
            raise ValueError(f"a spike of a unit that is none of {n_units}")
        return SpikeBatch(self.first_us + offsets.astype(np.int64), unit, count)


class Known(msgspec.Struct, array_like=True, tag="known", frozen=True):
    """From here on spikes of these units are admitted: (n,) bool as bytes."""

    known: bytes

    def units(self) -> np.ndarray:
        """Return (n_source_units,) bool."""
        units: np.ndarray = np.frombuffer(self.known, np.uint8) != 0
        return units


class Cut(msgspec.Struct, array_like=True, tag="cut", frozen=True):
    """Beat `k`'s bin, which ends at `end_us`, was cut; "" as the rule of one not published."""

    k: int
    end_us: int
    rule: str


class Closed(msgspec.Struct, array_like=True, tag="closed", frozen=True):
    """Bins up to this end were closed, uncut ones too."""

    end_us: int


class Ran(msgspec.Struct, array_like=True, tag="ran", frozen=True):
    """Decoder `number` ran beat `k`'s bin; its memory went on by it.

    Attributes:
        token_cap: in force for the bin.
        n_tokens: tokens that it ran.
        tokens_crc: CRC-32 of rows, times and counts.
    """

    number: int
    k: int
    lead_s: float
    token_cap: int | None
    n_tokens: int
    tokens_crc: int


class Failed(msgspec.Struct, array_like=True, tag="failed", frozen=True):
    """Decoder `number`'s backend failed on beat `k`'s bin."""

    number: int
    k: int
    error: str


class Forgot(msgspec.Struct, array_like=True, tag="forgot", frozen=True):
    """Decoder `number`'s memory begins anew after beat `k`."""

    number: int
    k: int


class Commanded(msgspec.Struct, array_like=True, tag="commanded", frozen=True):
    """The loop carried out a command, here and not when it was asked."""

    change: str
    detail: dict[str, Any]


class Said(msgspec.Struct, array_like=True, tag="said", frozen=True):
    """A decode left.

    Attributes:
        topic: `decode` or `shadow`.
        number: of the decoder.
        decode: the message in JSON, whatever `[output] format` is.
        was_shaped: the shaper made its value, even if it was `overdue` when it left.
        then_safe: it was overdue on the LSL outlet: smoothing began anew after it.
    """

    topic: str
    number: int
    decode: bytes
    was_shaped: bool
    then_safe: bool


class Told(msgspec.Struct, array_like=True, tag="told", frozen=True):
    """Another message left: `event` or `heartbeat`, in JSON."""

    topic: str
    message: bytes


class Memory(msgspec.Struct, array_like=True, frozen=True):
    """One decoder at a checkpoint.

    Attributes:
        last_k, k_reset: as in `Decoder`.
        memory: by name, shape and float32 numbers; None where its backend does not tell.
    """

    number: int
    last_k: int
    k_reset: int
    memory: dict[str, tuple[list[int], bytes]] | None


class Checkpoint(msgspec.Struct, array_like=True, tag="checkpoint", frozen=True):
    """Everything that decodes from here on depend on: a reader may begin here.

    Attributes:
        k: the newest beat.
        n_lost: records lost before it.
        late_until_us, newest_us: of the ring.
        t_us, unit, count: spikes that a bin to come may hold.
        known: as in `Known`.
        decoders: that run.
        shaping: the settings.
        smooth, last_ok: the shaper's, by output.
    """

    k: int
    n_lost: int
    late_until_us: int
    newest_us: int
    t_us: bytes
    unit: bytes
    count: bytes
    known: bytes
    decoders: list[Memory]
    shaping: dict[str, Any]
    smooth: dict[str, list[float]]
    last_ok: dict[str, tuple[float, list[float | None]]]

    def units(self) -> np.ndarray:
        """Return `known`, (n_source_units,) bool."""
        units: np.ndarray = np.frombuffer(self.known, np.uint8) != 0
        return units

    def batch(self) -> SpikeBatch:
        """Return the ring's spikes.

        Raises:
            ValueError: its arrays are not of one length, or a unit is none of the source's.
        """
        t_us = np.frombuffer(self.t_us, np.int64)
        unit, count = np.frombuffer(self.unit, np.int32), np.frombuffer(self.count, np.int32)
        if not len(t_us) == len(unit) == len(count):
            raise ValueError(f"{len(unit)} units, {len(t_us)} stamps, {len(count)} counts")
        n_units = len(self.known)
        if len(unit) and not 0 <= int(unit.min()) <= int(unit.max()) < n_units:
            raise ValueError(f"a spike of a unit that is none of {n_units}")
        return SpikeBatch(t_us, unit, count)


Record = (
    Header | Keys | Opened | Arrived | Known | Cut | Closed | Ran | Failed | Forgot | Commanded
    | Said | Told | Checkpoint
)  # fmt: skip
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)
_NARROW = 2**31 - 1


def encode_record(one: Record) -> bytes:
    """Return a record's bytes."""
    try:
        return _encoder.encode(one)
    except UnicodeEncodeError:
        return _encoder.encode(as_utf8(msgspec.to_builtins(one, builtin_types=(bytes,))))


def decode_record(held: bytes) -> Record:
    """Read a record.

    Raises:
        msgspec.DecodeError: it is none.
    """
    try:
        found: Record = _decoder.decode(held)
    except (UnicodeDecodeError, RecursionError) as err:
        raise msgspec.DecodeError(str(err)) from err
    return found


def arrived(arrival: Arrival) -> Arrived:
    """Return the record of an arrival."""
    batch, n = arrival.batch, len(arrival.batch)
    first_us = int(batch.t_us[0]) if n else 0
    offsets: Int64s | Int32s = batch.t_us - first_us
    if n and max(int(offsets.max()), -int(offsets.min())) <= _NARROW:
        offsets = offsets.astype(np.int32)
    counts = not n or bool((batch.count == 1).all())
    return Arrived(
        t_s=arrival.t_s,
        t_read_s=arrival.t_read_s,
        first_us=first_us,
        offsets=offsets.tobytes(),
        unit=batch.unit.astype(np.int32, copy=False).tobytes(),
        count=b"" if counts else batch.count.astype(np.int32, copy=False).tobytes(),
        latest_us=arrival.latest_us,
        newest_keep_alive_us=arrival.newest_keep_alive_us,
        invalid_us=arrival.invalid_us.tobytes(),
        n_duplicate=arrival.n_duplicate,
        n_lost=arrival.n_lost,
        n_ignored=arrival.n_ignored,
        repeats=arrival.repeats,
        bins_us=None if arrival.bins_us is None else arrival.bins_us.tobytes(),
        phase_s=arrival.phase_s,
        begins_anew=arrival.begins_anew,
    )
