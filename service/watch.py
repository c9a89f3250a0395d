"""`spikeloop watch`, and the small commands that talk to a running daemon."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from service.errors import ConfigError, ExitCode
from streams.clock import MonotonicClock
from streams.sockets import DecodeSubscriber, UnreachableError, request
from streams.wire import Command, decode_reply, encode

FIRST_WITHIN_S = 5.0
_COLOURS = {"ok": "green", "warmup": "yellow", "stale": "red", "paused": "cyan", "fault": "red"}


def watch(endpoint: str, *, as_json: bool, count: int | None) -> None:
    """Print decodes until interrupted, or until `count` came.

    Raises:
        UnreachableError: none came within 5 s of the start, or of the last one.
    """
    subscriber = DecodeSubscriber(endpoint)
    console = Console()
    n = 0
    while count is None or n < count:
        received = subscriber.receive(FIRST_WITHIN_S)
        if received is None:
            raise UnreachableError(
                f"no decode came from {endpoint} within {FIRST_WITHIN_S:g} s; is a daemon running? "
                "`spikeloop status` asks it; another address is named with --decode"
            )
        n += 1
        if as_json:
            sys.stdout.write(json.dumps(received[1]) + "\n")
            sys.stdout.flush()
        else:
            console.print(_line(received[1]), highlight=False)
    subscriber.close()


def _line(decode: dict[str, Any]) -> str:
    validity = decode["validity"]
    values = "  ".join(
        f"{name} {_numbers(value)} {decode['units'][name]}"
        for name, value in decode["value"].items()
    )
    latency_ms = 1e3 * (decode["t_done"] - decode["t_cut"])
    why = f" ({decode['reason']})" if decode["reason"] else ""
    return (
        f"{decode['beat']:>8}  [{_COLOURS[validity]}]{validity + why:<8}[/]  {values}  "
        f"[dim]{decode['tokens']} tokens  {latency_ms:.2f} ms[/]"
    )


def _numbers(value: list[float | None] | None) -> str:
    if value is None:
        return "none"
    return " ".join("   none" if v is None else f"{v:+7.2f}" for v in value)


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """`["gain=1.2", "bias=[0.1,0]"]` as arguments of a command.

    Raises:
        ConfigError: one is not `NAME=VALUE` with a JSON value.
    """
    found = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError as err:
            raise ConfigError(
                f"{setting!r} is not NAME=VALUE with a number, list or table; "
                "for example gain=1.2 or bias=[0.1,0]"
            ) from err
    return found


def command(
    name: str, endpoint: str, *, as_json: bool, arguments: dict[str, Any] | None = None
) -> int:
    """Send a command to the daemon and print its answer; the exit code.

    Raises:
        UnreachableError: no daemon answered.
    """
    reply = decode_reply(
        request(endpoint, encode(Command(command=name, arguments=arguments or {})))
    )
    if as_json:
        sys.stdout.write(encode(reply).decode() + "\n")
    elif not reply.ok:
        sys.stderr.write(f"spikeloop: {reply.error}\n")
    else:
        _print(name, reply.result)
    return ExitCode.DONE if reply.ok else ExitCode.USAGE


def swap(path: Path, endpoint: str, *, shadow_s: float, hold: bool, as_json: bool) -> int:
    """Deploy a bundle on the daemon's host, telling each stage as it is reached; the exit code.

    Raises:
        UnreachableError: no daemon answered.
    """
    arguments = {"bundle": str(path.resolve()), "shadow_s": shadow_s, "hold": hold}
    reply = decode_reply(request(endpoint, encode(Command(command="swap", arguments=arguments))))
    if not reply.ok:
        sys.stderr.write(f"spikeloop: {reply.error}\n")
        return ExitCode.BUNDLE
    clock, n_told = MonotonicClock(), 0
    while True:
        result = decode_reply(request(endpoint, encode(Command(command="deployment")))).result
        for stage in result["stages"][n_told:]:
            sys.stdout.write(json.dumps(stage) + "\n" if as_json else f"{_stage(stage)}\n")
            sys.stdout.flush()
        n_told = len(result["stages"])
        if result["over"]:
            break
        clock.sleep_until(clock.now() + 0.05)
    if result["refused"]:
        sys.stderr.write(f"spikeloop: refused: {result['refused']}\n")
    return ExitCode.BUNDLE if result["refused"] else ExitCode.DONE


def _stage(stage: dict[str, Any]) -> str:
    detail = "  ".join(f"{key} {value}" for key, value in stage.items() if key != "stage")
    return f"{stage['stage']:<9} {detail}".rstrip()


def _print(name: str, result: dict[str, Any]) -> None:
    table = Table(title=f"spikeloop {name}", title_justify="left", show_header=False)
    for key, value in result.items():
        if isinstance(value, dict):
            text = "  ".join(
                f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in value.items()
            )
        else:
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
        table.add_row(key, text)
    Console().print(table)
