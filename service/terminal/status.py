"""`spikeloop status`: how a run stands, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.words import (
    COLOURS,
    FATES,
    fates_in_words,
    flags_in_words,
    reason_in_words,
    seconds_in_words,
    share_in_words,
    validity_in_words,
)

NAMED_AT_MOST = 5
CUT_BY = {
    "watermark": "as soon as all spikes are known to be there",
    "arrived": "as soon as a later spike has come",
    "settled": "after the settle time",
}
AT_REST = {"gain": 1.0, "smoothing": 0.0, "speed_power": 1.0, "max_speed": 0.0}


def print_status(status: Mapping[str, Any]) -> None:
    """Print what the command `status` answered.

    Args:
        status: fields of docs/wire.md, *Commands*.
    """
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows(status):
        table.add_row(name, text)
    Console().print(table)


def rows(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield names and texts, with rich's markup."""
    validity, reason = status["validity"], status["reason"]
    yield "now", f"[bold {COLOURS.get(validity, 'red')}]{escape(validity_in_words(validity))}[/]"
    if reason:
        yield "", escape(reason_in_words(reason))
    yield "decoder", _decoder(status)
    yield from _others(status)
    yield "source", _source(status)
    yield "in service", _service(status)
    yield "bins", _bins(status)
    yield "a decode takes", _times(status["decode_ms"])
    yield "spikes", _spikes(status)
    if lost := status["spikes_lost"]:
        yield "", f"[yellow]{lost:,} samples of the source never came[/]"
    yield from _units(status["health"])
    yield from _tuning(status.get("agreement", {}))
    yield "sender's clock", _clock(status)
    if shaped := shaping_in_words(status["shaping"]):
        yield "shaping", escape(shaped)
    if status["flags"]:
        yield "beware", f"[yellow]{escape(flags_in_words(status['flags']))}[/]"
    yield "decodes leave", escape(status["decode_endpoint"])


def _decoder(status: Mapping[str, Any]) -> str:
    ahead_s = status["lead_s"]
    ahead = f", {1e3 * ahead_s:g} ms ahead" if ahead_s else ""
    name, checksum = escape(status["decoder_id"]), status["checksum"][:8]
    return f"{name} [dim]{checksum}[/] by {escape(status['library'])}{ahead}"


def _others(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if status["shadow"]:
        yield "on trial", f"{status['shadow'][:8]}; `spikeloop promote` puts it into service"
    if status["standby"]:
        yield "stands by", f"{status['standby'][:8]}; `spikeloop rollback` puts it into service"
    refused = status["refused_backends"]
    for name, why in refused.items():
        yield "not used", f"[yellow]{escape(name)}[/]: {escape(why)}"
    if status["spare_backend"]:
        yield "if it fails", escape(status["spare_backend"])


def _source(status: Mapping[str, Any]) -> str:
    known, seen = status["units_known"], status["units_seen"]
    strangers = "" if known == seen else f"; the decoder knows {known} of them"
    return f"{escape(status['source'])}, {seen} units{strangers}"


def _service(status: Mapping[str, Any]) -> str:
    run_s = status["beat"] * status["hop_ms"] * 1e-3
    late, skipped = status["beats_late"], status["beats_skipped"]
    missed = f"{late:,} late, {skipped:,} skipped"
    colour = "yellow" if late or skipped else "green"
    return f"for {seconds_in_words(run_s)}: {status['seq']:,} decodes, [{colour}]{missed}[/]"


def _bins(status: Mapping[str, Any]) -> str:
    every = f"every {status['hop_ms']:g} ms"
    if status["settling"]:
        return f"{every}; how long spikes take to come is being measured"
    shares = status["cut_shares"]
    most = max(shares, key=shares.__getitem__) if shares else ""
    rule = f", {CUT_BY[most]}" if most in CUT_BY and shares[most] else ""
    return f"{every}{rule}; they wait for {status['settle_ms']:.1f} ms at most"


def _times(decode_ms: Mapping[str, float]) -> str:
    if not decode_ms:
        return "not known yet"
    return f"{decode_ms['p50']:.2f} ms; 99 of 100 at most {decode_ms['p99']:.2f} ms"


def _spikes(status: Mapping[str, Any]) -> str:
    total, fates = status["spikes_in"], status["fates"]
    if not total:
        return "none yet"
    used = share_in_words(fates["used"] / total)
    lost = fates_in_words({fate: fates.get(fate, 0) / total for fate in FATES})
    ignored = status["spikes_ignored"]
    beside = f"; {ignored:,} of units left out" if ignored else ""
    return f"{total:,}: {used} used{f', {lost}' if lost else ''}{beside}"


def _units(health: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not health["judged"]:
        return
    dead, changed = health["dead"], health["changed"]
    if not dead and not changed:
        yield "units", f"all {health['judged']} that can be judged fire as they did"
        return
    parts = [_named(dead, "silent"), _named(changed, "fire otherwise")]
    yield "units", "; ".join(part for part in parts if part)
    if health["recalibration_advised"]:
        yield "", "[yellow]calibrate again: many units are not as they were[/]"


def _tuning(agreement: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    lost = agreement.get("r2_lost")
    if lost is None:
        return
    yield (
        "tuning",
        f"{agreement['share']:.0%} of the signal is as at calibration; costs {lost:.2f} R2",
    )
    if agreement["advised"]:
        yield "", f"[yellow]calibrate again: it would gain about {lost:.2f} of R2[/]"


def _named(keys: Sequence[str], what: str) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - NAMED_AT_MOST} more" if len(keys) > NAMED_AT_MOST else ""
    return f"{len(keys)} {what} ({escape(', '.join(keys[:NAMED_AT_MOST]))}{more})"


def _clock(status: Mapping[str, Any]) -> str:
    offset_ms, unsure_ms = (1e3 * status[f"clock_{x}_s"] for x in ("offset", "uncertainty"))
    if not offset_ms:
        return "is this machine's"
    return f"{offset_ms:+.2f} ms away, known to {unsure_ms:.2f} ms"


def shaping_in_words(shaping: Mapping[str, Any]) -> str:
    """Name what shaping changes; "" where it leaves values as they are.

    Args:
        shaping: settings by name, as `shape` answers them.
    """
    parts = []
    for name, value in shaping.items():
        without_power = name == "speed_ref" and shaping["speed_power"] == 1.0
        if value in (None, {}, []) or AT_REST.get(name) == value or without_power:
            continue
        parts.append(f"{name.replace('_', ' ')} {_plain(value)}")
    return ", ".join(parts)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(_plain(one) for one in value)
    return f"{value:g}" if isinstance(value, float | int) else str(value)
