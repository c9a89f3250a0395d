"""What holds a subject's data is readable by its owner alone, whatever the umask."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from calibration.wizard.run import FILE, Progress
from streams.files import write_whole
from streams.sessions.nwb.writer import write_session
from streams.simulation.openloop import record_open_loop
from tests.system.running import Process, wait_until
from tests.system.sender_process import SenderProcess


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_recording(
    run: Callable[..., Process], stream: str, living: SenderProcess, tmp_path: Path
) -> None:
    path = tmp_path / "a.xdf"
    process = run("record", str(path), "--stream", f"Spikes:{stream}", "--seconds", "0.5")
    wait_until(lambda: path.exists() or not process.is_alive)
    assert mode(path) == 0o600, process.err
    assert process.code() == 0
    assert mode(path) == 0o600


def test_a_session_and_what_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "session.nwb"
    path.touch(mode=0o644)
    write_session(record_open_loop(1, 1, 0.1, 4, "centre-out", seed=0), path)
    assert mode(path) == 0o600


def test_a_private_file_in_place_of_a_public_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_whole(path, "public")
    assert mode(path) == 0o666
    write_whole(path, "private", private=True)
    assert (mode(path), path.read_text()) == (0o600, "private")


def test_a_calibrations_folder(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "run", resume=False)
    progress.keep()
    assert mode(tmp_path / "run") == 0o700
    assert mode(tmp_path / "run" / FILE) == 0o600
    progress.close()
