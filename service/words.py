"""Plain words for validities and their reasons: what happened, and what to do.

The one table for `status`, `watch`, the demo's screen and the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COLOURS = {"ok": "green", "warmup": "yellow", "stale": "red", "paused": "cyan", "fault": "red"}
VALIDITIES = {
    "ok": "decoding",
    "warmup": "warming up",
    "stale": "out of date",
    "paused": "paused",
    "fault": "fault",
}
FATES = {
    "late": "too late",
    "future": "from the future",
    "duplicate": "twice",
    "unknown_unit": "of unknown units",
    "invalid": "damaged",
    "overflow": "too many",
}
FLAGS = {
    "simulated": "A SIMULATED SUBJECT'S SPIKES: no person is decoded",
    "record": "nothing is recorded now: the event on the failed recording has the reason",
    "memory_check": "the decoder's memory is not checked now",
}
EVENTS = {
    "started": "{decoder_id} by {backend}",
    "backend_chosen": "{backend}, the fastest here",
    "settled": "bins wait for their spikes for {settle_ms:.0f} ms at most",
    "disorder": "{behind} come up to {disorder_ms:.1f} ms after later ones",
    "source_lost": "{why}; it is looked for",
    "source_back": "{stream}",
    "lsl_clock_again": "stamps are of LSL's clock again",
    "join": "{decoder_id} decodes in shadow",
    "dismiss": "the decoder in shadow was taken out",
    "promote": "{decoder_id} is in service",
    "rollback": "{decoder_id} is in service again",
    "rolled_back_out_of_range": "{decoder_id} is in service again: the other left its bounds",
    "out_of_range": "{output} lay beyond its bounds",
    "fell_back": "{decoder_id} goes on by the fallback",
    "reloaded": "{decoder_id} was read anew from the disk",
    "flight": "the last 30 s of beats are in {file}",
    "recording": "to {folder}",
    "recordings_removed": "the oldest, to keep within {limit_gb:g} GB",
    "hung": "{error}",
    "failed": "{error}",
    "stopped": "the run has ended",
    "mark": "{text}",
}
"""What an event says whose detail holds no sentence of its own (`warning` or `note`)."""
LEAST_SILENCE_S = 0.05
"""A shorter silence is not worth a number."""


@dataclass(frozen=True, slots=True)
class Words:
    """A reason in words; `{silence}` stands for the time since the newest spike, if known."""

    what: str
    do: str = ""


REASONS: dict[str, Words] = {
    "": Words("decodes may be trusted"),
    "context_short": Words(
        "the decoder is filling its memory", "wait: it takes as long as its context, about a second"
    ),
    "no_spikes": Words("no spikes{silence}", "is the amplifier's program running?"),
    "keep_alives_missed": Words(
        "the source has said nothing{silence}", "is the amplifier's program running?"
    ),
    "incomplete": Words(
        "spikes of these moments may still be missing",
        "is the source or the network slow? `spikeloop lint` listens to it",
    ),
    "overdue": Words(
        "decodes came too late to be used",
        "does another program take the processor? `spikeloop doctor` looks",
    ),
    "paused": Words("an operator paused decoding", "`spikeloop resume` goes on"),
    "stopping": Words("the daemon is ending, as it was asked to"),
    "non_finite": Words(
        "the decoder gave no number",
        "it begins anew by itself; if this comes back, `spikeloop rollback` or another bundle",
    ),
    "unknown_units": Words(
        "many spikes come from units that the decoder does not know",
        "is it the decoder of this array and day? The event on unknown units names them",
    ),
    "backend_error": Words(
        "the decoder cannot be run",
        "the fallback takes over if there is one; the log has the error",
    ),
    "clock_jump": Words(
        "the sender's clock jumped",
        "it ends by itself once the clock is steady; is a time service setting it?",
    ),
    "clock_uncertain": Words(
        "the sender's clock is not known well enough",
        "is the network to the sender busy or one-sided?",
    ),
    "other_clock": Words(
        "the spikes' stamps are not of LSL's clock",
        "the sender must stamp with LSL's `local_clock`; see `spikeloop lint`",
    ),
    "spikes_rejected": Words(
        "many spikes come late, twice, from the future or damaged",
        "the event on rejected spikes names the likely cause",
    ),
    "source_changed": Words(
        "the source came back with other labels or another format",
        "bring the old source back, or start the daemon anew",
    ),
    "guard": Words("a part of the daemon failed and it has ended", "the log has the error"),
    "memory_damaged": Words(
        "the decoder changed in the daemon's memory",
        "it is read anew from the disk by itself; if this comes back, test the machine's memory",
    ),
    "hung": Words(
        "a decode never ended, and the daemon was ended",
        "the fallback takes over if there is one; else start it anew",
    ),
}


def validity_in_words(validity: str) -> str:
    """Name a validity for people; a later daemon's unknown one stays as it is."""
    return VALIDITIES.get(validity, validity)


