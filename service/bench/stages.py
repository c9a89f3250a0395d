"""Decode times stage by stage, from the daemon's `timing` messages."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from service.bench.listener import Listener
from service.telemetry.percentiles import percentiles
from streams.messages import Float64s

STAGES = {
    "lsl_age": "LSL: a spike's arrival after its stamp",
    "wait": "wait: cutting starts after it is due",
    "cut": "cut: ring to tokens; nothing where decoded ahead",
    "infer": "infer: the graph, or its decode made ahead confirmed",
    "shape": "shape: judged, shaped, message made",
    "publish": "publish: written and given to ZeroMQ",
    "receive": "receive: read by the subscriber",
}
SUMS = {"deliver": ("shape", "publish", "receive"), "ours": tuple(STAGES)[1:]}
"""What a client waits for once the value is there, and once the cut is due."""
FLOOR_OF = {
    "lsl_age": "lsl_hop", "wait": "wake", "publish": "zmq_send", "receive": "zmq_receive",
    "deliver": "zmq_hop",
}  # fmt: skip
"""What the same machine needs for a stage if nothing is done in it (`bare_hop`)."""


def stages_ms(listener: Listener) -> dict[str, Float64s]:
    """Return (n_decodes,) milliseconds per stage, for settled beats that both sides report."""
    decodes, timings = listener.decodes, listener.timings
    of_beat, i_decode, i_timing = np.intersect1d(
        decodes["beat"], timings["beat"], return_indices=True
    )
    settled = of_beat >= listener.heartbeat["settled_from_beat"]
    received = decodes["received"][i_decode[settled]]
    t = {
        name: timings[name][i_timing[settled]]
        for name in ("t_due", "t_cut", "t_tokens", "t_done", "t_sent", "t_out")
    }
    taken_s = {
        "lsl_age": timings["lsl_age_s"][i_timing[settled]],
        "wait": t["t_cut"] - t["t_due"],
        "cut": t["t_tokens"] - t["t_cut"],
        "infer": t["t_done"] - t["t_tokens"],
        "shape": t["t_sent"] - t["t_done"],
        "publish": t["t_out"] - t["t_sent"],
        "receive": received - t["t_out"],
    }
    return {name: 1e3 * values for name, values in taken_s.items()}


def runs(listener: Listener) -> dict[str, Any]:
    """`ahead_share` of the settled beats that were decoded ahead, and `run_ms`, all the same."""
    timings = listener.timings
    settled = timings["beat"] >= listener.heartbeat["settled_from_beat"]
    run_ms, was_ahead = 1e3 * timings["run_s"][settled], timings["was_ahead"][settled]
    share = float(was_ahead.mean()) if len(was_ahead) else math.nan
    return {"ahead_share": share, "run_ms": percentiles(run_ms.tolist())}


def summary(stages: dict[str, Float64s]) -> dict[str, Any]:
    """`NAME_ms`: percentiles of each stage, and of the `SUMS`."""
    sums: dict[str, Float64s] = {
        name: np.add.reduce([stages[part] for part in parts]) for name, parts in SUMS.items()
    }
    return {
        f"{name}_ms": percentiles(values[np.isfinite(values)].tolist())
        for name, values in (stages | sums).items()
    }
