"""What the bench makes of what it heard: columns, stages, ratios, usage and the picture."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.bench import machine
from service.bench.bare_timer import run_timer
from service.bench.figure import draw
from service.bench.listener import OURS, STAGES, Listener, runs, stages_ms, summary
from service.bench.loop import Settings
from service.bench.screen import beats_missed, conclude, memory_grown, show, spikes_dropped
from streams.clock import ManualClock, MonotonicClock

HOP_S, SETTLE_S = 0.02, 0.005
STEPS_S = {
    "ingest": 1e-4, "cut": 2e-4, "infer": 3e-4, "shape": 4e-4, "publish": 5e-4, "receive": 6e-4,
}  # fmt: skip


def heard(
    n: int,
    *,
    settled_from: int = 1,
    lost: tuple[int, ...] = (),
    skipped: int = 0,
    cut_by: str = "settled",
) -> Listener:
    """Beats 1 to n, each step of which takes as long as `STEPS_S` says; some decodes lost.

    Their last spikes come when the settle time is over, or 2 ms before.
    """
    listener = Listener()
    for k in range(1, n + 1):
        t_s = 1000.0 + k * HOP_S
        at = np.cumsum([SETTLE_S, *STEPS_S.values()]) + t_s
        decode = {
            "beat": k, "seq": k, "t_window": t_s, "t_cut": at[1], "t_done": at[3], "tokens": 9,
            "late": k % 10 == 0, "beats_skipped": skipped * (k > 1), "spikes_in": 9 * k,
            "spikes_late": 0, "spikes_dropped": 0, "backend": "onnxruntime-cpu",
            "decoder_id": "generated",
        }  # fmt: skip
        timing = {
            "beat": k, "lsl_age_s": 3e-3 if k % 2 else None, "t_window": t_s, "cut_by": cut_by,
            "t_arrival": at[0] - 2e-3 * (cut_by == "settled"), "t_cut": at[1],
            "t_due": at[0] + 5e-5 * (cut_by != "settled"),
            "t_tokens": at[2], "t_done": at[3], "run_s": 7e-4, "was_ahead": k % 4 > 0,
            "t_sent": at[4], "t_out": at[5], "t_end": at[5],
        }  # fmt: skip
        if k not in lost:
            listener._take(("decode", decode), at[6])
        listener._take(("timing", timing), at[6])
    beat = {"settled_from_beat": settled_from, "settle_ms": 5.0, "hop_ms": 20.0}
    counts = {"fates": {}, "spikes_in": 0, "spikes_pending": 0, "spikes_lost": 0}
    listener._take(("heartbeat", beat | counts), 0.0)
    listener._take(("event", {"event": "realtime", "detail": {"warning": "no"}}), 0.0)
    listener.bare_timer = {"missed": 3}
    return listener


@pytest.mark.parametrize("cut_by", ["settled", "watermark", "arrived"])
def test_the_stages_of_a_decode_are_told_apart(cut_by: str) -> None:
    """Waiting ends when the settle time does, or when the spikes come that end it earlier."""
    listener = heard(100, cut_by=cut_by)
    stages = stages_ms(listener)
    assert set(stages) == set(STAGES)
    np.testing.assert_allclose(stages["waiting"], 1e3 * SETTLE_S, atol=1e-6)
    parts = [stages[name] for name in ("waiting", *OURS)]
    np.testing.assert_allclose(np.add.reduce(parts), listener.end_to_end_ms(), atol=1e-6)
    assert summary(stages)["waiting_share"] == pytest.approx(
        SETTLE_S / (SETTLE_S + sum(STEPS_S.values()))
    )
    for name, taken_s in STEPS_S.items():
        np.testing.assert_allclose(stages[name], 1e3 * taken_s, atol=1e-6)
    assert summary(stages)["lsl_age_ms"]["max"] == pytest.approx(3.0)
    assert np.isnan(stages["lsl_age"]).sum() == 50


def test_decodes_made_ahead_are_counted_and_their_cost_told() -> None:
    told = runs(heard(100))
    assert told["ahead_share"] == 0.75
    assert told["run_ms"]["p99"] == pytest.approx(0.7)


def test_only_settled_beats_that_both_sides_tell_of_count() -> None:
    listener = heard(100, settled_from=51, lost=(60, 61))
    assert all(len(values) == 48 for values in stages_ms(listener).values())
    assert len(listener.end_to_end_ms()) == 48
    told = listener.summary()
    assert told["messages_lost"] == 2
    assert told["beats"] == 100
    assert told["realtime"] == [{"warning": "no"}]


def test_missed_beats_are_late_and_skipped_ones() -> None:
    told = heard(100, skipped=4).summary()
    assert (told["late_beats"], told["skipped_beats"], told["missed_beats"]) == (10, 4, 14)
    assert told["end_to_end_ms"]["p50"] == pytest.approx(1e3 * (SETTLE_S + sum(STEPS_S.values())))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        ({"missed_beats": 5}, []),
        ({"missed_beats": 6}, ["6 beats missed, where a bare timer was late for 3"]),
        ({"spikes_dropped": 1}, ["1 spikes dropped"]),
        (
            {"processes": {"daemon": {"growth": 0.02}}},
            ["the daemon's memory grew by 2.0% after the first minute"],
        ),
        ({"processes": {"daemon": {"growth": 0.005}}}, []),
    ],
)
def test_what_a_run_must_hold(changes: dict[str, Any], told: list[str]) -> None:
    result = {
        "missed_beats": 0, "bare_timer_late": 3, "spikes_dropped": 0,
        "processes": {"daemon": {"growth": None}},
    } | changes  # fmt: skip
    fell_short = [*spikes_dropped(result), *beats_missed(result), *memory_grown(result)]
    assert fell_short == told


@pytest.mark.parametrize("fell_short", [[], ["3 spikes dropped", "9 beats missed"]])
def test_a_run_ends_with_a_verdict(
    fell_short: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert conclude(fell_short, aloud=False) == (8 if fell_short else 0)
    assert capsys.readouterr().out == ""
    conclude(fell_short, aloud=True)
    wanted = "the loop did not hold: 3 spikes dropped; 9 beats missed\n"
    wanted = wanted if fell_short else "the loop held\n"
    assert capsys.readouterr().out == wanted


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    listener = heard(100)
    stages, path = stages_ms(listener), tmp_path / "loop.png"
    settings = Settings(n_units=9, rate_hz=20.0, hop_s=HOP_S, seconds=2.0, block_s=0.005)
    floor = {"p50": 0.2, "p99": 0.4}
    result = listener.summary() | summary(stages) | {"settings": settings.as_dict()}
    result["floors_ms"] = dict.fromkeys(("zmq_send", "zmq_receive", "zmq_hop", "lsl_hop"), floor)
    draw(path, result, stages, listener.end_to_end_ms())
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="reads Linux's /proc")
def test_time_that_other_virtual_machines_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    total, stolen = machine.processor_ticks() or (0, 0)
    assert 0 <= stolen < total
    monkeypatch.setattr(machine, "processor_ticks", lambda: (total + 400, stolen + 100))
    assert machine.describe((total, stolen))["stolen"] == 0.25


def test_the_machine_is_described() -> None:
    told = machine.describe(None)
    assert told["stolen"] is None
    assert told["cores"] >= 1
    assert told["libraries"]["numpy"] == np.__version__
    assert {"cpu", "kernel", "governor", "load_average", "python"} <= set(told)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's /proc")
def test_usage_is_that_of_the_process() -> None:
    usage, clock = machine.Usage({"me": os.getpid(), "gone": 2**22 + 1}), MonotonicClock()
    usage.sample(clock.now())
    held_bytes = bytearray(64 * 2**20)
    t_end_s = clock.now() + 0.3
    while clock.now() < t_end_s:
        held_bytes[0] ^= 1
    usage.sample(clock.now())
    told = usage.summary()
    assert told["me"]["rss_mib"] > 64
    assert told["me"]["growth"] is None
    assert 0 < told["me"]["cores"] < 2
    assert told["gone"]["cores"] == 0


def test_growth_counts_from_the_first_minute_on() -> None:
    usage = machine.Usage({"daemon": 1})
    for t_s, n in ((0.0, 100), (30.0, 200), (61.0, 300), (90.0, 330), (120.0, 303)):
        usage.add(t_s, {"daemon": (0.0, n)})
    assert usage.summary()["daemon"]["growth"] == pytest.approx(0.1)


def test_a_bare_timer_on_a_perfect_clock_misses_nothing() -> None:
    counts = run_timer(ManualClock(5.0), 0.02, 2.0)
    assert (counts.beats, counts.missed) == (100, 0)


class Sluggish(ManualClock):
    """Every tenth wait returns 1.4 hops late."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.n = 0

    def sleep_until(self, t_s: float) -> None:
        self.n += 1
        super().sleep_until(t_s + 0.028 * (self.n % 10 == 0))


