"""Commands to a running daemon, and bundles put into its service, from the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from export.sending import start_deployment
from service.errors import ConfigError, ExitCode
from service.terminal.status import print_status, shaping_in_words
from streams.clock import MonotonicClock
from streams.wire.client import DaemonClient
from streams.wire.schema import Reply, encode

POLL_S = 0.05
Tell = Callable[[dict[str, Any]], None]


def swap(
    client: DaemonClient,
    path: Path,
    *,
    send: bool,
    shadow_s: float,
    hold: bool,
    tell: Tell,
    tables: bool = False,
) -> str:
    """Deploy a bundle, telling each stage as it is reached; why it was refused, "" if it was not.

    Args:
        client: the daemon's.
        path: the bundle's directory.
        send: send the files, as the daemon runs on another machine.
        shadow_s: how long it decodes in shadow first.
        hold: whether it stays there until it is promoted.
        tell: is told each stage.
        tables: exchange its tables alone, at once.
    """
    start_deployment(client.ask, path, send=send, shadow_s=shadow_s, hold=hold, tables=tables)
    clock, n_told = MonotonicClock(), 0
    while True:
        result = client.ask("deployment")
        for stage in result["stages"][n_told:]:
            tell(stage)
        n_told = len(result["stages"])
        if result["over"]:
            reached = result["stages"][-1]["stage"] if result["stages"] else "nothing"
            if not result["refused"] and reached != ("shadow" if hold else "active"):
                return f"it ended at the stage {reached!r}, and nobody knows why"
            return str(result["refused"])
        clock.sleep_until(clock.now() + POLL_S)


def deploy(
    client: DaemonClient,
    path: Path,
    *,
    send: bool,
    shadow_s: float,
    hold: bool,
    as_json: bool,
    tables: bool = False,
) -> int:
    """Deploy a bundle, telling each stage as it is reached; the exit code.

    Raises:
        ConfigError: there is no bundle there.
        DeclinedError, UnreachableError: see `DaemonClient.ask`.
    """
    if not (path / "manifest.json").is_file():
        raise ConfigError(f"no bundle at {path}; name the directory that `spikeloop export` wrote")

    def tell(stage: dict[str, Any]) -> None:
        detail = "  ".join(f"{key} {value}" for key, value in stage.items() if key != "stage")
        line = json.dumps(stage) if as_json else f"{stage['stage']:<9} {detail}".rstrip()
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    refused = swap(client, path, send=send, shadow_s=shadow_s, hold=hold, tell=tell, tables=tables)
    if refused:
        sys.stderr.write(f"spikeloop: refused: {refused}\n")
    return ExitCode.BUNDLE if refused else ExitCode.DONE


def command(client: DaemonClient, name: str, arguments: dict[str, Any], *, as_json: bool) -> int:
    """Send a command and print its answer; the exit code.

    Raises:
        UnreachableError: no daemon answered.
    """
    return answer(name, client.reply(name, **arguments), as_json=as_json)


def answer(name: str, reply: Reply, *, as_json: bool) -> int:
    """Print the answer to a command; the exit code."""
    if as_json:
        sys.stdout.write(encode(reply).decode() + "\n")
    elif not reply.ok:
        sys.stderr.write(f"spikeloop: {reply.error}\n")
    elif name == "status":
        print_status(reply.result)
    else:
        Console().print(_sentence(name, reply.result), highlight=False, markup=False)
    return ExitCode.DONE if reply.ok else ExitCode.USAGE


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Read `["gain=1.2", "bias=[0.1,0]"]` as a command's arguments.

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


SENTENCES = {
    "pause": "paused: decodes carry the safe value until `spikeloop resume`",
    "resume": "resumed: decodes act again",
    "stop": "the daemon is ending; its last decode carries the safe value",
    "dismiss": "the decoder in shadow is taken out",
    "promote": "the decoder that was in shadow, {checksum}, is in service; "
    "`spikeloop rollback` puts back the one before",
    "rollback": "the decoder before, {checksum}, is in service again",
}


def _sentence(name: str, result: dict[str, Any]) -> str:
    """Say what a command did."""
    if name == "shape":
        ahead_ms = 1e3 * result["lead_s"]
        shaped = shaping_in_words({key: v for key, v in result.items() if key != "lead_s"})
        return f"from the next beat on: {shaped or 'no shaping'}; {ahead_ms:g} ms ahead"
    checksum = str(result.get("checksum", ""))[:8]
    return SENTENCES[name].format(checksum=checksum)
