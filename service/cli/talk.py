"""Commands that talk to a running daemon, or say what is wrong with one or with its stream."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from typer import Option

from service.cli.options import (
    DEFAULT_CONTROL,
    DEFAULT_DECODE,
    Command,
    Control,
    Decode,
    Json,
    Keys,
    Registry,
    arg,
    bundle_folder,
    flag,
    listed,
    opt,
    quieten_lsl,
)
from streams.lint.kinds import Kind
from streams.wire.roles import RoleName

Why = Annotated[str, opt("Note for the registry's history.")]
SMALL = {
    "status": "Tell how the daemon stands.",
    "pause": "Publish the safe value until resumed.",
    "resume": "End a pause.",
    "stop": "End the daemon in order.",
    "dismiss": "Take the decoder in shadow out.",
}
SUCCESSION = {
    "promote": "Put the decoder in shadow into service; the registry follows.",
    "rollback": "Put the decoder before back into service; the registry follows.",
}


def watch(
    decode: Decode = DEFAULT_DECODE,
    keys: Keys = None,
    as_json: Annotated[bool, flag("--json", "Print the messages as they are, one a line.")] = False,
    count: Annotated[int | None, opt("End after so many.")] = None,
) -> None:
    """Print decodes as they leave the daemon."""
    from service.terminal import watch as watching

    watching.watch(decode, keys=keys, as_json=as_json, count=count)


def metrics(
    decode: Annotated[str, opt("The daemon's `[output] decode`.")] = DEFAULT_DECODE,
    control: Control = DEFAULT_CONTROL,
    port: Annotated[int, opt("Port for Prometheus; 0: any free one.")] = 9400,
    host: Annotated[
        str, opt("Address to listen on; loopback unless said otherwise.")
    ] = "127.0.0.1",
    keys: Keys = None,
) -> None:
    """Tell Prometheus how the daemon stands, from a process of its own."""
    from service.metrics import exporter
    from service.signals import until_signalled

    exporter.metrics(decode, control, keys, host, port, until_signalled())


def _small(name: str, text: str) -> Callable[..., int]:
    """Make the command of a daemon's command that takes no argument."""

    def ask(control: Control = DEFAULT_CONTROL, keys: Keys = None, as_json: Json = False) -> int:
        from service.client import command
        from streams.wire.client import DaemonClient

        return command(DaemonClient(control, keys), name, {}, as_json=as_json)

    ask.__doc__ = text
    return ask


def _succession(name: str, text: str) -> Callable[..., int]:
    """Make the command that puts another decoder into service; the registry follows."""

    def ask(
        registry: Registry = Path("bundles"),
        why: Why = f"{name} by hand",
        control: Control = DEFAULT_CONTROL,
        keys: Keys = None,
        as_json: Json = False,
    ) -> int:
        from calibration.registry import STORE, Registry
        from service.client import answer
        from streams.wire.client import DaemonClient

        reply = DaemonClient(control, keys).reply(name)
        if reply.ok and (registry / STORE).is_dir():
            Registry(registry).follow(reply.result["checksum"], why)
        return answer(name, reply, as_json=as_json)

    ask.__doc__ = text
    return ask


def swap(
    bundle: Annotated[str, arg("BUNDLE|ID", "A folder, shipped:demo, or an id of the registry.")],
    registry: Registry = Path("bundles"),
    why: Why = "swapped by hand",
    shadow: Annotated[float, opt("Decode in shadow for S seconds first.", "S")] = 0.0,
    hold: Annotated[bool, flag("--hold", "Stay in shadow until `promote`.")] = False,
    send: Annotated[bool, flag("--send", "Send the files: the daemon is elsewhere.")] = False,
    tables: Annotated[
        bool, flag("--tables", "Exchange its tables alone, at once: the network stays.")
    ] = False,
    control: Control = DEFAULT_CONTROL,
    keys: Keys = None,
    as_json: Json = False,
) -> int:
    """Put another bundle into service, without missing a beat."""
    from service.client import deploy
    from streams.wire.client import DaemonClient

    path, store = bundle_folder(bundle), None
    if not path.exists():
        from calibration.registry import STORE, Registry

        store = Registry(registry)
        bundle = store.find(bundle)
        path = registry / STORE / bundle
    client = DaemonClient(control, keys)
    code = deploy(
        client, path, send=send, shadow_s=shadow, hold=hold, as_json=as_json, tables=tables
    )
    if store is not None and code == 0 and not hold:
        store.promote(bundle, why)
    return code


