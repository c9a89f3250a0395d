"""Every client that can run here against a real daemon, and what the others say of its clock."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.clients import CLIENTS, MAKERS, LackingError, Program
from tests.system.running import Daemon, wait_until
from tests.system.sources import Living

STALE_S = 0.5


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Program]:
    """Makes a client's program ready, or skips the test."""

    def by_name(name: str) -> Program:
        try:
            return MAKERS[name](tmp_path)
        except LackingError as err:
            pytest.skip(str(err))

    return by_name


@pytest.fixture
def follow(tmp_path: Path) -> Iterator[Callable[[Program, str], Callable[[], list[Any]]]]:
    """Starts a client's program; what it returns gives the answers so far."""
    started: list[subprocess.Popen[bytes]] = []
    out = tmp_path / "answers"

    def start(program: Program, endpoint: str) -> Callable[[], list[Any]]:
        with out.open("wb") as file:
            command = [*program.command, endpoint, str(STALE_S)]
            started.append(subprocess.Popen(command, cwd=program.folder, stdout=file))
        return lambda: [json.loads(line) for line in out.read_text().split("\n")[:-1]]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", MAKERS)
def test_a_client_follows_a_daemon(
    name: str,
    make: Callable[[str], Program],
    follow: Callable[[Program, str], Callable[[], list[Any]]],
    daemon: Daemon,
    source: Living,
) -> None:
    answers = follow(make(name), daemon.endpoint)

    def until(condition: Callable[[dict[str, Any]], object], n_before: int = 0) -> dict[str, Any]:
        found = wait_until(lambda: list(filter(condition, answers()[n_before:])), source.send_due)
        return found[0]

    first = until(lambda one: one["usable"])
    assert any(first["value"]["velocity"])
    assert daemon.ask("pause").ok
    paused = until(lambda one: one["why"] == "paused")
    assert paused["value"]["velocity"] == [0.0, 0.0]
    n_before = len(answers())
    assert daemon.ask("resume").ok
    last = until(lambda one: one["usable"], n_before)
    assert (last["lost"], last["restarts"], last["refused"]) == (0, 0, 0)
    daemon.kill()
    gone = wait_until(lambda: [one for one in answers() if one["why"] == "gone"])[0]
    assert gone["value"]["velocity"] == [0.0, 0.0]


PYTHON = "import sys, spikeloop_client as s; print(*s.daemon_clock(sys.argv[1]))"
NODE = (
    "import('./spikeloop.js').then(async (s) =>"
    " console.log((await s.daemonClock(process.argv[1])).join(' ')))"
)
CPP = """#include <iostream>
#include "spikeloop.hpp"
int main(int, char **argv) {
    const auto [offset_s, within_s] = spikeloop::daemon_clock(argv[1]);
    std::cout << offset_s << " " << within_s << std::endl;
}"""


@pytest.mark.parametrize("name", ["python", "node", "cpp"])
def test_a_client_elsewhere_learns_the_daemons_clock(
    name: str, make: Callable[[str], Program], daemon: Daemon, tmp_path: Path
) -> None:
    program = make(name)
    command = {"python": [sys.executable, "-c", PYTHON], "node": ["node", "-e", NODE]}.get(name)
    if command is None:
        (tmp_path / "clock.cpp").write_text(CPP)
        command = [str(tmp_path / "clock")]
        include = ["-I", str(CLIENTS / "cpp"), "-std=c++17"]
        source = [str(tmp_path / "clock.cpp"), "-o", command[0], "-lzmq"]
        subprocess.run(["g++", *include, *source], check=True)
    said = subprocess.run(
        [*command, daemon.control], cwd=program.folder, capture_output=True, text=True, check=True
    )
    offset_s, within_s = map(float, said.stdout.split())
    assert 0 < within_s < 0.5
    assert abs(offset_s) <= within_s  # the same machine: the same clock
