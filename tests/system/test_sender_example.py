"""`examples/sender.py`, as a lab begins from it: every spike is used, and restarts are found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.export.tiny_graph import write_tiny_bundle
from tests.system.conftest import HOP_S, DaemonStarter
from tests.system.running import Daemon, keep_on

SENDER = Path(__file__).parents[2] / "examples" / "sender.py"
UNITS = tuple(f"ch{channel}/u1" for channel in range(1, 9))
SECONDS = 2.0


@pytest.fixture
def sender(stream: str, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts the example, under this test's stream name."""
    program = tmp_path / "sender.py"
    program.write_text(SENDER.read_text().replace("my-rig", stream))
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, str(program)]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def listening(serve: DaemonStarter, stream: str, tmp_path: Path) -> Daemon:
    """A daemon that knows the units of the example."""
    bundle = tmp_path / "bundle"
    write_tiny_bundle(bundle, UNITS, HOP_S, HOP_S)
    return serve(stream, bundle, input={"wait_s": 30.0}, beat={"settle_ms": "auto"})


@pytest.mark.alone
def test_every_spike_of_the_sender_is_used(
    sender: Callable[[], subprocess.Popen[bytes]], listening: Daemon
) -> None:
    sender()
    listening.until_validity("ok")
    before = listening.ask("status").result["fates"]
    keep_on(SECONDS, listening.listen)
    after = listening.ask("status").result["fates"]
    settled = {fate: after[fate] - before[fate] for fate in after}
    assert settled["used"] >= 0.99 * sum(settled.values())
    assert sum(settled.values()) > 8 * 50 * SECONDS
    for fate in ("duplicate", "future", "invalid", "unknown_unit"):
        assert after[fate] == 0, after
    assert listening.ask("status").result["units_known"] == len(UNITS)
    assert listening.end() == 0


def test_a_restart_of_the_sender_is_found(
    sender: Callable[[], subprocess.Popen[bytes]], listening: Daemon
) -> None:
    first = sender()
    listening.until_validity("ok")
    first.kill()
    listening.until_validity("stale")
    sender()
    listening.until_validity("ok")
    after = listening.ask("status").result["fates"]
    assert after["duplicate"] == 0
    assert listening.end() == 0
