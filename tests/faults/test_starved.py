"""The daemon gets no processor, or no memory: nothing old is `ok`, and it recovers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streams.wire.schema import Command, encode
from tests.faults.cgroups import bytes_of_memory, limited, may_limit, share_of_a_core
from tests.faults.dies_after import DIES_AFTER
from tests.faults.seen import Seen
from tests.faults.test_stopped_daemon import OVERDUE_S
from tests.system import running
from tests.system.conftest import DaemonStarter
from tests.system.running import Daemon, keep_on
from tests.system.sender_process import SenderProcess

CPU = "onnxruntime-cpu"
SAFE_WITHIN_S = 0.5
HOG_S = 1.0
HOG = "import signal; signal.alarm(int({seconds})); i = 0\nwhile True: i += 1"


def _may_hog() -> bool:
    if sys.platform != "linux" or not all(map(shutil.which, ("chrt", "taskset"))):
        return False
    return subprocess.run(["chrt", "-f", "1", "true"], check=False).returncode == 0


def old_and_ok(decodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Decodes that were `ok` when they left, though more than two hops overdue."""
    return [d for d in decodes if d["validity"] == "ok" and d["t_sent"] > d["t_window"] + OVERDUE_S]


def recovers(daemon: Daemon, run_id: str) -> None:
    assert daemon.until_validity("ok")["run_id"] == run_id
    assert not old_and_ok(daemon.heard.decodes)


@pytest.mark.alone
@pytest.mark.skipif(not _may_hog(), reason="needs SCHED_FIFO")
def test_a_program_of_higher_priority_holds_its_core(
    serve: DaemonStarter, bundle: Path, stream: str, living: SenderProcess, seen: Seen
) -> None:
    core = max(os.sched_getaffinity(0))
    daemon = serve(stream, bundle, realtime={"cores": [core], "priority": 10})
    run_id = daemon.until_validity("ok")["run_id"]
    n_before = len(daemon.heard.decodes)
    hog = ["taskset", "-c", str(core), "chrt", "-f", "90", sys.executable, "-c"]
    seen.fault(daemon)
    ended = subprocess.run([*hog, HOG.format(seconds=HOG_S)], check=False, timeout=30)
    seen.over(was_silent=True)
    assert ended.returncode == -signal.SIGALRM
    keep_on(0.5, daemon.listen)
    recovers(daemon, run_id)
    held_up = [d for d in daemon.heard.decodes[n_before:] if d["late"]]
    assert held_up or daemon.heard.decodes[-1]["beats_skipped"]
    assert daemon.end() == 0


@pytest.mark.skipif(not may_limit("cpu"), reason="needs a control group")
def test_a_twentieth_of_a_core(
    serve: DaemonStarter, bundle: Path, stream: str, living: SenderProcess, seen: Seen
) -> None:
    daemon = serve(stream, bundle)
    run_id = daemon.until_validity("ok")["run_id"]
    with limited("cpu", share_of_a_core(0.05), int(daemon.announced["pid"])):
        seen.fault(daemon)
        keep_on(3.0, daemon.listen)
    seen.over()
    recovers(daemon, run_id)
    late = [d for d in daemon.heard.decodes if d["late"]]
    assert late or daemon.heard.decodes[-1]["beats_skipped"]


def assert_replaced(daemon: Daemon, run_id: str) -> None:
    """The guardian speaks in time, and the fallback follows."""
    hung = daemon.until(
        lambda heard: next((d for d in heard.decodes if d["reason"] == "hung"), None)
    )
    before = max(d["t_window"] for d in daemon.heard.decodes if d["seq"] < hung["seq"])
    assert hung["t_sent"] - before < SAFE_WITHIN_S
    assert hung["value"]["velocity"] == [0.0, 0.0]
    again = daemon.until_validity("ok")
    assert again["run_id"] != run_id
    assert not old_and_ok(daemon.heard.decodes)


def test_the_daemon_alone_is_killed(
    serve: DaemonStarter, bundle: Path, stream: str, living: SenderProcess, seen: Seen
) -> None:
    daemon = serve(stream, bundle, decoder={"backend": CPU, "fallback": [CPU]})
    run_id = daemon.until_validity("ok")["run_id"]
    seen.fault(daemon)
    os.kill(int(daemon.announced["pid"]), signal.SIGKILL)
    assert_replaced(daemon, run_id)


@pytest.mark.parametrize("n_decodes", [1, 5])
def test_it_is_killed_right_after_a_decode(
    serve: DaemonStarter,
    bundle: Path,
    stream: str,
    living: SenderProcess,
    monkeypatch: pytest.MonkeyPatch,
    n_decodes: int,
) -> None:
    """Also before its first beat is over, somebody speaks for it, and no number is used twice."""
    monkeypatch.setenv(DIES_AFTER, str(n_decodes))
    monkeypatch.setattr(running, "_RUN", f"import tests.faults.dies_after; {running._RUN}")
    daemon = serve(stream, bundle, decoder={"backend": CPU, "fallback": [CPU]})
    run_id = daemon.until(lambda heard: heard.decodes)[0]["run_id"]
    assert_replaced(daemon, run_id)
    of_run = [d for d in daemon.heard.decodes if d["run_id"] == run_id]
    assert [d["reason"] for d in of_run].index("hung") <= n_decodes
    for number in ("seq", "beat"):
        told = [d[number] for d in of_run]
        assert told == sorted(set(told))


@pytest.mark.alone
@pytest.mark.skipif(not may_limit("memory"), reason="needs a control group")
def test_its_memory_is_at_its_limit(
    serve: DaemonStarter, bundle: Path, other: Path, stream: str, living: SenderProcess, seen: Seen
) -> None:
    """A swap takes memory; what it had stays its own, so that it decodes until then."""
    daemon = serve(stream, bundle, decoder={"backend": CPU, "fallback": [CPU]})
    run_id = daemon.until_validity("ok")["run_id"]
    with limited("memory", bytes_of_memory(2**20), int(daemon.announced["pid"])):
        daemon.send(encode(Command(command="swap", arguments={"bundle": str(other)})))
        assert_replaced(daemon, run_id)
    # It is killed at some time after that: at once after its last decode.
    ok = [d["t_sent"] for d in daemon.heard.decodes if d["validity"] == "ok"]
    hung = next(d["t_sent"] for d in daemon.heard.decodes if d["reason"] == "hung")
    seen.fault(daemon, t_s=max(t_s for t_s in ok if t_s < hung))
