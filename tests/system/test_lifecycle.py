"""How a daemon ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from service.signals import ending_signals
from streams.wire.client import DaemonClient, StartingError
from streams.wire.sockets import Publisher
from tests.system.conftest import UNIT_KEYS, ConfigWriter, DaemonStarter
from tests.system.running import WITHIN_S, Daemon, Process, keep_on, wait_until
from tests.system.sources import Living


def _is_safe(decode: dict[str, object]) -> bool:
    value = decode["value"]
    return isinstance(value, dict) and value["velocity"] == [0.0, 0.0]


@pytest.mark.parametrize("number", [*ending_signals()])
def test_a_signal_ends_it_in_order(daemon: Daemon, number: signal.Signals) -> None:
    assert daemon.end(number) == 0
    last = daemon.heard.decodes[-1]
    assert (last["validity"], last["reason"]) == ("paused", "stopping")
    assert _is_safe(last)
    assert daemon.heard.events[-1]["event"] == "stopped"
    assert not daemon.left_running()
    assert "Traceback" not in daemon.err
    for endpoint in (daemon.endpoint, daemon.control):
        Publisher(endpoint).close()


def test_under_nohup_a_closed_terminal_ends_nothing(
    serve: DaemonStarter, bundle: Path, stream: str, source: Living
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the daemon's parent is `nohup` then
    try:
        daemon = serve(stream, bundle)
    finally:
        signal.signal(signal.SIGHUP, before)
    daemon.until_validity("ok", source.send_due)
    os.killpg(daemon.popen.pid, signal.SIGHUP)
    n_before = len(daemon.heard.decodes)
    daemon.until(lambda heard: len(heard.decodes) > n_before + 50, source.send_due)
    assert daemon.end() == 0


def test_the_command_stop_ends_it_in_order(daemon: Daemon, run: Callable[..., Process]) -> None:
    assert run("stop", "--control", daemon.control).code() == 0
    assert daemon.finish() == 0
    assert daemon.heard.decodes[-1]["reason"] == "stopping"
    assert _is_safe(daemon.heard.decodes[-1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_it_looks_for_its_stream(
    run: Callable[..., Process],
    config: ConfigWriter,
    bundle: Path,
    stream: str,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    announced = tmp_path / "announced.json"
    path = config(stream, bundle, input={"wait_s": 3600.0})
    process = run("serve", str(path), "--announce", str(announced))
    wait_until(announced.exists)
    keep_on(1.0, lambda: None)
    process.signal(number)
    assert process.code() == 0
    assert not process.left_running()


def test_while_it_looks_for_its_stream_it_says_so(
    serve: DaemonStarter, bundle: Path, stream: str
) -> None:
    daemon = serve(stream, bundle, input={"wait_s": 3600.0})
    daemon.connect()
    reply = daemon.ask("status")
    assert not reply.ok
    assert "the daemon is starting" in reply.error
    assert reply.result == {"starting": True}
    with pytest.raises(StartingError):
        DaemonClient(daemon.control, timeout_s=WITHIN_S).ask("status")
    assert f"up to 3600 s for an LSL stream of type 'Spikes', name {stream!r}" in reply.error
    source = Living(stream, UNIT_KEYS)
    daemon.until_validity("ok", source.send_due)
    assert daemon.ask("status").ok
    source.close()


def test_it_can_be_stopped_while_it_looks_for_its_stream(
    serve: DaemonStarter, run: Callable[..., Process], bundle: Path, stream: str
) -> None:
    daemon = serve(stream, bundle, input={"wait_s": 3600.0})
    daemon.connect()
    assert run("stop", "--control", daemon.control).code() == 0
    assert daemon.code() == 0
    assert "Traceback" not in daemon.err
