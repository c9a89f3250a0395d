"""What talks to a running daemon: commands, and bundles sent to it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from export.sending import send_bundle
from service.errors import ConfigError, ExitCode, ServiceError
from streams.clock import MonotonicClock
from streams.wire.curve_keys import CurveKeys, read_curve_keys
from streams.wire.schema import Command, Reply, decode_reply, encode
from streams.wire.sockets import request

POLL_S = 0.05
Tell = Callable[[dict[str, Any]], None]


class DeclinedError(ServiceError):
    """The daemon declined a command."""


class Client:
    """Asks a daemon.

    Args:
        endpoint: its `[output] control`.
        keys: file of the client's keys, where the daemon asks for them.

    Raises:
        CurveKeysError: the file holds no keys.
    """

    def __init__(self, endpoint: str, keys: Path | None = None) -> None:
        self._endpoint = endpoint
        self._keys: CurveKeys | None = read_curve_keys(keys) if keys else None

    def reply(self, command: str, attached: bytes | None = None, **arguments: Any) -> Reply:
        """Send a command; its reply.

        Raises:
            UnreachableError: no daemon answered.
        """
        payload = encode(Command(command=command, arguments=arguments))
        return decode_reply(
            request(self._endpoint, payload, curve_keys=self._keys, attached=attached)
        )

    def ask(self, command: str, attached: bytes | None = None, **arguments: Any) -> dict[str, Any]:
        """Send a command; its result.

        Raises:
            DeclinedError: the daemon declined it.
            UnreachableError: no daemon answered.
        """
        reply = self.reply(command, attached, **arguments)
        if not reply.ok:
            raise DeclinedError(reply.error)
        return reply.result

    def swap(self, path: Path, *, shadow_s: float, hold: bool, tell: Tell) -> str:
        """Deploy a bundle that lies on the daemon's host; why it was refused, "" if it was not."""
        self.ask("swap", bundle=str(path.resolve()), shadow_s=shadow_s, hold=hold)
        return self._follow(tell)

    def send(self, path: Path, *, shadow_s: float, hold: bool, tell: Tell) -> str:
        """Send a bundle's files and deploy it; why it was refused, "" if it was not."""
        send_bundle(self.ask, path, shadow_s=shadow_s, hold=hold)
        return self._follow(tell)

    def _follow(self, tell: Tell) -> str:
        clock, n_told = MonotonicClock(), 0
        while True:
            result = self.ask("deployment")
            for stage in result["stages"][n_told:]:
                tell(stage)
            n_told = len(result["stages"])
            if result["over"]:
                return str(result["refused"])
            clock.sleep_until(clock.now() + POLL_S)


def deploy(
    client: Client, path: Path, *, send: bool, shadow_s: float, hold: bool, as_json: bool
) -> int:
    """Deploy a bundle, telling each stage as it is reached; the exit code.

    Raises:
        ConfigError: there is no bundle there.
        DeclinedError, UnreachableError: see `Client.ask`.
    """
    if not (path / "manifest.json").is_file():
        raise ConfigError(f"no bundle at {path}; name the directory that `spikeloop export` wrote")

    def tell(stage: dict[str, Any]) -> None:
        detail = "  ".join(f"{key} {value}" for key, value in stage.items() if key != "stage")
        line = json.dumps(stage) if as_json else f"{stage['stage']:<9} {detail}".rstrip()
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    carry_out = client.send if send else client.swap
    refused = carry_out(path, shadow_s=shadow_s, hold=hold, tell=tell)
    if refused:
        sys.stderr.write(f"spikeloop: refused: {refused}\n")
    return ExitCode.BUNDLE if refused else ExitCode.DONE


def command(client: Client, name: str, arguments: dict[str, Any], *, as_json: bool) -> int:
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
    else:
        _print(name, reply.result)
    return ExitCode.DONE if reply.ok else ExitCode.USAGE


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


def _print(name: str, result: dict[str, Any]) -> None:
    table = Table(title=f"spikeloop {name}", title_justify="left", show_header=False)
    for key, value in result.items():
        table.add_row(key, _text(value))
    Console().print(table)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{key} {_text(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(_text(one) for one in value) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
