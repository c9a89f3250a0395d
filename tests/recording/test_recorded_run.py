"""A run with everything in it: recorded, killed with SIGKILL, and made again bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recording.recorded import redecoded

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
def test_swap_pause_shaping_outage_late_spikes_failover_and_kill(
    arguments: list[str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "benchmarks.recorded_run", "--json", "--folder", str(tmp_path)]
    command += arguments
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
    by_another = redecoded(Path(record["path"]), "--backend", "onnxruntime-cpu")
    assert not by_another["bit_for_bit"]
    assert by_another["compared"] == report["compared"]
    assert 0 < by_another["largest_difference"] <= by_another["allowed"]
