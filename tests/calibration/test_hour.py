"""Memory carried for long: the graph stays with torch, and what it decodes stays as good.

`SPIKELOOP_FULL=1` decodes an hour of a simulated session, else some minutes.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from calibration.evaluate import evaluate
from streams.sessions.nwb.writer import write_session
from streams.simulation.openloop import record_open_loop

FULL = os.environ.get("SPIKELOOP_FULL", "") not in ("", "0")
MINUTES = 60.0 if FULL else 2.0
BLOCK_S = 600.0 if FULL else 30.0
DEMO = Path(__file__).parents[2] / "configs" / "bundles" / "demo"
MOST_LOST = 0.05
ATOL = 1e-4


def test_decodes_neither_drift_from_torch_nor_get_worse(tmp_path: Path) -> None:
    """The shipped decoder, 180,000 beats in the hour."""
    path = tmp_path / "long.nwb"
    write_session(record_open_loop(1, 7, MINUTES, 96, "random", seed=9), path)
    result = evaluate(DEMO, [path], split="all", blocks_s=BLOCK_S, against="torch")
    (session,) = result["sessions"].values()
    assert session["seconds"] == MINUTES * 60.0
    for name, difference in session["largest_difference"].items():
        assert 0.0 < difference < ATOL, name
    blocks = session["by_time"]
    assert len(blocks) == round(MINUTES * 60.0 / BLOCK_S)
    for name in session["largest_difference"]:
        r2 = np.array([np.mean(block["r2"][name]) for block in blocks])
        assert r2[-1] > r2[0] - MOST_LOST, name
        assert r2.min() > 0.6, name
