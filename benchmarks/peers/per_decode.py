"""Time one decode: POYO in eager torch, POYO through ONNX Runtime, and our decoder."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.asked import AskedProgram
from benchmarks.peers.environment import program
from export.backends.table import BACKENDS, Backend, is_importable
from export.bundle import DecoderBundle, open_bundle
from export.random_bundles.derived import derive_bundle
from export.shipped import bundle_path
from service.bench.rig import Rig
from service.bench.sender import unit_keys
from streams.clock import Clock, MonotonicClock
from streams.messages import TokenWindow

N_EAGER, N_ONNX, N_OURS = 10, 20, 1000
N_WARM = 5
EAGER, ONNX, OURS = "POYO 1.3M, torch eager", "POYO 1.3M, ONNX Runtime", "spikeloop"
OURS_NUMBA = "spikeloop, numba-cpu"


def per_decode(
    rig: Rig, python: Path, *, n_units: int, rate_hz: float, hop_s: float, n_rounds: int
) -> dict[str, Any]:
    """Time decodes of each in turn, `n_rounds` times; ours also by numba where that is installed.

    Args:
        rig: where the processes run.
        python: the peers' interpreter.
        n_units: units that fire.
        rate_hz: spikes per second of each.
        hop_s: between our decodes; POYO takes a window of a second.
        n_rounds: how often each has its turn.

    Returns:
        Per system, `median_ms` of each round; `ratio` of each round to ours.
    """
    checkpoint = rig.path / "poyo.ckpt"
    command = [
        str(python), program("poyo_eager"), "--units", str(n_units), "--rate", str(rate_hz),
        "--checkpoint", str(checkpoint),
    ]  # fmt: skip
    rounds: list[dict[str, list[float]]] = []
    with AskedProgram(command, rig.path / "poyo.err") as eager_torch:
        shape = eager_torch.ask()
        theirs, ours = _exported(rig, checkpoint), _ours(rig, n_units, hop_s)
        poyo = BACKENDS["onnxruntime-cpu"](theirs, "fp32")
        loops = {OURS: BACKENDS["onnxruntime-cpu"](ours, "fp32")}
        if is_importable("numba"):
            loops[OURS_NUMBA] = BACKENDS["numba-cpu"](ours, "fp32")
        clock = MonotonicClock()
        eager_torch.ask(str(N_WARM))
        for _ in range(n_rounds):
            eager = eager_torch.ask(str(N_EAGER))
            rounds.append(
                {
                    EAGER: eager["forward"],
                    f"{EAGER}, with its tokenizer": eager["whole"],
                    ONNX: _timed_ms(poyo, theirs, n_units * rate_hz, N_ONNX, clock),
                    **{
                        name: _timed_ms(loop, ours, n_units * rate_hz, N_OURS, clock)
                        for name, loop in loops.items()
                    },
                }
            )
    return {"parameters_of_poyo": shape["parameters"], "systems": summed_up(rounds, OURS)}


def summed_up(rounds: list[dict[str, list[float]]], ours: str) -> dict[str, Any]:
    """Per system its median and p99 of each round, and their ratios to ours in the same round."""
    return {name: _of_system(rounds, name, ours) for name in rounds[0]}


def _of_system(
    rounds: list[dict[str, list[float]]], name: str, ours: str
) -> Mapping[str, list[float]]:
    result: dict[str, list[float]] = {}
    for told, q in (("median", 0.5), ("p99", 0.99)):
        here = [float(np.quantile(one[name], q)) for one in rounds]
        there = [float(np.quantile(one[ours], q)) for one in rounds]
        result[f"{told}_ms"] = here
        result[f"{told}_ratio"] = [a / b for a, b in zip(here, there, strict=True)]
    return result


def _exported(rig: Rig, checkpoint: Path) -> DecoderBundle:
    out = rig.path / "poyo-bundle"
    rig.start("export", "export", str(checkpoint), "-o", str(out), "--hop-ms", "1000")
    rig.finish("export")
    return open_bundle(out)


def _ours(rig: Rig, n_units: int, hop_s: float) -> DecoderBundle:
    return derive_bundle(
        open_bundle(bundle_path("shipped:demo")),
        rig.path / "streaming-bundle",
        unit_keys=unit_keys(n_units),
        hop_s=hop_s,
        bin_s=hop_s,
    )


def _timed_ms(
    backend: Backend, bundle: DecoderBundle, spikes_per_s: float, n: int, clock: Clock
) -> list[float]:
    window, taken_ms = _window(bundle, spikes_per_s), []
    for _ in range(N_WARM + n):
        t_s = clock.now()
        backend.step(window, 0.0)
        taken_ms.append(1e3 * (clock.now() - t_s))
    return taken_ms[N_WARM:]


def _window(bundle: DecoderBundle, spikes_per_s: float) -> TokenWindow:
    bin_s, rng = bundle.manifest.bin_s, np.random.default_rng(0)
    n = max(1, round(spikes_per_s * bin_s))
    return TokenWindow(
        unit=rng.integers(0, len(bundle.row_of_key), n, dtype=np.int32),
        t_rel=np.sort(rng.uniform(0, bin_s, n)).astype(np.float32),
        count=np.ones(n, np.float32),
        t_window=0.0,
    )


def say(text: str) -> None:
    """Tell a person what takes long; results go to standard output."""
    sys.stderr.write(text + "\n")
