"""What systemd hears: ready with the first decode, alive with beats alone, stopping at the end."""

from __future__ import annotations

import configparser
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.notify import Supervisor
from tests.faults.test_hanging_backend import CPU, Switch, decoder, switch  # noqa: F401
from tests.system.conftest import DaemonStarter
from tests.system.running import keep_on, wait_until
from tests.system.sender_process import SenderProcess

UNIT = Path(__file__).parents[2] / "packaging" / "systemd" / "spikeloop.service"


class Manager:
    """A service manager's socket, and what was said to it."""

    def __init__(self, address: str | bytes) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.setblocking(False)
        self.heard: list[str] = []

    def listen(self) -> None:
        """Take in what came."""
        while True:
            try:
                self.heard += self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return

    def n_alive(self) -> int:
        """How often it was told that the daemon is alive."""
        self.listen()
        return self.heard.count("WATCHDOG=1")

    def close(self) -> None:
        """Close its socket."""
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """The manager that a daemon started now speaks to."""
    path = tmp_path / "notify"
    made = Manager(str(path))
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    yield made
    made.close()


def test_it_is_ready_with_the_first_decode_and_alive_with_beats(
    manager: Manager, serve: DaemonStarter, bundle: Path, stream: str, living: SenderProcess
) -> None:
    daemon = serve(stream, bundle)
    wait_until(lambda: manager.listen() or "READY=1" in manager.heard, daemon.listen)
    assert "EXTEND_TIMEOUT_USEC=5000000" in manager.heard
    daemon.until(lambda heard: heard.decodes)
    daemon.until_validity("ok")
    n_before = manager.n_alive()
    wait_until(lambda: manager.n_alive() > n_before + 5, daemon.listen)

    daemon.stand_still()
    keep_on(0.5, lambda: None)  # what was on its way has arrived
    n_stopped = manager.n_alive()
    keep_on(1.0, lambda: None)
    assert manager.n_alive() == n_stopped
    daemon.go_on()
    wait_until(lambda: manager.n_alive() > n_stopped, daemon.listen)

    assert daemon.end() == 0
    manager.listen()
    assert "STOPPING=1" in manager.heard
    assert manager.heard.count("READY=1") == 1


def test_it_is_alive_while_a_fallback_takes_over(
    manager: Manager,
    serve: DaemonStarter,
    bundle: Path,
    stream: str,
    living: SenderProcess,
    switch: Switch,  # noqa: F811
) -> None:
    daemon = serve(stream, bundle, decoder=decoder(bundle, [CPU]))
    daemon.until_validity("ok")
    switch.on("step", "gil")
    daemon.until(lambda heard: any(d["reason"] == "hung" for d in heard.decodes))
    n_before = manager.n_alive()
    # While the guardian speaks in the daemon's place, and while the fallback is opened.
    wait_until(lambda: manager.n_alive() > n_before + 3, daemon.listen)
    daemon.until(lambda heard: heard.decodes[-1]["validity"] == "ok")
    assert daemon.heard.decodes[-1]["backend"] == CPU


def test_without_a_manager_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = list[object]()
    monkeypatch.setattr(socket, "socket", lambda *family: opened.append(family))
    nobody = Supervisor("")
    nobody.alive(1, 0.0, is_starting=False)
    nobody.stopping()
    assert opened == []


def test_an_abstract_address_is_reached() -> None:
    name = f"spikeloop-{os.getpid()}"
    manager = Manager(f"\0{name}")
    Supervisor.of({"NOTIFY_SOCKET": f"@{name}"}).stopping()
    manager.listen()
    manager.close()
    assert manager.heard[0] == "STOPPING=1"


def test_a_manager_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    Supervisor(str(tmp_path / "nobody")).stopping()
    assert list(tmp_path.iterdir()) == []


def test_the_unit_waits_for_the_beat_and_restarts_within_three_seconds() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    service = unit["Service"]
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert float(service["WatchdogSec"]) + float(service["RestartSec"]) < 3.0
    assert signal.Signals[service["WatchdogSignal"]] is signal.SIGKILL