def reason_in_words(reason: str, silence_s: float | None = None) -> str:
    """Say what happened and what to do about it.

    Args:
        reason: from the wire; a later daemon's unknown one stays as it is.
        silence_s: seconds since the newest spike; None where unknown.
    """
    return ": ".join(filter(None, reason_and_remedy(reason, silence_s)))


def reason_and_remedy(reason: str, silence_s: float | None = None) -> tuple[str, str]:
    """Say what happened, and what to do about it, "" where there is nothing to do.

    Args:
        reason: as for `reason_in_words`.
        silence_s: likewise.
    """
    words = REASONS.get(reason)
    if words is None:
        return reason, ""
    known = silence_s is not None and silence_s >= LEAST_SILENCE_S
    silence = f" for {seconds_in_words(silence_s)}" if known and silence_s is not None else ""
    return words.what.format(silence=silence), words.do


def event_in_words(event: str, detail: Mapping[str, Any]) -> str:
    """Say what an event of the wire tells beside its name.

    Args:
        event: its name; a later daemon's unknown one is told by its fields.
        detail: of the wire.
    """
    said = detail.get("warning") or detail.get("note")
    if said:
        return str(said)
    try:
        return EVENTS[event].format_map(detail)
    except (KeyError, ValueError, TypeError):
        plain = {key: one for key, one in detail.items() if isinstance(one, str | int | float)}
        plain.pop("checksum", None)
        return ", ".join(f"{key.replace('_', ' ')} {_short(one)}" for key, one in plain.items())


def _short(value: str | float) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def flags_in_words(flags: Sequence[str]) -> str:
    """Say what a heartbeat's flags warn of; a later daemon's unknown ones stay as they are."""
    return "; ".join(FLAGS.get(flag, flag) for flag in flags)


def silence_of(decode: Mapping[str, Any]) -> float | None:
    """Seconds from the newest spike to a decode of the wire; None before the first spike."""
    newest_s = decode["t_newest_spike"]
    return None if newest_s is None else decode["t_sent"] - newest_s


def seconds_in_words(seconds: float) -> str:
    """Write a length of time as people say it: `0.3 s`, `12 s`, `4 min 5 s`, `2 h 3 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, left = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {left} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def share_in_words(share: float) -> str:
    """Write a share that is neither 0 nor 1 so that it does not look like either."""
    if 0.0 < share < 0.001:
        return "under 0.1 %"
    if 0.999 < share < 1.0:
        return "over 99.9 %"
    return f"{share:.1%}".replace(".0%", "%").replace("%", " %")


def fates_in_words(shares: Mapping[str, float]) -> str:
    """Name the fates of spikes that were not used, with their shares; "" where there are none."""
    told = [f"{share_in_words(share)} {FATES[name]}" for name, share in shares.items() if share > 0]
    return ", ".join(told)
