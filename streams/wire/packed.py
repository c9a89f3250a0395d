"""The packed form of `decode`: a fixed layout for clients that would rather not parse JSON.

`docs/wire.md` describes it byte by byte. A head of fixed length, then each output's numbers, then a
text that says what they are: the same from decode to decode until another decoder or backend takes
over, and in each message, so that a late subscriber lacks nothing. Both forms say the same.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from streams.errors import WireError
from streams.messages import Validity
from streams.wire.schema import SCHEMA, Decode, Values, encode

Format = Literal["json", "packed"]
MAGIC, VERSION = b"SLPK", 1
HEAD = struct.Struct("<4s4B2HI2q6d4qIi")
"""Every field lies at a multiple of its own size, as C aligns it."""
LATE = 1
"""Bit of the flags."""
NO_CAP = -1
REASONS = (
    "", "context_short", "no_spikes", "keep_alives_missed", "incomplete", "overdue", "paused",
    "stopping", "non_finite", "unknown_units", "backend_error", "clock_jump", "clock_uncertain",
    "other_clock", "spikes_rejected", "source_changed", "guard", "hung", "memory_damaged",
)  # fmt: skip
"""A reason's code is its place here. New ones are added at the end, none is taken out."""
_CODE_OF = {reason: code for code, reason in enumerate(REASONS)}
_VALIDITIES = tuple(validity.name.lower() for validity in Validity)
_VALIDITY_OF = {name: code for code, name in enumerate(_VALIDITIES)}


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """The text behind the numbers, JSON.

    Attributes:
        run_id, units, decoder_id, checksum, backend, precision: as in `Decode`.
        outputs: how many numbers each output has, in the order in which they are sent.
    """

    run_id: str
    outputs: dict[str, int]
    units: dict[str, str]
    decoder_id: str
    checksum: str
    backend: str
    precision: str


_text_decoder = msgspec.json.Decoder(Text)


class DecodePacker:
    """Packs decodes.

    Args:
        dims: how many numbers each output has, in the bundle's order.
    """

    def __init__(self, dims: Mapping[str, int]) -> None:
        self._dims, self._n = dict(dims), sum(dims.values())
        self._numbers = struct.Struct(f"<{2 * self._n}d")
        self._nulls = {name: (None,) * n for name, n in dims.items()}
        self._said: tuple[Any, ...] = ()
        self._text = b""

    def pack(self, decode: Decode) -> bytes:
        """Return the decode in bytes."""
        said = (
            decode.run_id, decode.units, decode.decoder_id, decode.checksum, decode.backend,
            decode.precision,
        )  # fmt: skip
        if said != self._said:
            self._said, self._text = said, self._write(decode)
        newest, cap = decode.t_newest_spike, decode.token_cap
        head = HEAD.pack(
            MAGIC, VERSION, _VALIDITY_OF[decode.validity], _CODE_OF[decode.reason],
            LATE if decode.late else 0, HEAD.size, self._n, len(self._text),
            decode.seq, decode.beat, decode.t_window, math.nan if newest is None else newest,
            decode.t_cut, decode.t_done, decode.t_sent, decode.lead_s, decode.spikes_in,
            decode.spikes_late, decode.spikes_dropped, decode.beats_skipped, decode.tokens,
            NO_CAP if cap is None else cap,
        )  # fmt: skip
        numbers = [
            math.nan if v is None or not math.isfinite(v) else v
            for values in (decode.value, decode.value_raw)
            for name, nulls in self._nulls.items()
            for v in values[name] or nulls
        ]
        return head + self._numbers.pack(*numbers) + self._text

    def _write(self, decode: Decode) -> bytes:
        text = Text(
            run_id=decode.run_id,
            outputs=self._dims,
            units=decode.units,
            decoder_id=decode.decoder_id,
            checksum=decode.checksum,
            backend=decode.backend,
            precision=decode.precision,
        )
        return msgspec.json.encode(text)


def decode_writer(form: Format, dims: Mapping[str, int]) -> Callable[[Decode], bytes]:
    """Return what writes decodes in this form; `dims`: see `DecodePacker`."""
    return DecodePacker(dims).pack if form == "packed" else encode


