"""The wire format, schema 1: what leaves on ZeroMQ and what the control socket takes.

Each class is one JSON object; `docs/wire.md` describes every field, and golden messages hold both.
JSON has no NaN: a value that is not finite is written as null.
"""

from __future__ import annotations

from typing import Any

import msgspec

from streams.errors import WireError

SCHEMA = 1


Values = dict[str, list[float | None] | None]


class Decode(msgspec.Struct, frozen=True, kw_only=True):
    """One beat's estimate (topic `decode`; a decoder on trial: `shadow`)."""

    schema: int = SCHEMA
    run_id: str
    seq: int
    beat: int
    t_window: float
    t_newest_spike: float | None
    t_done: float
    t_sent: float
    validity: str
    reason: str
    late: bool
    value: Values
    value_raw: Values
    units: dict[str, str]
    lead_s: float
    decoder_id: str
    checksum: str
    tokens: int
    spikes_in: int
    spikes_late: int
    spikes_dropped: int
    beats_skipped: int
    t_cut: float
    backend: str
    precision: str
    token_cap: int | None


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """Once a second, whatever else happens (topic `heartbeat`)."""

    schema: int = SCHEMA
    run_id: str
    t_sent: float
    beat: int
    seq: int
    validity: str
    reason: str
    settle_ms: float
    settling: bool
    settled_from_beat: int
    delay_ms: float | None
    disorder_ms: float
    cut_shares: dict[str, float]
    hop_ms: float
    decoder_id: str
    checksum: str
    backend: str
    precision: str
    source: str
    fates: dict[str, int]
    spikes_in: int
    spikes_pending: int
    spikes_lost: int
    spikes_ignored: int
    shares: dict[str, float]
    beats_late: int
    beats_skipped: int
    clock_offset_s: float
    clock_uncertainty_s: float
    decode_ms: dict[str, float]
    flags: list[str]
    memory_mb: float | None = None
    recorded: bool | None = None
    r2_lost: float | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened that a record of the session should hold (topic `event`)."""

    schema: int = SCHEMA
    run_id: str
    t_sent: float
    event: str
    detail: dict[str, Any]


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Times within one beat (topic `timing`), sent once the beat is over."""

    schema: int = SCHEMA
    run_id: str
    seq: int
    beat: int
    t_window: float
    lsl_age_s: float | None
    t_arrival: float | None
    t_due: float
    cut_by: str
    t_cut: float
    t_tokens: float
    t_done: float
    run_s: float
    was_ahead: bool
    t_sent: float
    t_out: float
    t_end: float


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request to the control socket."""

    schema: int = SCHEMA
    command: str
    arguments: dict[str, Any] = {}


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: `ok` with a result, or an error that says what to do."""

    schema: int = SCHEMA
    ok: bool
    error: str = ""
    result: dict[str, Any] = {}


_encoder = msgspec.json.Encoder()
_command_decoder = msgspec.json.Decoder(Command)
_reply_decoder = msgspec.json.Decoder(Reply)
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def encode(message: Decode | Heartbeat | Event | Timing | Command | Reply) -> bytes:
    """The message as JSON."""
    try:
        return _encoder.encode(message)
    except UnicodeEncodeError:
        return _encoder.encode(as_utf8(msgspec.to_builtins(message)))


def as_utf8(held: Any) -> Any:
    """Escape what is no UTF-8 in the texts of lists and dicts, as in names of files it may be."""
    if isinstance(held, str):
        return held.encode(errors="backslashreplace").decode()
    if isinstance(held, dict):
        return {as_utf8(name): as_utf8(value) for name, value in held.items()}
    return [as_utf8(one) for one in held] if isinstance(held, list | tuple) else held


def decode_command(payload: bytes) -> Command:
    """Read a command.

    Raises:
        WireError: not JSON, an unknown field, a wrong type or another schema; the text says which.
    """
    try:
        command = _command_decoder.decode(payload)
    except _MALFORMED as err:
        raise WireError(
            f'not a command: {err}. One looks like {{"schema":1,"command":"status"}}'
        ) from err
    if command.schema != SCHEMA:
        raise WireError(f"schema {command.schema} is not spoken here; this daemon speaks {SCHEMA}")
    return command


def decode_reply(payload: bytes) -> Reply:
    """Read a reply.

    Raises:
        WireError: not a reply in this schema.
    """
    try:
        return _reply_decoder.decode(payload)
    except _MALFORMED as err:
        raise WireError(f"not a reply of spikeloop: {err}") from err
