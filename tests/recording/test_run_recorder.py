"""The recorder's thread in the daemon: no fault of one record or disk ends the recording."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from export.bundle import DecoderBundle
from service.telemetry.recording import run_recorder
from service.telemetry.recording.frames import BEGIN_PART, RECORDS, parts_of, record
from service.telemetry.recording.recorder_pipe import RecorderPipe
from service.telemetry.recording.run_journal import RunJournal
from service.telemetry.recording.run_recorder import RecordingLimits, RunRecorder
from streams.clock import MonotonicClock
from tests.export.tiny_graph import write_tiny_bundle
from tests.service.beat_rig import UNIT_KEYS, BeatRig

WITHIN_S = 10.0
clock = MonotonicClock()
Told = list[tuple[str, dict[str, Any]]]


class Rig:
    """A recorder beside a loop that makes checkpoints when it is asked."""

    def __init__(self, bundle: DecoderBundle, folder: Path, **facts: Any) -> None:
        self.journal, self.told = RunJournal(), Told()
        self.loop = BeatRig(bundle, journal=self.journal).loop
        self.recorder = RunRecorder(
            self.journal, folder, RecordingLimits(0, 10**6), {"run_id": "0000000a", **facts},
            list(UNIT_KEYS), clock, lambda event, detail: self.told.append((event, detail)),
        )  # fmt: skip

    def until(self, is_so: Callable[[], bool]) -> None:
        t_end_s = clock.now() + WITHIN_S
        while not is_so():
            assert clock.now() < t_end_s, self.told
            self.journal.beat_over(self.loop, clock.now())
            clock.sleep_until(clock.now() + 0.01)

    def until_told(self, *events: str) -> None:
        self.until(lambda: [event for event, _ in self.told] == [*events])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> DecoderBundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("recorder") / "tiny", UNIT_KEYS)


@pytest.fixture
def ending() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_after_a_note_that_cannot_be_packed_the_recording_goes_on(
    bundle: DecoderBundle, tmp_path: Path, ending: ExitStack
) -> None:
    rig = Rig(bundle, tmp_path / "recordings")
    rig.recorder.begin()
    ending.callback(rig.recorder.stop)
    rig.until(lambda: len(parts_of(rig.recorder.run_folder)) == 1)  # its process has started
    rig.journal.commanded("shape", {"gain": 2**70})
    rig.until_told("recording", "recording_failed", "recording")
    assert rig.recorder.failure == ""
    rig.until(lambda: len(parts_of(rig.recorder.run_folder)) == 2)


def test_a_disk_that_does_not_answer_at_the_start_is_told(
    bundle: DecoderBundle, tmp_path: Path, ending: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, start = threading.Event(), RunRecorder._start

    def start_late(recorder: RunRecorder) -> RecorderPipe:
        answers.wait(WITHIN_S)
        return start(recorder)

    monkeypatch.setattr(run_recorder, "BEGINS_WITHIN_S", 0.05)
    monkeypatch.setattr(RunRecorder, "_start", start_late)
    rig = Rig(bundle, tmp_path / "recordings")
    rig.recorder.begin()
    ending.callback(rig.recorder.stop)
    assert "did not answer" in rig.recorder.failure
    answers.set()
    rig.until_told("recording_failed", "recording")
    assert rig.recorder.failure == ""


def test_a_folder_whose_name_is_no_utf_8_is_recorded(
    bundle: DecoderBundle, tmp_path: Path, ending: ExitStack
) -> None:
    rig = Rig(bundle, tmp_path / "recordings", config={"folder": "Pr\udcfcfung"})
    rig.recorder.begin()
    ending.callback(rig.recorder.stop)
    rig.until_told("recording")
    assert rig.recorder.failure == ""


def test_however_many_parts_are_removed_all_are_named(tmp_path: Path) -> None:
    older, run = tmp_path / "20260101T000000Z-00000001", tmp_path / "20260301T000000Z-0000000a"
    for folder in (older, run):
        folder.mkdir()
    names = {f"{older.name}/part-{i:06d}.rec" for i in range(1, 3001)}
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    pipe = RecorderPipe([str(run), "0000000a", "0", "1", "1", ""])
    pipe.put(BEGIN_PART, [record(b"header")])
    pipe.put(RECORDS, [record(b"one")])
    pipe.hand_over()
    t_end_s = clock.now() + WITHIN_S
    while older.exists():  # meanwhile nobody hears it
        assert clock.now() < t_end_s
    told: list[str] = []
    while len(told) < len(names) and clock.now() < t_end_s:
        told += [name for one in pipe.heard() for name in one.get("removed", [])]
        clock.sleep_until(clock.now() + 0.01)
    pipe.kill()
    assert len(told) == len(names)
    assert set(told) == names
