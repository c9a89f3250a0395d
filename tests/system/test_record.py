"""`spikeloop record` with real senders that restart, change, vanish or stamp with another clock."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pylsl
import pytest
import pyxdf

from streams.sessions.reading import read_session
from tests.system.running import Process, clock, unique, wait_until

LABELS = ("channel", "unit", "seq")


class Sender:
    """A program of spikes that the test starts, stops and starts again.

    Args:
        name: of its stream.
        source_id: of it.
        labels: of its channels.
        offset_s: added to LSL's time for its stamps.
    """

    def __init__(
        self,
        name: str,
        source_id: str = "",
        labels: tuple[str, ...] = LABELS,
        offset_s: float = 0.0,
    ) -> None:
        info = pylsl.StreamInfo(
            name, "Spikes", len(labels), pylsl.IRREGULAR_RATE, pylsl.cf_int32, source_id
        )
        info.set_channel_labels(list(labels))
        self._outlet: pylsl.StreamOutlet | None = pylsl.StreamOutlet(info)
        self._offset_s, self._n_channels = offset_s, len(labels)
        self.n = 0

    def has_listener(self) -> bool:
        return self._outlet is not None and bool(self._outlet.have_consumers())

    def send(self) -> None:
        """A spike, if somebody listens."""
        if self._outlet is not None and self.has_listener():
            sample = np.array([1 + self.n % 5, 1, self.n][: self._n_channels], np.int32)
            self._outlet.push_sample(sample, pylsl.local_clock() + self._offset_s)
            self.n += 1

    def close(self) -> None:
        self._outlet = None


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `spikeloop record` to `a.xdf`."""
    started: list[Process] = []

    def begin(stream: str, *more: str) -> Process:
        files = str(tmp_path / "a.xdf"), "--status", str(tmp_path / "status.json")
        started.append(
            Process(tmp_path, "record", *files, "--stream", stream, "--wait", "20", *more)
        )
        return started[-1]

    yield begin
    for one in started:
        one.kill()


def told(recorder: Process) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(recorder.out)
    return status


def until_heard(sender: Sender, n: int) -> None:
    wait_until(lambda: sender.n >= n, sender.send)


def until_recorded(folder: Path, n: int) -> None:
    """Wait until the recorder tells of so many samples."""

    def is_recorded() -> bool:
        try:
            status = json.loads((folder / "status.json").read_text())
        except FileNotFoundError:
            return False
        return bool(sum(one["samples"] for one in status["streams"].values()) >= n)

    wait_until(is_recorded)


def samples_in(path: Path) -> list[int]:
    streams, _ = pyxdf.load_xdf(path)
    return [len(one["time_stamps"]) for one in streams]


def test_a_recording_in_which_nothing_is_lost_ends_with_0(start: Start, tmp_path: Path) -> None:
    name = unique("well")
    sender = Sender(name, "app")
    recorder = start(f"Spikes:{name}@{socket.gethostname()}")
    until_heard(sender, 100)
    until_recorded(tmp_path, sender.n)
    recorder.signal(signal.SIGINT)
    assert recorder.code() == 0, recorder.err
    assert told(recorder)["lost"] == []
    assert samples_in(tmp_path / "a.xdf") == [sender.n]
    sender.close()


@pytest.mark.parametrize(
    "source_ids", [("", "", ""), ("app-1", "app-2", "app-3"), ("app", "app", "app")]
)
def test_a_sender_that_restarts_twice_is_recorded_on(
    start: Start, tmp_path: Path, source_ids: tuple[str, ...]
) -> None:
    name, n_sent = unique("restarts"), []
    recorder = start(f"Spikes:{name}")
    for i, source_id in enumerate(source_ids):
        sender = Sender(name, source_id)
        until_heard(sender, 100)
        n_sent.append(sender.n)
        until_recorded(tmp_path, sum(n_sent))
        if i < len(source_ids) - 1:
            sender.close()
            wait_until(lambda i=i: recorder.err.count("is away") == i + 1)
    recorder.signal(signal.SIGINT)
    assert recorder.code() == 1
    status = told(recorder)
    assert status["streams"][name]["samples"] == sum(n_sent)
    assert samples_in(tmp_path / "a.xdf") == n_sent
    last_lines = recorder.err.strip().splitlines()[-2:]
    assert all(f"{name!r} was away from" in line for line in last_lines)
    assert all(one["from_s"] < one["to_s"] for one in status["outages"])
    converter = Process(tmp_path, "convert", str(tmp_path / "a.xdf"), "-o", str(tmp_path / "a.nwb"))
    assert converter.code() == 0, converter.err
    assert "made anew 2 times" in converter.err
    assert len(read_session(tmp_path / "a.nwb").spikes) == sum(n_sent)


def test_a_sender_that_goes_for_good_is_said(start: Start, tmp_path: Path) -> None:
    name = unique("gone")
    recorder = start(f"Spikes:{name}", "--seconds", "6")
    sender = Sender(name, "app")
    until_heard(sender, 50)
    until_recorded(tmp_path, sender.n)
    sender.close()
    assert recorder.code() == 1
    assert "nothing came of it after" in recorder.err.splitlines()[-1]
    assert samples_in(tmp_path / "a.xdf") == [sender.n]


def test_a_sender_that_returns_with_other_channels_is_not_recorded(
    start: Start, tmp_path: Path
) -> None:
    name = unique("other")
    recorder = start(f"Spikes:{name}")
    first = Sender(name, "app")
    until_heard(first, 50)
    until_recorded(tmp_path, first.n)
    first.close()
    wait_until(lambda: "is away" in recorder.err)
    other = Sender(name, "app", ("unit", "channel", "seq"))
    wait_until(lambda: "other channels than before (unit, channel, seq)" in recorder.err)
    other.close()
    again = Sender(name, "app")
    until_heard(again, 50)
    until_recorded(tmp_path, first.n + again.n)
    recorder.signal(signal.SIGTERM)
    assert recorder.code() == 1
    assert samples_in(tmp_path / "a.xdf") == [first.n, again.n]
    again.close()


def test_stamps_of_another_clock_are_refused_and_arrival_is_recorded(
    start: Start, tmp_path: Path
) -> None:
    name = unique("unix")
    sender = Sender(name, "app", offset_s=time.time() - pylsl.local_clock())
    refused = start(f"Spikes:{name}")
    wait_until(lambda: not refused.is_alive, sender.send)
    assert refused.code() == 3
    assert "they look like Unix time" in refused.err
    assert "--stamps arrival" in refused.err
    assert not (tmp_path / "a.xdf").exists()
    recorder = start(f"Spikes:{name}", "--stamps", "arrival")
    wait_until(lambda: not sender.has_listener())
    begin_s, n_before = clock.now(), sender.n
    until_heard(sender, n_before + 100)
    until_recorded(tmp_path, sender.n - n_before)
    recorder.signal(signal.SIGINT)
    assert recorder.code() == 0, recorder.err
    assert "stamped with their arrival" in recorder.err
    (stream,), _ = pyxdf.load_xdf(tmp_path / "a.xdf")
    assert (stream["time_stamps"] > begin_s).all()
    assert (stream["time_stamps"] < clock.now()).all()
    sender.close()


def test_a_stream_of_another_host_is_not_taken(start: Start) -> None:
    name = unique("host")
    sender = Sender(name, "app")
    recorder = start(f"Spikes:{name}@elsewhere", "--wait", "2")
    assert recorder.code() == 3
    assert "hostname='elsewhere'" in recorder.err
    sender.close()
