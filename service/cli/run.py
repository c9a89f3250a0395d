"""Commands that run the loop, its sources and its measurement."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_commands(commands: Commands) -> None:
    """Add the commands of this group."""
    for add in (_add_demo, _add_serve, _add_simulate, _add_replay, _add_bench):
        add(commands)


def _add_demo(commands: Commands) -> None:
    p = commands.add_parser("demo", help="close the loop with a simulated subject")
    p.add_argument("--seconds", type=float, default=None, help="30, or 120 for --recalibrate")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of a screen")
    p.add_argument("--recalibrate", action="store_true", help="a day on which the decoder fails")
    p.add_argument("--shuffle-units", action="store_true", help="the control: units permuted")
    p.add_argument("--delay-ms", type=float, default=0.0, help="how late the spikes leave")
    p.add_argument("--subject", type=int, default=1, help="seed of the subject")
    p.add_argument("--day", type=int, default=None, help="8; the shipped decoder knows 0 to 7")
    p.add_argument("--bundle", default="shipped:demo", help="another decoder")
    p.add_argument("--backend", default="onnxruntime-cpu", help="that runs it")
    p.set_defaults(run=_demo, uses_lsl=True)


def _demo(a: argparse.Namespace) -> int:
    if a.recalibrate:
        from service.demo.recalibrate import recalibrate

        return recalibrate(
            seconds=a.seconds or 120.0,
            as_json=a.json,
            subject=a.subject,
            day=25 if a.day is None else a.day,
            bundle=a.bundle,
        )
    from service.demo.demo import demo

    return demo(
        seconds=a.seconds or 30.0,
        as_json=a.json,
        shuffle_units=a.shuffle_units,
        subject=a.subject,
        day=8 if a.day is None else a.day,
        bundle=a.bundle,
        backend=a.backend,
        delay_s=a.delay_ms * 1e-3,
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
    from service.daemon.serve import serve
    from service.logs import set_up

    set_up(a.log)
    serve(load_config(a.config, ServeConfig), a.announce, a.token_log)


def _add_simulate(commands: Commands) -> None:
    p = commands.add_parser("simulate", help="a simulated subject, live on LSL or to a file")
    p.add_argument("--subject", type=int, default=1, metavar="SEED")
    p.add_argument("--day", type=int, default=1)
    p.add_argument("--units", type=int, default=96)
    p.add_argument("--task", choices=("centre-out", "random"), default="centre-out")
    p.add_argument("--seed", type=int, default=0, help="of the session: noise and targets")
    p.add_argument("--style", choices=("reach", "steer"), default="reach", help="of the hand")
    p.add_argument("--decodes", default=None, help="the daemon's decodes, to close the loop")
    p.add_argument("--name", default="spikeloop-sim", help="name of the LSL streams")
    p.add_argument("--seconds", type=float, default=None, help="end after so long")
    p.add_argument("--shuffle-units", action="store_true")
    p.add_argument("--delay-ms", type=float, default=0.0, help="how late the spikes leave")
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
    p.add_argument(
        "--sessions", type=Path, default=None, metavar="CONFIG.toml",
        help="whose [sessions] says what is read, for example how units are named",
    )  # fmt: skip
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
    loop.add_argument("--delay-ms", type=float, default=0.0, help="how late its blocks leave")
    loop.add_argument("--bundle", default=None, help="a bundle to take the graph from")
    loop.add_argument("--priority", type=int, default=50, help="SCHED_FIFO of the beat; 0: none")
    loop.add_argument("--cut", choices=("settled", "arrived"), default="settled")
    loop.add_argument("--backend", default="onnxruntime-cpu")
    loop.add_argument("--figure", type=Path, default=None, metavar="FILE.png")
    loop.add_argument("--json", action="store_true")
    loop.set_defaults(run=_bench_loop, uses_lsl=True)
    decode = parts.add_parser("decode", help="the graph alone, over tokens and backends")
    decode.add_argument("--bundle", action="append", default=None, help="may be given again")
    decode.add_argument("--backend", action="append", default=None, help="may be given again")
    decode.add_argument(
        "--poyo", action=argparse.BooleanOptionalAction, default=None,
        help="POYO 1.3M with random weights; by default where no --bundle is named",
    )  # fmt: skip
    decode.add_argument("--hop-ms", type=float, default=20.0)
    decode.add_argument("--json", action="store_true")
    decode.set_defaults(run=_bench_decode)
    gpu = parts.add_parser("gpu", help="decoders of published sizes, random weights, host to host")
    gpu.add_argument("--backend", action="append", default=None, help="may be given again")
    gpu.add_argument("--size", action="append", default=[], help="one decoder; may be given again")
    gpu.add_argument("--units", type=int, default=1000)
    gpu.add_argument("--hop-ms", type=float, default=10.0)
    gpu.add_argument("--many", action="store_true", help="how many decoders are served at the hop")
    gpu.add_argument("--folder", type=Path, default=None, help="keep the bundles here")
    gpu.add_argument("--json", action="store_true")
    gpu.set_defaults(run=_bench_gpu)
    sender = parts.add_parser("sender", help="the sending process of `bench loop`")
    sender.add_argument("--units", type=int, default=1000)
    sender.add_argument("--rate", type=float, default=20.0)
    sender.add_argument("--block-ms", type=float, default=5.0)
    sender.add_argument("--delay-ms", type=float, default=0.0, help="how late its blocks leave")
    sender.add_argument("--seconds", type=float, default=60.0)
    sender.add_argument("--name", required=True)
    sender.set_defaults(run=_bench_sender, uses_lsl=True)
    timer = parts.add_parser("timer", help="a bare timer: how late this machine wakes a process")
    timer.add_argument("--hop-ms", type=float, default=20.0)
    timer.add_argument("--seconds", type=float, default=30.0)
    timer.set_defaults(run=_bench_timer)


def _bench_loop(a: argparse.Namespace) -> int:
    from service.bench.loop import Settings, bench_loop

    settings = Settings(
        n_units=a.units,
        rate_hz=a.rate,
        hop_s=a.hop_ms * 1e-3,
        seconds=a.seconds,
        block_s=a.block_ms * 1e-3,
        base=a.bundle,
        priority=a.priority,
        cut=a.cut,
        backend=a.backend,
        delay_s=a.delay_ms * 1e-3,
    )
    return bench_loop(settings, figure=a.figure, as_json=a.json)


def _bench_decode(a: argparse.Namespace) -> int:
    from service.bench.decode import bench_decode

    return bench_decode(
        bundles=a.bundle or ["shipped:demo"],
        poyo=a.bundle is None if a.poyo is None else a.poyo,
        backends=a.backend or ["onnxruntime-cpu", "numba-cpu", "torch"],
        hop_s=a.hop_ms * 1e-3,
        as_json=a.json,
    )


def _bench_gpu(a: argparse.Namespace) -> int:
    from service.bench.gpu import bench_gpu

    return bench_gpu(
        sizes=a.size,
        backends=a.backend or ["torch-cuda", "onnxruntime-cpu"],
        n_units=a.units,
        hop_s=a.hop_ms * 1e-3,
        folder=a.folder,
        with_many=a.many,
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
        delay_s=a.delay_ms * 1e-3,
    )


def _bench_timer(a: argparse.Namespace) -> None:
    from service.bench.bare_timer import run_and_print

    run_and_print(hop_s=a.hop_ms * 1e-3, seconds=a.seconds)
