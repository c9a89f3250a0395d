"""More clients, and more spikes, than anybody asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from service.bench.sender import unit_keys
from tests.export.tiny_graph import write_tiny_bundle
from tests.faults.conftest import only_full
from tests.faults.seen import Seen
from tests.system.conftest import HOP_S, DaemonStarter
from tests.system.running import Daemon, Process, keep_on, wait_until
from tests.system.sender_process import SenderProcess

N_UNITS = 8


def n_open(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.announced['pid']}/fd"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("n", [400, pytest.param(8000, marks=only_full)])
def test_subscribers_that_come_and_go(
    serve: DaemonStarter, bundle: Path, stream: str, living: SenderProcess, n: int, seen: Seen
) -> None:
    daemon = serve(stream, bundle)
    daemon.until_validity("ok")
    before, n_open_before = daemon.ask("status").result, n_open(daemon)
    n_before = len(daemon.heard.decodes)
    seen.fault(daemon)
    crowd = subprocess.Popen([sys.executable, "-m", "tests.faults.crowd", daemon.endpoint, str(n)])
    wait_until(lambda: crowd.poll() is not None, daemon.listen, 20 + n / 10)
    assert crowd.returncode == 0
    daemon.until_validity("ok")
    during = daemon.heard.decodes[n_before:]
    assert during[-1]["run_id"] == before["run_id"]
    n_ok = sum(d["validity"] == "ok" for d in during)
    assert n_ok > 0.9 * len(during)
    assert [d["seq"] for d in during] == list(range(during[0]["seq"], during[-1]["seq"] + 1))
    # What they took is given back: sockets, and memory but for what the heap keeps.
    wait_until(lambda: n_open(daemon) <= n_open_before + 2, daemon.listen)
    after = daemon.ask("status").result
    assert after["memory_mb"] < 1.2 * before["memory_mb"]
    assert daemon.end() == 0


def test_a_source_of_ten_times_its_budget(
    serve: DaemonStarter, stream: str, run: Callable[..., Process], tmp_path: Path, seen: Seen
) -> None:
    budget = 200
    bundle = tmp_path / "tiny"
    write_tiny_bundle(bundle, unit_keys(N_UNITS), HOP_S, HOP_S)
    run(
        "bench", "sender", "--name", stream, "--units", str(N_UNITS),
        "--rate", str(10 * budget / N_UNITS), "--seconds", "600",
    )  # fmt: skip
    daemon = serve(stream, bundle, input={"budget_spikes_per_s": budget, "wait_s": 20.0})
    run_id = daemon.until_validity("ok")["run_id"]
    before = daemon.ask("status").result
    seen.fault(daemon)
    keep_on(4.0, daemon.listen)
    after = daemon.ask("status").result
    fates = {fate: n - before["fates"][fate] for fate, n in after["fates"].items()}
    # Nothing is lost unseen: each spike has a fate, and what was not used makes no decode `ok`.
    assert sum(after["fates"].values()) == after["spikes_in"]
    assert sum(fates.values()) > 4.0 * 5 * budget
    lacking = sum(fates.values()) - fates["used"]
    newest = [d for d in daemon.heard.decodes if d["run_id"] == run_id][-100:]
    if lacking > 0.2 * sum(fates.values()):
        assert "ok" not in {d["validity"] for d in newest[-20:]}
    else:
        assert {d["validity"] for d in newest[-20:]} == {"ok"}
    assert after["memory_mb"] < 1.2 * before["memory_mb"]
    assert daemon.end() == 0
