"""Commands that talk to a running daemon, or about one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_CONTROL = "tcp://127.0.0.1:5571"
DEFAULT_DECODE = "tcp://127.0.0.1:5570"


def add_commands(commands: Commands) -> None:
    """Add the commands of this group."""
    for add in (
        _add_watch,
        _add_control,
        _add_succession,
        _add_swap,
        _add_shape,
        _add_keys,
        _add_explain,
        _add_doctor,
    ):
        add(commands)


def _add_watch(commands: Commands) -> None:
    p = commands.add_parser("watch", help="print decodes as they leave the daemon")
    p.add_argument("--decode", default=DEFAULT_DECODE, help="the daemon's [output] decode")
    p.add_argument("--keys", type=Path, default=None, help="the client's keys")
    p.add_argument("--json", action="store_true", help="the messages as they are, one a line")
    p.add_argument("--count", type=int, default=None, help="end after so many")
    p.set_defaults(run=_watch)


def _watch(a: argparse.Namespace) -> None:
    from service.watch import watch

    watch(a.decode, keys=a.keys, as_json=a.json, count=a.count)


def _add_address(p: argparse.ArgumentParser) -> None:
    p.add_argument("--control", default=DEFAULT_CONTROL, help="the daemon's [output] control")
    p.add_argument("--keys", type=Path, default=None, help="the client's keys")
    p.add_argument("--json", action="store_true")


def _add_control(commands: Commands) -> None:
    texts = {
        "status": "how the daemon stands",
        "pause": "publish the safe value until resumed",
        "resume": "end a pause",
        "stop": "end the daemon in order",
        "dismiss": "take the decoder in shadow out",
    }
    for name, text in texts.items():
        p = commands.add_parser(name, help=text)
        _add_address(p)
        p.set_defaults(run=_control, command=name)


def _control(a: argparse.Namespace) -> int:
    from service.client import command
    from streams.wire.client import DaemonClient

    return command(DaemonClient(a.control, a.keys), a.command, {}, as_json=a.json)


def _add_succession(commands: Commands) -> None:
    texts = {
        "promote": "put the decoder in shadow into service",
        "rollback": "put the decoder before back into service",
    }
    for name, text in texts.items():
        p = commands.add_parser(name, help=f"{text}; the registry follows")
        p.add_argument("--registry", type=Path, default=Path("bundles"), metavar="FOLDER")
        p.add_argument("--why", default=f"{name} by hand", help="for the registry's history")
        _add_address(p)
        p.set_defaults(run=_succession, command=name)


def _succession(a: argparse.Namespace) -> int:
    from calibration.registry import STORE, Registry
    from service.client import answer
    from streams.wire.client import DaemonClient

    reply = DaemonClient(a.control, a.keys).reply(a.command)
    if reply.ok and (a.registry / STORE).is_dir():
        Registry(a.registry).follow(reply.result["checksum"], a.why)
    return answer(a.command, reply, as_json=a.json)


def _add_swap(commands: Commands) -> None:
    p = commands.add_parser("swap", help="put another bundle into service, without missing a beat")
    p.add_argument("bundle", metavar="BUNDLE|ID", help="a directory, or an id of the registry")
    p.add_argument("--registry", type=Path, default=Path("bundles"), metavar="FOLDER")
    p.add_argument("--why", default="swapped by hand", help="for the registry's history")
    p.add_argument("--shadow", type=float, default=0.0, metavar="S", help="decode in shadow first")
    p.add_argument("--hold", action="store_true", help="stay in shadow until `promote`")
    p.add_argument("--send", action="store_true", help="send the files: the daemon is elsewhere")
    _add_address(p)
    p.set_defaults(run=_swap)


def _swap(a: argparse.Namespace) -> int:
    from service.client import deploy
    from streams.wire.client import DaemonClient

    path = Path(a.bundle)
    registered = None
    if not path.exists():
        from calibration.registry import STORE, Registry

        registered = Registry(a.registry)
        a.bundle = registered.find(a.bundle)
        path = a.registry / STORE / a.bundle
    code = deploy(
        DaemonClient(a.control, a.keys),
        path,
        send=a.send,
        shadow_s=a.shadow,
        hold=a.hold,
        as_json=a.json,
    )
    if registered is not None and code == 0 and not a.hold:
        registered.promote(a.bundle, a.why)
    return code


def _add_shape(commands: Commands) -> None:
    p = commands.add_parser(
        "shape", help="change gain, smoothing, bias, bounds or lead while running"
    )
    p.add_argument("settings", nargs="+", metavar="NAME=VALUE", help="for example gain=1.2")
    _add_address(p)
    p.set_defaults(run=_shape)


def _shape(a: argparse.Namespace) -> int:
    from service.client import command, read_settings
    from streams.wire.client import DaemonClient

    client = DaemonClient(a.control, a.keys)
    return command(client, "shape", read_settings(a.settings), as_json=a.json)


def _add_keys(commands: Commands) -> None:
    p = commands.add_parser("keys", help="make keys for a daemon that listens beyond loopback")
    p.add_argument("folder", type=Path, metavar="FOLDER")
    p.set_defaults(run=_keys)


def _keys(a: argparse.Namespace) -> None:
    from streams.wire.curve_keys import CLIENT_FILE, SERVER_FILE, write_curve_keys
    from streams.wire.sockets import new_pair

    write_curve_keys(a.folder, new_pair(), new_pair())
    sys.stdout.write(
        f"{a.folder / SERVER_FILE}: for the daemon, `keys` under [output]\n"
        f"{a.folder / CLIENT_FILE}: for those who connect, --keys; carry it to them safely\n"
    )


def _add_explain(commands: Commands) -> None:
    p = commands.add_parser("explain", help="say where the time of missed beats went")
    p.add_argument("dump", type=Path, metavar="FLIGHT.jsonl", help="from [log] flights")
    p.set_defaults(run=_explain)


def _explain(a: argparse.Namespace) -> None:
    from service.telemetry.explain import explain

    explain(a.dump)


def _add_doctor(commands: Commands) -> None:
    p = commands.add_parser("doctor", help="say what would stop the daemon from working")
    p.add_argument("config", type=Path, nargs="?", default=None, metavar="CONFIG.toml")
    p.add_argument(
        "--gpu",
        action="store_true",
        help="prove the GPU: driver, card, TensorRT, and an engine built and run",
    )
    p.add_argument("--json", action="store_true")
    p.set_defaults(run=_doctor, uses_lsl=True)


def _doctor(a: argparse.Namespace) -> int:
    from service.doctor import doctor

    return doctor(a.config, gpu=a.gpu, as_json=a.json)
