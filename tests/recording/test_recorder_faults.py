"""A recorder that dies, stands still or has no room: decodes go on, and it is replaced."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.telemetry.recording.frames import parts_of
from tests.recording.recorded import only_run, recorder_of, redecoded
from tests.system import running
from tests.system.conftest import DaemonStarter
from tests.system.flaky_backend import NAME, SWITCH
from tests.system.running import Daemon, keep_on, wait_until
from tests.system.sender_process import SenderProcess

pytestmark = pytest.mark.alone

CPU = "onnxruntime-cpu"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "recordings"


@pytest.fixture
def recording(
    serve: DaemonStarter, bundle: Path, stream: str, living: SenderProcess, folder: Path
) -> Daemon:
    """A daemon that decodes and records."""
    daemon = serve(stream, bundle, record={"enabled": True, "folder": str(folder)})
    daemon.until_validity("ok")
    daemon.until_event("recording")
    return daemon


def go_on(daemon: Daemon, seconds: float) -> None:
    keep_on(seconds, daemon.listen)


def flagged(daemon: Daemon, *, is_flagged: bool) -> None:
    n_before = len(daemon.heard.heartbeats)
    daemon.until(
        lambda heard: any(
            ("record" in one["flags"]) == is_flagged for one in heard.heartbeats[n_before:]
        ),
    )


def begun_again(daemon: Daemon) -> dict[str, Any]:
    """Wait until it is told that the recording goes on; what was told."""
    daemon.until(
        lambda heard: any("after" in e["detail"] for e in of(heard.events, "recording")),
    )
    return next(e["detail"] for e in of(daemon.heard.events, "recording") if "after" in e["detail"])


def of(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == name]


def assert_undisturbed(daemon: Daemon, i_from: int) -> None:
    """Since then no beat was missed, and no decode held up; the source may be."""
    decodes = daemon.heard.decodes[i_from:]
    assert len(decodes) > 50
    assert {decode["reason"] for decode in decodes} <= {"", "incomplete"}
    assert not any(decode["late"] for decode in decodes)
    seqs = [decode["seq"] for decode in decodes]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    assert decodes[-1]["beats_skipped"] == decodes[0]["beats_skipped"]


def assert_made_again(daemon: Daemon, folder: Path, *, n_least: int) -> dict[str, Any]:
    assert daemon.end() == 0
    report = redecoded(only_run(folder))
    assert report["differing"] == report["other_values"] == report["other_tokens"] == 0
    assert n_least <= report["compared"] < daemon.heard.decodes[-1]["seq"]
    return report


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_recorder_that_dies_or_stands_still_is_replaced(
    recording: Daemon, living: SenderProcess, folder: Path, number: signal.Signals
) -> None:
    daemon, i_from = recording, len(recording.heard.decodes)
    go_on(daemon, 1.0)
    before = recorder_of(daemon)
    os.kill(before, number)
    told = daemon.until_event("recording_failed")["detail"]
    why = {signal.SIGKILL: "ended with code -9", signal.SIGSTOP: "did nothing for 5 s"}
    assert why[number] in told["warning"]
    again = begun_again(daemon)
    assert again["after"] == told["warning"]
    assert again["lost"] > 0
    flagged(daemon, is_flagged=False)
    go_on(daemon, 1.0)
    assert_undisturbed(daemon, i_from)
    assert recorder_of(daemon) != before
    report = assert_made_again(daemon, folder, n_least=90)
    assert len(parts_of(only_run(folder))) == 2
    assert report["not_compared"] == {}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB, nearly full; `filler` there takes the room."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(mounted)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system is not permitted")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


def test_a_full_disk_is_told_and_left_room_the_recording_goes_on(
    serve: DaemonStarter, bundle: Path, stream: str, living: SenderProcess, small_disk: Path
) -> None:
    filler, folder = small_disk / "filler", small_disk / "recordings"
    filler.write_bytes(bytes(2**20 - 24 * 4096))
    daemon = serve(stream, bundle, record={"enabled": True, "folder": str(folder)})
    daemon.until_validity("ok")
    i_from = len(daemon.heard.decodes)
    told = daemon.until_event("recording_failed")["detail"]
    assert "No space left" in told["warning"]
    flagged(daemon, is_flagged=True)
    filler.unlink()
    flagged(daemon, is_flagged=False)
    assert "No space left" in begun_again(daemon)["after"]
    go_on(daemon, 1.0)
    assert_undisturbed(daemon, i_from)
    assert_made_again(daemon, folder, n_least=100)


def test_a_folder_that_cannot_be_written_keeps_no_daemon(
    serve: DaemonStarter, bundle: Path, stream: str, living: SenderProcess, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    daemon = serve(stream, bundle, record={"enabled": True, "folder": str(in_the_way / "deep")})
    daemon.until_validity("ok")
    assert "cannot write" in daemon.ask("status").result["recording"]["failure"]
    flagged(daemon, is_flagged=True)
    assert daemon.end() == 0


def test_after_kill_9_of_the_daemon_the_recorder_writes_all_and_ends(
    recording: Daemon, living: SenderProcess, folder: Path
) -> None:
    daemon = recording
    go_on(daemon, 1.0)
    recorder = recorder_of(daemon)
    os.killpg(daemon.popen.pid, signal.SIGKILL)

    def is_gone() -> bool:
        with contextlib.suppress(ProcessLookupError):
            os.kill(recorder, 0)
            return False
        return True

    wait_until(is_gone)
    keep_on(0.2, daemon.listen)
    report = redecoded(only_run(folder))
    assert report["differing"] == 0
    hops_lost = daemon.heard.decodes[-1]["seq"] - report["compared"]
    assert hops_lost * 0.02 <= 0.5


def test_a_run_that_follows_one_that_died_and_it_name_each_other(
    serve: DaemonStarter,
    bundle: Path,
    stream: str,
    living: SenderProcess,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(SWITCH, str(tmp_path / "never"))
    monkeypatch.setattr(running, "_RUN", f"import tests.system.flaky_backend; {running._RUN}")
    decoder = {"bundle": str(bundle), "backend": NAME, "fallback": [CPU]}
    record = {"enabled": True, "folder": str(folder)}
    daemon = serve(stream, bundle, decoder=decoder, record=record)
    first = daemon.until_validity("ok")["run_id"]
    os.kill(int(daemon.announced["pid"]), signal.SIGKILL)
    daemon.until(lambda heard: heard.decodes[-1]["run_id"] != first)
    second = daemon.until_validity("ok")["run_id"]
    assert daemon.end() == 0
    runs = sorted(folder.iterdir())
    assert [run.name.rpartition("-")[2] for run in runs] == [first, second]
    assert (runs[0] / "followed-by").read_text().strip() == runs[1].name
    assert redecoded(runs[1])["follows"] == first
