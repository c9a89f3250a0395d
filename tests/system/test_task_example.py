"""`clients/python/task.py` against a real daemon: `ok` alone moves it, and silence ends it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.running import Daemon, wait_until
from tests.system.sources import Living

TASK = Path(__file__).parents[2] / "clients" / "python" / "task.py"


class Task:
    def __init__(self, endpoint: str, folder: Path) -> None:
        self._out, self._err = folder / "task.out", folder / "task.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.popen = subprocess.Popen(
                [sys.executable, str(TASK), endpoint], stdout=out, stderr=err
            )

    @property
    def lines(self) -> list[str]:
        return self._out.read_text().splitlines()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def has_said(self, text: str) -> bool:
        return any(text in line for line in self.lines)


@pytest.fixture
def task(daemon: Daemon, tmp_path: Path) -> Iterator[Task]:
    started = Task(daemon.endpoint, tmp_path)
    yield started
    started.popen.kill()
    started.popen.wait()


def cursor(line: str) -> str:
    return line.partition("cursor at ")[2]


def moving(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("moving")]


def test_it_obeys_validity_and_notices_the_end(daemon: Daemon, source: Living, task: Task) -> None:
    wait_until(lambda: task.has_said("moving"), source.send_due)
    assert daemon.ask("pause").ok
    wait_until(lambda: task.has_said("stopped: paused; cursor"), source.send_due)
    i_paused = len(task.lines)
    stopped_at = cursor(task.lines[-1])
    assert stopped_at != "[0.0, 0.0]"
    for _ in range(3):
        daemon.until_validity("paused", source.send_due)
    assert daemon.ask("resume").ok
    wait_until(lambda: moving(task.lines[i_paused:]), source.send_due)
    # While `resume` was asked the source was silent: the first decodes may be stale.
    moved = moving(task.lines[i_paused:])[0]
    assert cursor(moved) == stopped_at
    assert {cursor(line) for line in task.lines[i_paused : task.lines.index(moved, i_paused)]} <= {
        stopped_at
    }
    daemon.kill()
    wait_until(lambda: task.popen.poll() is not None)
    assert task.popen.returncode == 1
    assert "nothing heard for 3 s" in task.err
    assert task.has_said("stopped: the newest decode is too old")
