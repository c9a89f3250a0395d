"""`spikeloop watch`: decodes, as a task program would see them.

In a terminal a few lines that are drawn anew, else a line for each decode.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape

from service.terminal.live_lines import LiveLines
from service.words import COLOURS, fates_in_words, flags_in_words, reason_in_words, silence_of
from streams.clock import MonotonicClock
from streams.errors import UnreachableError
from streams.wire.curve_keys import read_curve_keys
from streams.wire.endpoints import parse_endpoint
from streams.wire.sockets import DecodeSubscriber

FIRST_WITHIN_S = 5.0
DRAWN_EVERY_S = 0.1
TOPICS = ("decode", "event", "heartbeat")


def watch(endpoint: str, *, keys: Path | None, as_json: bool, count: int | None) -> None:
    """Show decodes until interrupted, or until `count` came.

    Args:
        endpoint: the daemon's `[output] decode`.
        keys: file of the client's keys.
        as_json: print messages as they are, one a line.
        count: decodes after which it ends.

    Raises:
        UnreachableError: none came within 5 s of the start, or of the last one.
    """
    topics = ("decode",) if as_json else TOPICS
    subscriber = DecodeSubscriber(
        endpoint, topics, curve_keys=read_curve_keys(keys) if keys else None
    )
    console = Console()
    try:
        if as_json or not console.is_terminal:
            _print_lines(subscriber, endpoint, console, as_json=as_json, count=count)
        else:
            _draw(subscriber, endpoint, console, count)
    finally:
        subscriber.close()


def _print_lines(
    subscriber: DecodeSubscriber,
    endpoint: str,
    console: Console,
    *,
    as_json: bool,
    count: int | None,
) -> None:
    """Print a line for each decode; for people, reasons and warnings stand between them."""
    n, reason = 0, ""
    while count is None or n < count:
        received = subscriber.receive(FIRST_WITHIN_S)
        if received is None:
            raise _silent(endpoint)
        topic, message = received
        n += topic == "decode"
        if as_json:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()
            continue
        if topic == "decode" and message["reason"] != reason:
            reason = message["reason"]
            _say(console, _reason_line(message))
        _say(console, _LINES[topic](message))


def _say(console: Console, line: str) -> None:
    """Print a line as long as it is: whoever reads a file or a pipe breaks it himself."""
    if line:
        console.print(line, highlight=False, soft_wrap=True)


def _draw(subscriber: DecodeSubscriber, endpoint: str, console: Console, count: int | None) -> None:
    """Draw the newest decode and what came of late, ten times a second."""
    clock = MonotonicClock()
    # The daemon's clock is this machine's only where it runs here.
    lines = LiveLines(endpoint, clock.now(), same_clock=parse_endpoint(endpoint).is_loopback)
    t_heard_s = t_draw_s = clock.now()
    with Live(console=console, auto_refresh=False) as live:
        while count is None or lines.n_decodes < count:
            received = subscriber.receive(max(0.0, t_draw_s - clock.now()))
            now_s = clock.now()
            if received is not None:
                lines.take(*received, now_s)
                t_heard_s = now_s if received[0] == "decode" else t_heard_s
            elif now_s - t_heard_s > FIRST_WITHIN_S:
                raise _silent(endpoint)
            if now_s >= t_draw_s:
                t_draw_s = now_s + DRAWN_EVERY_S
                live.update(lines.drawn(now_s), refresh=True)
        live.update(lines.drawn(clock.now()), refresh=True)


def _silent(endpoint: str) -> UnreachableError:
    return UnreachableError(
        f"no decode came from {endpoint} within {FIRST_WITHIN_S:g} s; is a daemon running? "
        "`spikeloop status` asks it; another address is named with --decode"
    )


def _event_line(event: dict[str, Any]) -> str:
    """An event, where it warns or notes something."""
    said = event["detail"].get("warning") or event["detail"].get("note")
    return f"[yellow]{event['event'].replace('_', ' ')}: {escape(said)}[/]" if said else ""


def _heartbeat_line(heartbeat: dict[str, Any]) -> str:
    """Tell of flags, and the share of the last second's spikes that was not taken, if any."""
    told, flags = fates_in_words(heartbeat["shares"]), flags_in_words(heartbeat["flags"])
    beware = f"[yellow]{escape(flags)}[/]" if flags else ""
    shares = f"[dim]of the spikes of the last second: {told}[/]" if told else ""
    return "\n".join(filter(None, (beware, shares)))


def _reason_line(decode: dict[str, Any]) -> str:
    """Say from here on what is wrong, or that nothing is any more."""
    return f"[yellow]{escape(reason_in_words(decode['reason'], silence_of(decode)))}[/]"


def _line(decode: dict[str, Any]) -> str:
    validity = decode["validity"]
    values = "  ".join(
        f"{name} {_numbers(value)} {decode['units'][name]}"
        for name, value in decode["value"].items()
    )
    latency_ms = 1e3 * (decode["t_done"] - decode["t_cut"])
    return (
        f"{decode['beat']:>8}  [{COLOURS.get(validity, 'red')}]{validity:<8}[/]  {values}  "
        f"[dim]{decode['tokens']} tokens  {latency_ms:.2f} ms[/]"
    )


def _numbers(value: list[float | None] | None) -> str:
    if value is None:
        return "none"
    return " ".join("   none" if v is None else f"{v:+7.2f}" for v in value)


_LINES = {"decode": _line, "event": _event_line, "heartbeat": _heartbeat_line}
