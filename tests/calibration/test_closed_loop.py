"""What the linear filter and following drift are worth to a subject that drives; in full runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.days.closed_loop import drive
from calibration.adaptation.adapt import adapt
from calibration.adaptation.adapted import write_child
from export.bundle import open_bundle
from streams.sessions.nwb.writer import write_session
from streams.simulation.openloop import record_open_loop
from tests.calibration.recalibrated import BASE, DAY, SUBJECT

LEARNT_S, HELD_OUT_S, JUDGED_S = 60.0, 20.0, 240.0
N_SEEDS = 8
NO_FILTER = ("filter_rows", "filter_centre", "blend")
LEFT_OUT = {"network": (*NO_FILTER, "follow"), "filter": ("follow",), "filter and drift": ()}


@pytest.mark.skipif("SPIKELOOP_FULL" not in os.environ, reason="takes long: SPIKELOOP_FULL=1")
def test_filter_and_following_drift_gain_targets(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    rates = [_rates(tmp_path / str(seed), seed) for seed in range(N_SEEDS)]
    record_property("targets a minute", str(rates))
    network, filtered, both = (np.mean([rate[name] for rate in rates]) for name in LEFT_OUT)
    assert filtered > network, rates
    assert both > network, rates


def _rates(folder: Path, seed: int) -> dict[str, float]:
    """Targets a minute by the same adapted decoder, whole and with parts of it silenced."""
    folder.mkdir(parents=True)
    learnt = record_open_loop(
        SUBJECT, DAY, (LEARNT_S + HELD_OUT_S) / 60.0, task="centre-out", seed=100 + seed
    )
    write_session(learnt, folder / "open-loop.nwb")
    adapt(
        BASE,
        folder / "open-loop.nwb",
        out=folder / "adapted",
        seconds=LEARNT_S,
        same_array=True,
        test=f"last:{HELD_OUT_S / learnt.duration_s}",
        seed=seed,
    )
    rates = {}
    for name, left_out in LEFT_OUT.items():
        _silenced(folder / "adapted", left_out, folder / name)
        rates[name] = drive(folder / name, SUBJECT, DAY, JUDGED_S, seed=200 + seed).per_min
    return rates


def _silenced(path: Path, left_out: tuple[str, ...], out: Path) -> None:
    """The decoder with some of its tables zero."""
    bundle = open_bundle(path)
    tables = {n: t * np.float32(n not in left_out) for n, t in bundle.tables.items()}
    fields = bundle.manifest.model_dump(mode="json") | {"name": out.name.replace(" ", "-")}
    graph = bundle.graph_path.read_bytes()
    write_child(out, bundle, fields, graph=graph, tables=tables, learnt={})
