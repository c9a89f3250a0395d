"""The unit under a systemd that boots: started, killed, hung; each time it is back within 3 s."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.clock import MonotonicClock
from tests.faults.conftest import only_full
from tests.faults.subscriber_process import SubscriberProcess
from tests.faults.systemd.machine import Machine, why_not
from tests.faults.test_notify import UNIT
from tests.system.running import wait_until

pytestmark = [
    only_full,
    pytest.mark.alone,
    pytest.mark.skipif(why_not() != "", reason=why_not()),
]
clock = MonotonicClock()
BACK_WITHIN_S = 3.0
"""By WatchdogSec and RestartSec of the unit; systemd's own timers hold it."""
SENDER = """[Service]
ExecStart=/opt/spikeloop/bin/spikeloop simulate --name rig
"""
CONFIG = """[input]
name = "rig"
[decoder]
bundle = "shipped:demo"
backend = "onnxruntime-cpu"
"""
DECODES = "tcp://127.0.0.1:5570"


class Rig:
    """The daemon under systemd, its source, and who listens to it.

    Args:
        folder: new.
    """

    def __init__(self, folder: Path) -> None:
        units = {"spikeloop.service": UNIT.read_text(), "sender.service": SENDER}
        self.machine = Machine(folder, units, ["spikeloop.service", "sender.service"], CONFIG)
        self._listener: SubscriberProcess | None = None

    def boot(self) -> None:
        """Wait until it is up and decodes."""
        self.machine.wait_for_boot()
        self._listener = SubscriberProcess(self.machine.shared, DECODES, machine=self.machine)
        self.until_ok()

    def decodes(self, but: Collection[str] = ()) -> list[dict[str, Any]]:
        """What was published so far by other runs than these."""
        assert self._listener is not None
        return [one for one in self._listener.read if one["run_id"] not in but]

    def until_ok(self, but: Collection[str] = ()) -> list[dict[str, Any]]:
        """Decodes of another run, up to the first that is `ok`."""

        def found() -> list[dict[str, Any]]:
            heard = self.decodes(but)
            return heard if any(one["validity"] == "ok" for one in heard) else []

        return wait_until(found, within_s=60.0)

    def pids(self) -> tuple[int, int]:
        """The guardian, which systemd started, and the daemon, as this machine numbers them."""
        group = self.machine.group / "system.slice" / "spikeloop.service" / "cgroup.procs"
        of = {pid: _status(pid) for pid in map(int, group.read_text().split())}
        (guardian,) = [pid for pid, status in of.items() if int(status["PPid"]) not in of]
        main = self.machine.told("spikeloop", "MainPID")
        assert of[guardian]["NSpid"].split()[-1] == main
        daemon = min(pid for pid, status in of.items() if int(status["PPid"]) == guardian)
        return guardian, daemon

    def started_s(self) -> float:
        """When systemd started the guardian that runs."""
        return int(self.machine.told("spikeloop", "ExecMainStartTimestampMonotonic")) * 1e-6

    def close(self) -> None:
        """End it."""
        if self._listener is not None:
            self._listener.close()
        self.machine.close()


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    made = Rig(tmp_path_factory.mktemp("systemd") / "machine")
    try:
        made.boot()
        yield made
    finally:
        made.close()


def test_it_is_started_at_boot_and_ready_with_a_decode(rig: Rig) -> None:
    assert rig.machine.told("spikeloop", "ActiveState") == "active"
    assert rig.machine.told("spikeloop", "StatusText") == "decoding"
    guardian, _ = rig.pids()
    assert int(_status(guardian)["Uid"].split()[0]) >= 61184  # of DynamicUser


@pytest.mark.parametrize(
    ("who", "number"),
    [
        ("guardian", signal.SIGKILL),
        ("daemon", signal.SIGKILL),
        ("both", signal.SIGKILL),
        ("guardian", signal.SIGSTOP),
        ("daemon", signal.SIGSTOP),
        ("both", signal.SIGSTOP),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_one_that_is_killed_or_hangs_is_started_again(
    rig: Rig, who: str, number: signal.Signals, record_property: Callable[[str, object], None]
) -> None:
    before = {one["run_id"] for one in rig.decodes()}
    guardian, daemon = rig.pids()
    t_s = clock.now()
    for pid in {"guardian": [guardian], "daemon": [daemon], "both": [guardian, daemon]}[who]:
        os.kill(pid, number)
    after = rig.until_ok(before)
    assert 0.0 < rig.started_s() - t_s < BACK_WITHIN_S
    assert after[0]["validity"] != "ok"
    assert after[0]["seq"] == 1  # none of it was missed
    t_ok_s = next(one for one in after if one["validity"] == "ok")["t_read"]
    times = (rig.started_s(), after[0]["t_read"], t_ok_s)
    record_property("started, first decode, ok after, s", [round(t - t_s, 2) for t in times])
    assert rig.machine.told("spikeloop", "ActiveState") == "active"


def test_an_end_that_was_asked_for_is_one(rig: Rig) -> None:
    rig.machine.ask("systemctl", "stop", "spikeloop")
    assert rig.machine.told("spikeloop", "Result") == "success"
    assert rig.machine.told("spikeloop", "ExecMainStatus") == "0"
