"""The command `spikeloop`: what can be asked of it, and the exit code that it answers with."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_CONTROL = "tcp://127.0.0.1:5571"
DEFAULT_DECODE = "tcp://127.0.0.1:5570"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    from calibration.errors import CalibrationError
    from service.errors import HANDLED, ExitCode, exit_code

    if getattr(arguments, "uses_lsl", False):
        from streams.lsl import quieten

        quieten()
    try:
        return int(arguments.run(arguments) or 0)
    except KeyboardInterrupt:
        return 0
    except HANDLED as err:
        sys.stderr.write(f"spikeloop: {err}\n")
        return int(exit_code(err))
    except CalibrationError as err:
        sys.stderr.write(f"spikeloop: {err}\n")
        return int(ExitCode.USAGE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spikeloop", description="Spikes in over LSL, decodes out over ZeroMQ."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        _add_demo,
        _add_serve,
        _add_watch,
        _add_control,
        _add_swap,
        _add_shape,
        _add_keys,
        _add_explain,
        _add_doctor,
        _add_simulate,
        _add_replay,
        _add_bench,
        _add_train,
        _add_export,
        _add_evaluate,
    ):
        add(commands)
    return parser


def _add_demo(commands: Commands) -> None:
    p = commands.add_parser("demo", help="close the loop with a simulated subject")
    p.add_argument("--seconds", type=float, default=30.0)
    p.add_argument("--json", action="store_true", help="print one JSON object instead of a screen")
    p.add_argument("--shuffle-units", action="store_true", help="the control: units permuted")
    p.add_argument("--subject", type=int, default=None, help="seed of the subject")
    p.add_argument("--day", type=int, default=None)
    p.set_defaults(run=_demo, uses_lsl=True)


def _demo(a: argparse.Namespace) -> int:
    from service.demo.demo import demo

    return demo(
        seconds=a.seconds,
        as_json=a.json,
        shuffle_units=a.shuffle_units,
        subject=a.subject,
        day=a.day,
    )


def _add_serve(commands: Commands) -> None:
    p = commands.add_parser("serve", help="run the daemon")
    p.add_argument("config", type=Path, metavar="CONFIG.toml")
    p.add_argument("--log", choices=("human", "json"), default="human")
    p.add_argument("--announce", type=Path, help="write the bound addresses to this file (JSON)")
    p.add_argument("--token-log", type=Path, help="write every arrival and token to this file")
    p.set_defaults(run=_serve, uses_lsl=True)


def _serve(a: argparse.Namespace) -> None:
    from service.config import ServeConfig, load_config
    from service.logs import set_up
    from service.serve import serve

    set_up(a.log)
    serve(load_config(a.config, ServeConfig), a.announce, a.token_log)


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
        "promote": "put the decoder in shadow into service",
        "dismiss": "take the decoder in shadow out",
        "rollback": "put the decoder before back into service",
    }
    for name, text in texts.items():
        p = commands.add_parser(name, help=text)
        _add_address(p)
        p.set_defaults(run=_control, command=name)


def _control(a: argparse.Namespace) -> int:
    from service.client import Client, command

    return command(Client(a.control, a.keys), a.command, {}, as_json=a.json)


def _add_swap(commands: Commands) -> None:
    p = commands.add_parser("swap", help="put another bundle into service, without missing a beat")
    p.add_argument("bundle", type=Path, metavar="BUNDLE")
    p.add_argument("--shadow", type=float, default=0.0, metavar="S", help="decode in shadow first")
    p.add_argument("--hold", action="store_true", help="stay in shadow until `promote`")
    p.add_argument("--send", action="store_true", help="send the files: the daemon is elsewhere")
    _add_address(p)
    p.set_defaults(run=_swap)


def _swap(a: argparse.Namespace) -> int:
    from service.client import Client, deploy

    return deploy(
        Client(a.control, a.keys),
        a.bundle,
        send=a.send,
        shadow_s=a.shadow,
        hold=a.hold,
        as_json=a.json,
    )


def _add_shape(commands: Commands) -> None:
    p = commands.add_parser(
        "shape", help="change gain, smoothing, bias, bounds or lead while running"
    )
    p.add_argument("settings", nargs="+", metavar="NAME=VALUE", help="for example gain=1.2")
    _add_address(p)
    p.set_defaults(run=_shape)


def _shape(a: argparse.Namespace) -> int:
    from service.client import Client, command, read_settings

    return command(Client(a.control, a.keys), "shape", read_settings(a.settings), as_json=a.json)


def _add_keys(commands: Commands) -> None:
    p = commands.add_parser("keys", help="make keys for a daemon that listens beyond loopback")
    p.add_argument("folder", type=Path, metavar="FOLDER")
    p.set_defaults(run=_keys)


def _keys(a: argparse.Namespace) -> None:
    from streams.keys import CLIENT_FILE, SERVER_FILE, write_keys
    from streams.sockets import new_pair

    write_keys(a.folder, new_pair(), new_pair())
    sys.stdout.write(
        f"{a.folder / SERVER_FILE}: for the daemon, `keys` under [output]\n"
        f"{a.folder / CLIENT_FILE}: for those who connect, --keys; carry it to them safely\n"
    )


def _add_explain(commands: Commands) -> None:
    p = commands.add_parser("explain", help="say where the time of missed beats went")
    p.add_argument("dump", type=Path, metavar="FLIGHT.jsonl", help="from [log] flights")
    p.set_defaults(run=_explain)


def _explain(a: argparse.Namespace) -> None:
    from service.explain import explain

    explain(a.dump)


def _add_doctor(commands: Commands) -> None:
    p = commands.add_parser("doctor", help="say what would stop the daemon from working")
    p.add_argument("config", type=Path, nargs="?", default=None, metavar="CONFIG.toml")
    p.add_argument("--json", action="store_true")
    p.set_defaults(run=_doctor, uses_lsl=True)


def _doctor(a: argparse.Namespace) -> int:
    from service.doctor import doctor

    return doctor(a.config, as_json=a.json)


def _add_simulate(commands: Commands) -> None:
    p = commands.add_parser("simulate", help="a simulated subject, live on LSL or to a file")
    p.add_argument("--subject", type=int, default=1, metavar="SEED")
    p.add_argument("--day", type=int, default=1)
    p.add_argument("--units", type=int, default=96)
    p.add_argument("--task", choices=("centre-out", "random"), default="centre-out")
    p.add_argument("--seed", type=int, default=0, help="of the session: noise and targets")
    p.add_argument("--decodes", default=None, help="the daemon's decodes, to close the loop")
    p.add_argument("--name", default="spikeloop-sim", help="name of the LSL streams")
    p.add_argument("--seconds", type=float, default=None, help="end after so long")
    p.add_argument("--shuffle-units", action="store_true")
    p.add_argument("--summary", type=Path, default=None, help="write how it went here (JSON)")
    p.add_argument("--write", type=Path, default=None, metavar="FILE.nwb")
    p.add_argument("--minutes", type=float, default=5.0, help="length of the session written")
    p.set_defaults(run=_simulate, uses_lsl=True)


def _simulate(a: argparse.Namespace) -> None:
    from service.simulate import simulate

    simulate(a)


def _add_replay(commands: Commands) -> None:
    p = commands.add_parser("replay", help="stream a recording over LSL as it happened")
    p.add_argument("file", type=Path, metavar="FILE.nwb")
    p.add_argument("--speed", type=float, default=1.0, help="for counting only")
    p.add_argument("--start", type=float, default=None, help="seconds of the recording")
    p.add_argument("--stop", type=float, default=None)
    p.add_argument("--counts-ms", type=float, default=None, help="regular counts of such bins")
    p.add_argument("--block-ms", type=float, default=5.0)
    p.add_argument("--name", default=None)
    p.add_argument("--wait", type=float, default=60.0, help="seconds to wait for a listener")
    p.add_argument("--json", action="store_true")
    p.set_defaults(run=_replay, uses_lsl=True)


def _replay(a: argparse.Namespace) -> None:
    from service.simulate import replay

    replay(a)


def _add_bench(commands: Commands) -> None:
    bench = commands.add_parser("bench", help="measure the loop on this machine")
    parts = bench.add_subparsers(metavar="WHAT", required=True)
    loop = parts.add_parser("loop", help="LSL in, ZeroMQ out, in separate processes")
    loop.add_argument("--units", type=int, default=1000)
    loop.add_argument("--rate", type=float, default=20.0, help="spikes per second and unit")
    loop.add_argument("--hop-ms", type=float, default=20.0)
    loop.add_argument("--seconds", type=float, default=60.0)
    loop.add_argument("--block-ms", type=float, default=5.0, help="how the sender blocks spikes")
    loop.add_argument("--bundle", default=None, help="a bundle to take the graph from")
    loop.add_argument("--json", action="store_true")
    loop.set_defaults(run=_bench_loop, uses_lsl=True)
    decode = parts.add_parser("decode", help="the graph alone, over tokens and backends")
    decode.add_argument("--bundle", action="append", default=None, help="may be given again")
    decode.add_argument("--backend", action="append", default=None, help="may be given again")
    decode.add_argument("--hop-ms", type=float, default=20.0)
    decode.add_argument("--json", action="store_true")
    decode.set_defaults(run=_bench_decode)
    sender = parts.add_parser("sender", help="the sending process of `bench loop`")
    sender.add_argument("--units", type=int, default=1000)
    sender.add_argument("--rate", type=float, default=20.0)
    sender.add_argument("--block-ms", type=float, default=5.0)
    sender.add_argument("--seconds", type=float, default=60.0)
    sender.add_argument("--name", required=True)
    sender.set_defaults(run=_bench_sender, uses_lsl=True)
    timer = parts.add_parser("timer", help="a bare timer: how late this machine wakes a process")
    timer.add_argument("--hop-ms", type=float, default=20.0)
    timer.add_argument("--seconds", type=float, default=30.0)
    timer.set_defaults(run=_bench_timer)


def _bench_loop(a: argparse.Namespace) -> int:
    from service.bench.loop import bench_loop

    return bench_loop(
        n_units=a.units,
        rate_hz=a.rate,
        hop_s=a.hop_ms * 1e-3,
        seconds=a.seconds,
        block_s=a.block_ms * 1e-3,
        base=a.bundle,
        as_json=a.json,
    )


def _bench_decode(a: argparse.Namespace) -> int:
    from service.bench.decode import bench_decode

    return bench_decode(
        bundles=a.bundle or ["shipped:demo"],
        backends=a.backend or ["onnxruntime-cpu"],
        hop_s=a.hop_ms * 1e-3,
        as_json=a.json,
    )


def _bench_sender(a: argparse.Namespace) -> None:
    from service.bench.sender import send

    send(
        n_units=a.units,
        rate_hz=a.rate,
        block_s=a.block_ms * 1e-3,
        seconds=a.seconds,
        name=a.name,
    )


def _bench_timer(a: argparse.Namespace) -> None:
    from service.bench.bare_timer import run_and_print

    run_and_print(hop_s=a.hop_ms * 1e-3, seconds=a.seconds)


def _add_train(commands: Commands) -> None:
    p = commands.add_parser("train", help="train a decoder")
    p.add_argument("config", type=Path, metavar="CONFIG.toml")
    p.add_argument("--out", type=Path, default=None, metavar="RUN", help="run directory")
    p.add_argument("--resume", action="store_true")
    p.set_defaults(run=_train)


def _train(a: argparse.Namespace) -> None:
    from decoders.training import train

    sys.stdout.write(f"{train(a.config, resume=a.resume, out=a.out)}\n")


def _add_export(commands: Commands) -> None:
    p = commands.add_parser("export", help="make a bundle of a trained decoder")
    p.add_argument("run_dir", type=Path, metavar="RUN")
    p.add_argument("-o", "--out", type=Path, required=True, metavar="BUNDLE")
    p.add_argument("--session", default=None, help="whose session vector; default: the last")
    p.set_defaults(run=_export)


def _export(a: argparse.Namespace) -> None:
    from export.graph import export_run

    bundle = export_run(a.run_dir, a.out, session=a.session)
    sys.stdout.write(f"{bundle.path}  {bundle.manifest.name}  {bundle.manifest.id[:12]}\n")


def _add_evaluate(commands: Commands) -> None:
    p = commands.add_parser("evaluate", help="decode recordings causally and score the decoder")
    p.add_argument("bundle", type=Path)
    p.add_argument("sessions", type=Path, nargs="+", metavar="SESSION.nwb")
    p.add_argument("--split", default="last:0.2")
    p.add_argument("--figure", type=Path, default=None)
    p.add_argument("--json", action="store_true")
    p.set_defaults(run=_evaluate)


def _evaluate(a: argparse.Namespace) -> None:
    import json

    from calibration.evaluate import evaluate

    result = evaluate(a.bundle, a.sessions, split=a.split, figure=a.figure)
    sys.stdout.write(json.dumps(result, indent=None if a.json else 2) + "\n")
