"""`spikeloop watch`: decodes, a line each, as a task program would see them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from streams.keys import read_keys
from streams.sockets import DecodeSubscriber, UnreachableError

FIRST_WITHIN_S = 5.0
_COLOURS = {"ok": "green", "warmup": "yellow", "stale": "red", "paused": "cyan", "fault": "red"}


def watch(endpoint: str, *, keys: Path | None, as_json: bool, count: int | None) -> None:
    """Print decodes until interrupted, or until `count` came.

    Raises:
        UnreachableError: none came within 5 s of the start, or of the last one.
    """
    subscriber = DecodeSubscriber(endpoint, keys=read_keys(keys) if keys else None)
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