def shape(
    settings: Annotated[list[str], arg("NAME=VALUE", "For example gain=1.2.")],
    control: Control = DEFAULT_CONTROL,
    keys: Keys = None,
    as_json: Json = False,
) -> int:
    """Change gain, smoothing, bias, bounds or lead while running."""
    from service.client import command, read_settings
    from streams.wire.client import DaemonClient

    return command(DaemonClient(control, keys), "shape", read_settings(settings), as_json=as_json)


def make_keys(
    folder: Annotated[Path, arg("FOLDER", "Folder of the keys.")],
    client: Annotated[
        str, opt("Keys for one more client of the daemon whose keys lie there.", "NAME")
    ] = "",
    role: Annotated[RoleName, opt("What that client may do.")] = "watch",
    signing: Annotated[
        str, opt("Instead a pair that signs bundles, under this name.", "NAME")
    ] = "",
) -> None:
    """Make keys: for a daemon beyond loopback, for its clients, or to sign bundles."""
    if signing:
        from export.signing.keys import write_signing_key

        secret_file, public_file = write_signing_key(folder, signing)
        sys.stdout.write(
            f"{secret_file}: for `spikeloop sign` and --sign-key; let nobody have it\n"
            f"{public_file}: for daemons, `require_signature` under [decoder]\n"
        )
        return
    from streams.wire.authentication import new_pair
    from streams.wire.clients import CLIENTS_FILE, Client
    from streams.wire.curve_keys import CLIENT_FILE, SERVER_FILE, add_client, write_curve_keys
    from streams.wire.roles import Role

    if client:
        public, secret = new_pair()
        path = add_client(folder, Client(client, Role[role.upper()], public), secret)
        sys.stdout.write(
            f"{path}: for {client}, --keys; carry it to them safely\n"
            f"{folder / CLIENTS_FILE}: for the daemon, `clients` under [output]\n"
        )
        return
    write_curve_keys(folder, new_pair(), new_pair())
    sys.stdout.write(
        f"{folder / SERVER_FILE}: for the daemon, `keys` under [output]\n"
        f"{folder / CLIENT_FILE}: for those who connect, --keys; carry it to them safely\n"
    )


def explain(
    dump: Annotated[Path, arg("FLIGHT.jsonl", "From [log] flights.")],
) -> None:
    """Say where the time of missed beats went."""
    from service.telemetry import explain as explaining

    explaining.explain(dump)


def doctor(
    config: Annotated[Path | None, arg("CONFIG.toml", "The daemon's config.")] = None,
    gpu: Annotated[
        bool, flag("--gpu", "Prove the GPU: driver, card, TensorRT, an engine built and run.")
    ] = False,
    report: Annotated[
        Path | None, opt("Write a file for a bug report: no names, no data.", "FILE.json")
    ] = None,
    as_json: Json = False,
) -> int:
    """Say what would stop the daemon from working."""
    quieten_lsl()
    from service import doctor as examining

    return examining.doctor(config, gpu=gpu, report=report, as_json=as_json)


def lint(
    name: Annotated[str, arg("NAME", "Name of the stream; else any.")] = "",
    stream_type: Annotated[str, Option("--type", help="LSL type; else any.")] = "",
    hostname: Annotated[str, opt("Host of the sender; else any.")] = "",
    seconds: Annotated[float, opt("How long to listen.")] = 10.0,
    wait: Annotated[float, opt("Seconds to look for streams.")] = 3.0,
    kind: Annotated[Kind | None, opt("Else by type, format and labels.")] = None,
    columns: Annotated[str, opt("Columns of unlabelled spikes.", "NAME,NAME")] = "",
    as_json: Json = False,
) -> int:
    """Listen to LSL streams and say what their owner should change.

    Each stream of spikes, counts, markers or positions that matches is listened to. Ctrl-C ends
    the listening; what was found so far is told, with the code of that.

    \b
    exit codes:
      0  nothing found that spoils decoding
      1  findings marked `stop`: `serve` would refuse the stream or flag its decodes
      2  wrong usage
      3  no such stream, or one that cannot be opened or read as spikes
    """  # noqa: D301 - \b keeps the lines of a paragraph in the help
    quieten_lsl()
    from service.setup.lint import lint_streams

    return lint_streams(
        name,
        stream_type=stream_type,
        hostname=hostname,
        seconds=seconds,
        wait_s=wait,
        kind=kind,
        columns=tuple(listed(columns)),
        as_json=as_json,
    )


COMMANDS: dict[str, Command] = {
    "watch": watch,
    "metrics": metrics,
    **{name: _small(name, text) for name, text in SMALL.items()},
    **{name: _succession(name, text) for name, text in SUCCESSION.items()},
    "swap": swap,
    "shape": shape,
    "keys": make_keys,
    "explain": explain,
    "doctor": doctor,
    "lint": lint,
}
