"""From the end of a bin to its decode at a client: each system in turn on the same stream."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.environment import program
from benchmarks.peers.per_decode import summed_up
from export.backends.table import is_importable
from service.bench.listener import Listener
from service.bench.loop import Settings, start_daemon, start_sender
from service.bench.rig import Rig
from streams.clock import MonotonicClock
from streams.lsl.inlets import Inlet, find_inlet

OURS, OURS_EARLY = "spikeloop", "spikeloop, cut on arrival"
OURS_NUMBA = "spikeloop, cut on arrival, numba-cpu"
EZMSG, PLAIN = "ezmsg", "plain script"
SETTLES_WITHIN_S = 12.0
WARM_S = 6.0
"""After its first decode: a peer that imported for long has a backlog to work off."""
FOUND_WITHIN_S = 60.0


def end_to_end(
    rig: Rig, python: Path, settings: Settings, *, n_rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure each system for `settings.seconds`, in turn, `n_rounds` times.

    All see one stream of spikes and decode the bins between whole multiples of a hop, by the
    spikes' stamps; a decode is stamped with its bin's end, and received over LSL (ours over
    ZeroMQ too). None of the peers waits for spikes that come late; ours does, for its settle time,
    unless it is told to cut on arrival.

    Returns:
        Per system, `median_ms` and `p99_ms` of each round, and ratios to ours.
    """
    stream = f"spikeloop-peers-{os.getpid()}"
    start_sender(rig, stream, settings, seconds=1e6)
    rounds: list[dict[str, list[float]]] = []
    for i in range(n_rounds):
        say(f"end to end, round {i + 1} of {n_rounds}")
        one = _ours(rig, stream, settings, i)
        for name, file in ((EZMSG, "ezmsg_pipeline"), (PLAIN, "plain_script")):
            one[name] = _peer(rig, python, file, stream, settings, i)
        rounds.append(one)
    n_expected = settings.seconds / settings.hop_s
    decoded = {name: [len(one[name]) / n_expected for one in rounds] for name in rounds[0]}
    systems = summed_up(rounds, OURS)
    return {"systems": {name: systems[name] | {"decoded": decoded[name]} for name in systems}}


def _ours(rig: Rig, stream: str, settings: Settings, i: int) -> dict[str, list[float]]:
    """Over ZeroMQ as it is set up by default, and cutting on arrival; and over LSL."""
    found = {}
    early = replace(settings, cut="arrived", backend="onnxruntime-cpu")
    ways = {OURS: settings, OURS_EARLY: early}
    if is_importable("numba"):
        ways[OURS_NUMBA] = replace(early, backend="numba-cpu")
    for name, way in ways.items():
        process = f"ours-{i}-{way.cut}-{way.backend}"
        endpoint = start_daemon(rig, process, stream, way)
        listener = Listener()
        listener.listen(endpoint, SETTLES_WITHIN_S + settings.seconds)
        taken_ms = listener.end_to_end_ms()
        found[name] = taken_ms[-round(settings.seconds / settings.hop_s) :].tolist()
        inlet = find_inlet("Decoder", name=f"{stream}-decodes", timeout_s=FOUND_WITHIN_S)
        found[f"{name}, over LSL"] = _received_ms(inlet, settings.seconds)
        rig.stop(process)
    return found


def _peer(
    rig: Rig, python: Path, file: str, stream: str, settings: Settings, i: int
) -> list[float]:
    out = f"{stream}-{file}-{i}"
    rig.run(
        file,
        [str(python), program(file), "--stream", stream, "--out", out, "--units",
         str(settings.n_units), "--hop", str(settings.hop_s)],
    )  # fmt: skip
    inlet = find_inlet("Decoder", name=out, timeout_s=FOUND_WITHIN_S)
    taken_ms = _received_ms(inlet, settings.seconds)
    rig.check(file)
    rig.stop(file)
    return taken_ms


def _received_ms(inlet: Inlet, seconds: float) -> list[float]:
    """Milliseconds from each decode's stamp to its arrival here, after a time to warm up."""
    clock, taken_s = MonotonicClock(), []
    inlet.open()
    t_start_s = clock.now() + WARM_S
    while (now_s := clock.now()) < t_start_s + seconds:
        _, stamps = inlet.pull(0.2)
        now_s = clock.now()
        if now_s >= t_start_s:
            taken_s += (now_s - stamps).tolist()
    inlet.close()
    return [float(1e3 * one) for one in np.array(taken_s)]
