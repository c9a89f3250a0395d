"""`python -m benchmarks.startup`: how long `serve` takes to its first decode, by backend."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from benchmarks.command import AsJson, HopMs, Option, RateHz, Rounds, Units, main
from service.bench.loop import Settings, start_daemon, start_sender
from service.bench.rig import Rig
from streams.clock import MonotonicClock
from streams.lsl.inlets import matching_streams
from streams.wire.sockets import DecodeSubscriber

FIRST, AGAIN = "first start", "again"
WITHIN_S, WATCHED_S = 120.0, 4.0
Seconds = dict[str, float]


def run(
    backend: Annotated[list[str] | None, Option(help="One of them; may be given again.")] = None,
    units: Units = 1000,
    rate: RateHz = 20.0,
    hop_ms: HopMs = 20.0,
    rounds: Rounds = 5,
    json_: AsJson = False,
) -> int:
    """Time `serve` to its sockets, its first decode and its first `ok`, with caches empty and full.

    The stream is there before. What is measured is process start, imports, opening, and the stream.
    Beats missed in the first seconds are counted.
    """
    settings = Settings(n_units=units, rate_hz=rate, hop_s=hop_ms * 1e-3, seconds=30, block_s=5e-3)
    found: dict[str, list[Seconds]] = {}
    for i_round in range(rounds):
        for name in backend or ["onnxruntime-cpu", "numba-cpu", "auto"]:
            with Rig() as rig, _caches(rig.path / "cache"):
                for i_start, which in enumerate((FIRST, AGAIN)):
                    taken = _start(rig, f"{name}-{i_start}", name, settings)
                    found.setdefault(f"{name}, {which}", []).append(taken)
        sys.stderr.write(f"round {i_round + 1} of {rounds}\n")
    if json_:
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    for way, starts in found.items():
        told = "   ".join(_told(what, [one[what] for one in starts]) for what in starts[0])
        sys.stdout.write(f"{way:32} {told}\n")
    return 0


def _told(what: str, taken_s: list[float]) -> str:
    return f"{what} {statistics.median(taken_s):.2f} ({min(taken_s):.2f} - {max(taken_s):.2f})"


def _start(rig: Rig, name: str, backend: str, settings: Settings) -> Seconds:
    """Seconds from the command to each stage of one start."""
    stream = f"spikeloop-startup-{os.getpid()}-{name}"
    start_sender(rig, stream, settings, seconds=600)
    matching_streams(name=stream, wait_s=2.0)
    clock = MonotonicClock()
    t_start_s = clock.now()
    endpoint = start_daemon(rig, name, stream, replace(settings, backend=backend))
    taken = {"bound": clock.now() - t_start_s}
    subscriber = DecodeSubscriber(endpoint, ("decode",))
    t_end_s, n_late = t_start_s + WITHIN_S, 0
    decode: dict[str, Any] = {"beats_skipped": 0}
    while clock.now() < t_end_s:
        rig.check(name)
        received = subscriber.receive(0.1)
        if received is None:
            continue
        decode = received[1]
        if "decode" not in taken:
            taken["decode"] = clock.now() - t_start_s
            t_end_s = clock.now() + WATCHED_S
        if decode["validity"] == "ok":
            taken.setdefault("ok", clock.now() - t_start_s)
        n_late += decode["late"]
    taken["missed"] = float(n_late + decode["beats_skipped"])
    subscriber.close()
    for one in (name, "sender"):
        rig.stop(one)
    return taken


@contextmanager
def _caches(folder: Path) -> Iterator[None]:
    """Let what is started keep what it compiles and measures in an empty folder."""
    before = dict(os.environ)
    os.environ |= {"XDG_CACHE_HOME": str(folder), "NUMBA_CACHE_DIR": str(folder / "numba")}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(run)
