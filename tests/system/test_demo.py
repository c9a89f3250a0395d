"""The loop closed, in real processes: with the right decoder, and with the control."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.bench.screen import beats_missed
from streams.clock import MonotonicClock

SECONDS = 30
SPIKELOOP = [sys.executable, "-c", "import sys; from service.cli import main; sys.exit(main())"]
PERCENTILES = {"p50", "p95", "p99", "p999", "max"}


def processes_that_mention(text: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found


@pytest.fixture(scope="module")
def both() -> dict[str, tuple[int, dict]]:
    """The demo and its control, side by side: exit code and result of each."""
    command = [*SPIKELOOP, "demo", "--seconds", str(SECONDS), "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = {
        "closed": subprocess.Popen(command, **pipes),
        "shuffled": subprocess.Popen([*command, "--shuffle-units"], **pipes),
    }
    ended = {}
    for name, process in running.items():
        out, err = process.communicate(timeout=240)
        assert out, err
        ended[name] = process.returncode, json.loads(out)
    return ended


@pytest.fixture
def closed_loop(both) -> tuple[int, dict]:
    return both["closed"]


@pytest.fixture
def shuffled(both) -> tuple[int, dict]:
    return both["shuffled"]


@pytest.mark.alone
def test_demo_acquires_targets(closed_loop):
    _, result = closed_loop
    assert result["targets_acquired"] >= 8
    assert sum(result["r2_velocity"]) > 0.0


@pytest.mark.alone
def test_demo_reports_every_field(closed_loop):
    _, result = closed_loop
    assert set(result["decode_ms"]) >= PERCENTILES
    assert set(result["end_to_end_ms"]) >= PERCENTILES
    assert result["missed_beats"] == result["late_beats"] + result["skipped_beats"]
    for field in ("acquisition_s_median", "bare_timer_late", "settle_ms", "backend", "decoder_id"):
        assert result[field] is not None


@pytest.mark.alone
def test_every_spike_of_the_demo_has_its_fate(closed_loop):
    _, result = closed_loop
    assert sum(result["fates"].values()) == result["spikes_in"] > 0
    assert result["spikes_dropped"] == 0
    assert result["spikes_lost"] == 0
    assert result["messages_lost"] == 0


@pytest.mark.alone
def test_exit_code_says_whether_the_loop_held(closed_loop):
    code, result = closed_loop
    held = result["targets_acquired"] >= 8 * SECONDS / 30 and not beats_missed(result)
    assert code == (0 if held else 8)


@pytest.mark.alone
def test_control_with_shuffled_units_acquires_a_fifth_at_most(closed_loop, shuffled):
    code, result = shuffled
    assert result["targets_acquired"] <= closed_loop[1]["targets_acquired"] / 5
    assert code == 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_leaves_no_process(tmp_path, number):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    demo = subprocess.Popen(
        [*SPIKELOOP, "demo", "--json"], env=environment, stdout=subprocess.PIPE, text=True
    )
    clock = MonotonicClock()
    t_end_s = clock.now() + 60.0
    while not processes_that_mention(f"spikeloop-demo-{demo.pid}") and clock.now() < t_end_s:
        clock.sleep_until(clock.now() + 0.05)
    assert processes_that_mention(f"spikeloop-demo-{demo.pid}")
    demo.send_signal(number)
    demo.communicate(timeout=60)
    assert demo.returncode == 0
    assert not processes_that_mention(f"spikeloop-demo-{demo.pid}")
    assert not processes_that_mention(str(tmp_path))
    assert not list(tmp_path.glob("spikeloop-*"))


def test_a_subject_that_died_is_named_as_the_reason():
    """The daemon then finds no stream, which is what would be told otherwise."""
    command = [*SPIKELOOP, "demo", "--seconds", "5", "--day", "-1", "--json"]
    demo = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert demo.returncode == 2
    assert "subject ended with code 2" in demo.stderr
    assert "no stream" not in demo.stderr
