"""Read a spikeloop decode, be it JSON or packed (`[output] format`). Needs nothing but Python."""

import json
import math
import struct

HEAD = struct.Struct("<4s4B2HI2q6d4qIi")
NAMES = (
    "seq", "beat", "t_window", "t_newest_spike", "t_cut", "t_done", "t_sent", "lead_s",
    "spikes_in", "spikes_late", "spikes_dropped", "beats_skipped", "tokens", "token_cap",
)  # fmt: skip
VALIDITIES = ("ok", "warmup", "stale", "paused", "fault")
REASONS = (
    "", "context_short", "no_spikes", "keep_alives_missed", "incomplete", "overdue", "paused",
    "stopping", "non_finite", "unknown_units", "backend_error", "clock_jump", "clock_uncertain",
    "other_clock", "spikes_rejected", "source_changed", "guard", "hung", "memory_damaged",
)  # fmt: skip


def read_decode(message: bytes) -> dict:
    """Return a decode's fields; None where JSON has null."""
    if message[:4] != b"SLPK":
        return json.loads(message)
    _, version, validity, reason, flags, n_head, n, n_text, *values = HEAD.unpack_from(message)
    if version != 1 or len(message) != n_head + 16 * n + n_text:
        raise ValueError(f"a packed decode of version {version} that this program cannot read")
    decode = json.loads(message[-n_text:])  # the same until another decoder or backend takes over
    decode |= {"late": bool(flags & 1), "validity": VALIDITIES[validity]}
    decode["reason"] = REASONS[reason] if reason < len(REASONS) else f"code {reason}"
    decode |= dict(zip(NAMES, values, strict=True))
    if math.isnan(decode["t_newest_spike"]):
        decode["t_newest_spike"] = None
    if decode["token_cap"] < 0:
        decode["token_cap"] = None
    numbers = iter(struct.unpack_from(f"<{2 * n}d", message, n_head))
    for field in ("value", "value_raw"):
        decode[field] = {}
        for name, k in decode["outputs"].items():
            told = [None if math.isnan(v) else v for v in (next(numbers) for _ in range(k))]
            decode[field][name] = None if told == [None] * k else told
    return decode
