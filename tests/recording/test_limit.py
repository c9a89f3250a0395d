"""The limit of all recordings: the oldest parts go, and nothing else."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.telemetry.recording import recorder_process
from service.telemetry.recording.frames import (
    BEGIN_PART,
    RECORDS,
    PartHead,
    message,
    part_name,
    parts_of,
    read_frames,
    read_head,
    record,
)
from service.telemetry.recording.recorder_pipe import RECORDER

ROOT = Path(__file__).parents[2]
OLDER = ("20260101T000000Z-00000001", "20260102T000000Z-00000002")
PART_BYTES = 30_000


def older_runs(folder: Path) -> list[Path]:
    """Two runs of two parts each."""
    parts = []
    for name in OLDER:
        (folder / name).mkdir(parents=True)
        for i in (1, 2):
            parts.append(folder / name / part_name(i))
            parts[-1].write_bytes(bytes(PART_BYTES))
    return parts


def recorded(folder: Path, limit_bytes: int, n_parts: int = 1) -> list[dict[str, Any]]:
    """Record parts in a new run with the recorder itself; what it said."""
    run = folder / "20260301T000000Z-0000000a"
    run.mkdir()
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        RECORDER,
        str(ROOT),
        str(run),
        "0000000a",
        "0",
        "1",
    ]
    messages = b"".join(
        message(BEGIN_PART, record(b"header")) + message(RECORDS, record(b"one") + record(b"two"))
        for _ in range(n_parts)
    )
    done = subprocess.run(
        [*command, str(limit_bytes), "0"], input=messages, capture_output=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_was_handed_over_is_in_the_parts(tmp_path: Path) -> None:
    recorded(tmp_path, 0, n_parts=3)
    (run,) = tmp_path.iterdir()
    number = 0
    for i, part in enumerate(parts_of(run), 1):
        with part.open("rb") as file:
            head = read_head(file)
            frames = list(read_frames(file, head.first_frame))
        assert head == PartHead(0, i, number, "0000000a")
        assert [one for held in frames for one in held] == [b"header", b"one", b"two"]
        number += len(frames)
    assert i == 3


def test_the_oldest_parts_go_until_the_rest_fits(tmp_path: Path) -> None:
    parts = older_runs(tmp_path)
    (tmp_path / OLDER[0] / "followed-by").write_text(OLDER[1])
    (tmp_path / OLDER[0] / "behavior-001.xdf").write_bytes(b"XDF:")
    foreign = tmp_path / "thesis"
    foreign.write_bytes(bytes(10 * PART_BYTES))
    told = recorded(tmp_path, PART_BYTES + 10_000)
    assert [one["removed"] for one in told if "removed" in one] == [
        [f"{part.parent.name}/{part.name}" for part in parts[:3]]
    ]
    assert [part.exists() for part in parts] == [False, False, False, True]
    assert not (tmp_path / OLDER[0]).exists()
    assert foreign.exists()


def test_what_somebody_laid_beside_the_parts_stays(tmp_path: Path) -> None:
    parts = older_runs(tmp_path)
    notes = tmp_path / OLDER[0] / "notes.txt"
    notes.write_text("somebody's")
    recorded(tmp_path, 1)
    assert not any(part.exists() for part in parts)
    assert notes.exists()
    assert not (tmp_path / OLDER[1]).exists()


def test_a_part_that_is_being_written_stays(tmp_path: Path) -> None:
    parts = older_runs(tmp_path)
    with parts[0].open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        told = recorded(tmp_path, PART_BYTES)
    assert parts[0].exists()
    assert [len(one["removed"]) for one in told if "removed" in one] == [3]


def test_without_a_limit_nothing_goes(tmp_path: Path) -> None:
    parts = older_runs(tmp_path)
    assert not [one for one in recorded(tmp_path, 0) if "removed" in one]
    assert all(part.exists() for part in parts)


def by_another_before(monkeypatch: pytest.MonkeyPatch, does: Callable[[], object]) -> None:
    """Let another recorder do this once, right before this one has its first lock."""
    flock, pending = fcntl.flock, [does]

    def later(file: int, operation: int) -> None:
        if pending:
            pending.pop()()
        flock(file, operation)

    monkeypatch.setattr(recorder_process.fcntl, "flock", later)


def test_a_part_that_another_recorder_removes_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "20260301T000000Z-0000000a"
    run.mkdir()
    recorder = recorder_process.Recorder(run, "0000000a", 0, 1, 0)
    by_another_before(monkeypatch, lambda: recorder_process._remove(run / part_name(1)))
    recorder.take(BEGIN_PART, record(b"header"))
    recorder.end()
    (part,) = parts_of(run)
    with part.open("rb") as file:
        head = read_head(file)
        assert [one for held in read_frames(file, head.first_frame) for one in held] == [b"header"]


def test_a_part_that_was_made_anew_meanwhile_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = older_runs(tmp_path)[0]

    def made_anew() -> None:
        os.unlink(part)
        part.write_bytes(b"new")

    by_another_before(monkeypatch, made_anew)
    assert not recorder_process._remove(part)
    assert part.read_bytes() == b"new"
