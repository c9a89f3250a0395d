"""A run with everything in it: recorded, killed with SIGKILL, and made again bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

IS_FULL = bool(os.environ.get("SPIKELOOP_FULL"))
SHORT = ("--seconds", "4", "--units", "40", "--hop-ms", "20", "--part-mb", "0.1")
FULL = ("--seconds", "1200", "--units", "1000", "--hop-ms", "10")


@pytest.mark.long
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((*SHORT, "--token-cap", "14"), id="short"),
        pytest.param(FULL, id="full", marks=pytest.mark.skipif(not IS_FULL, reason="20 minutes")),
    ],
)
def test_swap_pause_shaping_outage_late_spikes_failover_and_kill(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "benchmarks.recorded_run", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    heard, record, report = told["heard"], told["record"], told["redecode"]
    happened = {
        "paused",
        "shaped",
        "promote",
        "source_lost",
        "source_back",
        "fell_back",
        "rollback",
    }
    assert happened <= set(heard["events"])
    assert heard["fates"]["late"] > 0
    if "--token-cap" in arguments:
        assert heard["fates"]["overflow"] > 0
    assert record["parts"] > 1
    assert record["lost_s"] <= 0.5
    assert record["heard_and_recorded"] > 0.95 * heard["decodes"]
    assert record["differing_from_heard"] == 0
    assert report["bit_for_bit"]
    assert report["compared"] == report["decodes"] > record["heard_and_recorded"]
    for what in ("differing", "other_values", "other_tokens", "other_checkpoints"):
        assert report[what] == 0
    assert report["checkpoints"] == record["parts"] - 1
    assert len(report["by_decoder"]) == 3
    assert {"ok", "paused", "backend_error", "context_short"} <= set(report["by_reason"])
    assert report["times_real_time"] > 1