class MessageReader:
    """Reads what the daemon publishes, JSON or packed; a text that is known is not parsed again."""

    def __init__(self) -> None:
        self._written, self._text = (
            b"",
            Text(
                run_id="",
                outputs={},
                units={},
                decoder_id="",
                checksum="",
                backend="",
                precision="",
            ),
        )
        self._numbers = struct.Struct("")

    def read(self, payload: bytes) -> dict[str, Any]:
        """Return the message's fields.

        Raises:
            WireError: neither JSON nor packed, or packed in a way that is not known here.
        """
        if payload[:4] == MAGIC:
            return self._unpack(payload)
        try:
            fields: dict[str, Any] = msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
            raise WireError(f"neither JSON nor a packed decode: {err}") from err
        return fields

    def _unpack(self, payload: bytes) -> dict[str, Any]:
        if len(payload) < HEAD.size:
            raise WireError(f"a packed decode of {len(payload)} bytes, cut off in its head")
        (
            _, version, validity, reason, flags, n_head, n, n_text,
            seq, beat, t_window, t_newest, t_cut, t_done, t_sent, lead_s, spikes_in,
            spikes_late, spikes_dropped, beats_skipped, tokens, cap,
        ) = HEAD.unpack_from(payload)  # fmt: skip
        if version != VERSION:
            raise WireError(
                f"a packed decode of version {version}, where {VERSION} is read: this client and "
                "the daemon are of different releases"
            )
        i_text = n_head + 16 * n
        if n_head < HEAD.size or len(payload) != i_text + n_text or validity >= len(_VALIDITIES):
            raise WireError(
                f"a packed decode of {len(payload)} bytes that says it has {n_head} + 2 * 8 * {n} "
                f"+ {n_text}, and validity {validity}: it is damaged"
            )
        text = self._read_text(payload[i_text:], n)
        numbers = self._numbers.unpack_from(payload, n_head)
        value, value_raw = _values(numbers[:n], text.outputs), _values(numbers[n:], text.outputs)
        return {
            "schema": SCHEMA,
            "run_id": text.run_id,
            "seq": seq,
            "beat": beat,
            "t_window": t_window,
            "t_newest_spike": None if math.isnan(t_newest) else t_newest,
            "t_done": t_done,
            "t_sent": t_sent,
            "validity": _VALIDITIES[validity],
            "reason": REASONS[reason] if reason < len(REASONS) else f"code {reason}",
            "late": bool(flags & LATE),
            "value": value,
            "value_raw": value_raw,
            "units": text.units,
            "lead_s": lead_s,
            "decoder_id": text.decoder_id,
            "checksum": text.checksum,
            "tokens": tokens,
            "spikes_in": spikes_in,
            "spikes_late": spikes_late,
            "spikes_dropped": spikes_dropped,
            "beats_skipped": beats_skipped,
            "t_cut": t_cut,
            "backend": text.backend,
            "precision": text.precision,
            "token_cap": None if cap == NO_CAP else cap,
        }

    def _read_text(self, written: bytes, n: int) -> Text:
        if written != self._written:
            try:
                text = _text_decoder.decode(written)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
                raise WireError(f"the text of a packed decode is damaged: {err}") from err
            if sum(text.outputs.values()) != n:
                raise WireError(f"a packed decode of {n} numbers, where {text.outputs} are told")
            self._written, self._text = written, text
            self._numbers = struct.Struct(f"<{2 * n}d")
        return self._text


def _values(numbers: tuple[float, ...], outputs: Mapping[str, int]) -> Values:
    """Return each output's numbers; null where none of them is one."""
    found, i = Values(), 0
    all_told = not math.isnan(sum(numbers))
    for name, n in outputs.items():
        of_output: list[float | None] = [*numbers[i : i + n]]
        found[name] = of_output if all_told else _with_nulls(of_output)
        i += n
    return found


def _with_nulls(of_output: list[float | None]) -> list[float | None] | None:
    told = [None if v is None or math.isnan(v) else v for v in of_output]
    return None if all(v is None for v in told) else told