def test_a_bare_timer_counts_what_the_machine_misses() -> None:
    counts = run_timer(Sluggish(), 0.02, 2.0)
    assert counts.late == pytest.approx(9, abs=1)
    assert counts.beats + counts.skipped == pytest.approx(100, abs=2)


def test_null_is_no_number() -> None:
    listener = heard(2)
    assert math.isnan(listener.timings["lsl_age_s"][1])


def test_the_docs_describe_every_field() -> None:
    doc = (Path(__file__).parents[2] / "docs" / "latency.md").read_text()
    _, _, section = doc.partition("## What `spikeloop bench loop --json` says")
    listener = heard(20)
    fields = listener.summary() | summary(stages_ms(listener))
    settings = Settings(n_units=9, rate_hz=20.0, hop_s=HOP_S, seconds=2.0, block_s=0.005)
    named = {*fields, *settings.as_dict(), "settings", "processes", "machine", "growth", "rss_mib"}
    assert not {name for name in named if f"`{name}`" not in section}


def test_listening_that_is_cut_short_keeps_no_process() -> None:
    code = (
        "import zmq; from service.bench.listener import Listener\n"
        "def cut_short(_): raise KeyboardInterrupt\n"
        "try: Listener().listen('tcp://127.0.0.1:9', 1.0, cut_short)\n"
        "except KeyboardInterrupt: zmq.Context.instance().term()  # waits for what is open"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=10.0)
    assert done.returncode == 0


def test_a_terminal_that_is_closed_leaves_no_process_behind() -> None:
    code = (
        "import os, signal, sys, time; from service.bench.rig import Rig\n"
        "with Rig() as rig:\n"
        "    rig.run('child', [sys.executable, '-c', 'import signal; signal.pause()'])\n"
        "    print(rig.pids()['child'], flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGHUP)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        stdin=subprocess.PIPE, text=True, timeout=30.0, check=False,
    )  # fmt: skip
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_a_result_without_latencies_is_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    show("the title", {"targets_acquired": 12}, as_json=False)
    told = capsys.readouterr().out
    assert "the title" in told
    assert "targets acquired" in told
    assert "milliseconds" not in told
