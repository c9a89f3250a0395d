"""`spikeloop watch`: decodes, a line each, as a task program would see them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from streams.errors import UnreachableError
from streams.wire.curve_keys import read_curve_keys
from streams.wire.sockets import DecodeSubscriber

FIRST_WITHIN_S = 5.0
COLOURS = {"ok": "green", "warmup": "yellow", "stale": "red", "paused": "cyan", "fault": "red"}


def watch(endpoint: str, *, keys: Path | None, as_json: bool, count: int | None) -> None:
    """Print decodes until interrupted, or until `count` came.

    For people, events that warn and the shares of spikes that were not taken stand between them.

    Raises:
        UnreachableError: none came within 5 s of the start, or of the last one.
    """
    topics = ("decode",) if as_json else ("decode", "event", "heartbeat")
    subscriber = DecodeSubscriber(
        endpoint, topics, curve_keys=read_curve_keys(keys) if keys else None
    )
    console = Console()
    n = 0
    while count is None or n < count:
        received = subscriber.receive(FIRST_WITHIN_S)
        if received is None:
            raise UnreachableError(
                f"no decode came from {endpoint} within {FIRST_WITHIN_S:g} s; is a daemon running? "
                "`spikeloop status` asks it; another address is named with --decode"
            )
        topic, message = received
        n += topic == "decode"
        if as_json:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()
        elif line := _LINES[topic](message):
            console.print(line, highlight=False)
    subscriber.close()


def _event_line(event: dict[str, Any]) -> str:
    """An event, where it warns or notes something."""
    said = event["detail"].get("warning") or event["detail"].get("note")
    return f"[yellow]{event['event']}: {escape(said)}[/]" if said else ""


def _heartbeat_line(heartbeat: dict[str, Any]) -> str:
    """Tell of a simulated source, and the share of the last second's spikes not taken, if any."""
    simulated = "[yellow]SIMULATED subject, no person[/]" * ("simulated" in heartbeat["flags"])
    return "\n".join(filter(None, (simulated, _shares(heartbeat))))


def _shares(heartbeat: dict[str, Any]) -> str:
    shares = [f"{fate} {share:.1%}" for fate, share in heartbeat["shares"].items() if share > 0]
    return f"[dim]of the spikes of the last second: {', '.join(shares)}[/]" if shares else ""


def _line(decode: dict[str, Any]) -> str:
    validity = decode["validity"]
    values = "  ".join(
        f"{name} {_numbers(value)} {decode['units'][name]}"
        for name, value in decode["value"].items()
    )
    latency_ms = 1e3 * (decode["t_done"] - decode["t_cut"])
    why = f" ({decode['reason']})" if decode["reason"] else ""
    return (
        f"{decode['beat']:>8}  [{COLOURS[validity]}]{validity + why:<8}[/]  {values}  "
        f"[dim]{decode['tokens']} tokens  {latency_ms:.2f} ms[/]"
    )


def _numbers(value: list[float | None] | None) -> str:
    if value is None:
        return "none"
    return " ".join("   none" if v is None else f"{v:+7.2f}" for v in value)


_LINES = {"decode": _line, "event": _event_line, "heartbeat": _heartbeat_line}
