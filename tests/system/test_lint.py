"""`spikeloop lint` on real LSL, on outlets that pylsl makes as other programs do."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pylsl

from tests.system.conftest import UNIT_KEYS
from tests.system.running import Process, clock, unique, wait_until
from tests.system.sources import Living

Run = Callable[..., Process]


def outlet(name: str, n: int, fmt: str = "int32", **more: Any) -> pylsl.StreamOutlet:
    """An outlet as a program of somebody else makes it, without labels unless they are given."""
    labels = more.pop("labels", None)
    chosen = {"type": "Spikes", "nominal_srate": 0.0, "source_id": name} | more
    info = pylsl.StreamInfo(name, channel_count=n, channel_format=fmt, **chosen)
    if labels:
        info.set_channel_labels(list(labels))
    return pylsl.StreamOutlet(info)


class Sender:
    """Pushes blocks of 20 ms with one stamp, `[channel, unit, waveform]`, as simulators do."""

    def __init__(self, name: str, shift_s: float = 0.0) -> None:
        labels = [str(i) for i in range(12)]
        self._outlet = outlet(name, 12, "int16", type="SpikeEvents", labels=labels)
        self._rng, self._shift_s, self._next_s = np.random.default_rng(0), shift_s, 0.0

    def send_due(self) -> None:
        """Push the block that is due."""
        now_s = pylsl.local_clock()
        if now_s < self._next_s:
            return
        self._next_s = now_s + 0.02
        rows = self._rng.integers(-50, 50, (10, 12)).astype(np.int16)
        rows[:, 0], rows[:, 1] = self._rng.integers(0, 8, 10), 0
        self._outlet.push_chunk(rows, now_s + self._shift_s)


def told(process: Process, each: Callable[[], object]) -> dict[str, Any]:
    """What it wrote when it has ended; its sources are fed meanwhile."""
    wait_until(lambda: not process.is_alive, each)
    assert "Traceback" not in process.err
    content: dict[str, Any] = json.loads(process.out)
    return content


def levels(report: dict[str, Any]) -> dict[str, str]:
    return {one["what"]: one["level"] for one in report["findings"]}


def test_a_sound_stream_and_its_progress_without_a_terminal(
    run: Run, source: Living, stream: str
) -> None:
    lint = run("lint", stream, "--seconds", "3", "--wait", "1.5", "--json")
    reports = told(lint, source.send_due)["streams"]
    assert lint.code() == 0, lint.err
    assert [one["stream"]["name"] for one in reports] == [stream]
    assert reports[0]["measured"]["units"] == len(UNIT_KEYS)
    assert reports[0]["measured"]["keep_alives"] > 10
    assert "stop" not in levels(reports[0]).values()
    assert f"samples of {stream}" in lint.err


def test_blocks_with_one_stamp_and_the_stamps_of_another_clock(run: Run) -> None:
    plain, unix = unique("plain"), unique("unix")
    senders = [Sender(plain), Sender(unix, time.time() - pylsl.local_clock())]

    def feed() -> None:
        for one in senders:
            one.send_due()

    lints = [
        run("lint", name, "--seconds", "2", "--wait", "1.5", "--json") for name in (plain, unix)
    ]
    reports = [told(one, feed)["streams"][0] for one in lints]
    assert [one.code() for one in lints] == [0, 1]
    assert levels(reports[0])["equal stamps"] == "warn"
    assert reports[1]["findings"][1]["what"] == "clock"
    assert "look like Unix time" in reports[1]["findings"][1]["found"]


def test_ctrl_c_tells_what_was_found_so_far(run: Run, source: Living, stream: str) -> None:
    lint = run("lint", stream, "--seconds", "600", "--json")
    wait_until(lambda: re.search(f"samples of {stream} [1-9]", lint.err), source.send_due)
    lint.signal(signal.SIGINT)
    report = told(lint, source.send_due)["streams"][0]
    assert lint.code() == 0, report["findings"]
    assert 0 < report["seconds"] < 600
    assert report["measured"]["units"] == len(UNIT_KEYS)


def test_two_streams_of_one_name_are_both_told(run: Run) -> None:
    name = unique("twins")
    twins = [outlet(name, 1, "string", type="Markers", source_id=f"{name}-{i}") for i in range(2)]
    lint = run("lint", name, "--type", "Markers", "--seconds", "1", "--wait", "1.5", "--json")
    each = iter(range(10**9))

    def feed() -> None:
        for one in twins:
            one.push_sample([f"event {next(each)}"])
        clock.sleep_until(clock.now() + 0.02)

    reports = told(lint, feed)["streams"]
    assert lint.code() == 0
    assert len(reports) == 2
    assert all(levels(one)["doubles"] == "warn" for one in reports)
    assert all(one["measured"]["markers"] for one in reports)


def test_streams_that_no_decoder_can_read_and_none(run: Run) -> None:
    name = unique("unlabelled")
    held = outlet(name, 4, nominal_srate=50.0)
    lint = run("lint", name, "--seconds", "1", "--wait", "1.5")
    wait_until(lambda: not lint.is_alive, lambda: held.push_sample([1, 0, 2, 0]))
    assert lint.code() == 3
    assert "needs a distinct label" in " ".join(lint.out.split())
    absent = run("lint", unique("absent"), "--wait", "0.5")
    assert absent.code() == 3
    assert "visible" in absent.err
    assert run("lint", name, "--seconds", "0").code() == 2


def test_the_help_tells_the_exit_codes(run: Run) -> None:
    lint = run("lint", "--help")
    assert lint.code() == 0
    assert "exit codes" in lint.out
