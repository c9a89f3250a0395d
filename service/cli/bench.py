"""Measure the loop on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from service.cli.options import (
    SECONDS_OF_RUN,
    BlockMs,
    Command,
    DelayMs,
    HopMs,
    Json,
    Name,
    RateHz,
    Units,
    flag,
    opt,
    quieten_lsl,
)

Backends = Annotated[list[str] | None, Option("--backend", help="A backend; may be given again.")]


def loop(
    units: Units = 1000,
    rate: RateHz = 20.0,
    hop_ms: HopMs = 20.0,
    seconds: Annotated[float, opt("How long to measure.")] = 60.0,
    block_ms: BlockMs = 5.0,
    delay_ms: DelayMs = 0.0,
    bundle: Annotated[str | None, opt("A bundle to take the graph from.")] = None,
    priority: Annotated[int, opt("SCHED_FIFO priority of the beat; 0 for none.")] = 50,
    cut: Annotated[
        Literal["auto", "settled", "arrived"], opt("`[beat] cut` of the daemon.")
    ] = "auto",
    backend: Annotated[str, opt("Runs the network.")] = "auto",
    form: Annotated[
        Literal["json", "packed"], Option("--format", help="`[output] format` of the daemon.")
    ] = "json",
    record: Annotated[
        bool, Option("--record/--no-record", help="Record the run meanwhile, as `serve` does.")
    ] = True,
    figure: Annotated[Path | None, opt("Draw the result.", "FILE.png")] = None,
    as_json: Json = False,
) -> int:
    """Measure LSL in to ZeroMQ out, in separate processes."""
    quieten_lsl()
    from service.bench.loop import Settings, bench_loop
    from streams.long_work import LongWork

    settings = Settings(
        n_units=units,
        rate_hz=rate,
        hop_s=hop_ms * 1e-3,
        seconds=seconds,
        block_s=block_ms * 1e-3,
        base=bundle,
        priority=priority,
        cut=cut,
        backend=backend,
        delay_s=delay_ms * 1e-3,
        form=form,
        record=record,
    )
    with LongWork(f"measuring {seconds:g} s"):
        return bench_loop(settings, figure=figure, as_json=as_json)


def decode(
    bundle: Annotated[list[str] | None, opt("A bundle; may be given again.")] = None,
    backend: Backends = None,
    poyo: Annotated[
        bool | None,
        Option(
            "--poyo/--no-poyo",
            help="POYO 1.3M with random weights; by default where no --bundle is named.",
        ),
    ] = None,
    hop_ms: HopMs = 20.0,
    as_json: Json = False,
) -> int:
    """Time the graph alone, over tokens and backends."""
    from service.bench.decode import bench_decode
    from streams.long_work import LongWork

    with LongWork("timing"):
        return bench_decode(
            bundles=bundle or ["shipped:demo"],
            poyo=not bundle if poyo is None else poyo,
            backends=backend or ["onnxruntime-cpu", "numba-cpu", "torch"],
            hop_s=hop_ms * 1e-3,
            as_json=as_json,
        )


def gpu(
    backend: Backends = None,
    size: Annotated[list[str] | None, opt("One decoder; may be given again.")] = None,
    units: Units = 1000,
    hop_ms: HopMs = 10.0,
    many: Annotated[bool, flag("--many", "How many decoders are served.")] = False,
    folder: Annotated[Path | None, opt("Keep the bundles here.")] = None,
    as_json: Json = False,
) -> int:
    """Time decoders of published sizes with random weights, host to host."""
    from service.bench.gpu import bench_gpu
    from streams.long_work import LongWork

    with LongWork("timing"):
        return bench_gpu(
            sizes=size or [],
            backends=backend or ["torch-cuda", "onnxruntime-cpu"],
            n_units=units,
            hop_s=hop_ms * 1e-3,
            folder=folder,
            with_many=many,
            as_json=as_json,
        )


def sender(
    name: Name,
    units: Units = 1000,
    rate: RateHz = 20.0,
    block_ms: BlockMs = 5.0,
    delay_ms: DelayMs = 0.0,
    seconds: Annotated[float, Option(help=SECONDS_OF_RUN)] = 60.0,
    priority: Annotated[int, opt("SCHED_FIFO priority; 0 for none.")] = 0,
) -> None:
    """Send spikes: the sending process of `bench loop`."""
    quieten_lsl()
    from service.bench.sender import send

    send(
        n_units=units,
        rate_hz=rate,
        block_s=block_ms * 1e-3,
        seconds=seconds,
        name=name,
        delay_s=delay_ms * 1e-3,
        priority=priority,
    )


def hop(
    name: Name,
    announce: Annotated[Path, opt("Write the address to this file.", "FILE")],
    hop_ms: HopMs = 20.0,
    size: Annotated[int, Option("--bytes", help="Length of a message.")] = 600,
    priority: Annotated[int, opt("SCHED_FIFO priority; 0 for none.")] = 0,
    seconds: Annotated[float, Option(help=SECONDS_OF_RUN)] = 6.0,
) -> None:
    """Send bare messages over ZeroMQ and LSL: the floor that `bench loop` names."""
    quieten_lsl()
    from service.bench.bare_hop import send_hops

    send_hops(
        name=name,
        hop_s=hop_ms * 1e-3,
        seconds=seconds,
        n_bytes=size,
        priority=priority,
        announce=announce,
    )


def timer(
    hop_ms: HopMs = 20.0,
    seconds: Annotated[float, Option(help=SECONDS_OF_RUN)] = 30.0,
) -> None:
    """Run a bare timer: how late this machine wakes a process."""
    from service.bench.bare_timer import run_and_print

    run_and_print(hop_s=hop_ms * 1e-3, seconds=seconds)


COMMANDS: dict[str, Command] = {
    "loop": loop,
    "decode": decode,
    "gpu": gpu,
    "sender": sender,
    "hop": hop,
    "timer": timer,
}
