"""A simulated subject stands in where the config allows it, and everything says that it does."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pylsl
import pytest

from streams.exit_codes import ExitCode
from tests.system.conftest import UNIT_KEYS, ConfigWriter, DaemonStarter
from tests.system.running import Daemon, Process, wait_until
from tests.system.sources import Living

SHIPPED = Path("shipped:demo")
ABSENT = {"wait_s": 0.5, "simulate_if_absent": True}


@pytest.fixture
def simulating(serve: DaemonStarter, stream: str) -> Daemon:
    """A daemon whose stream is not there, with a config that allows a simulated subject."""
    daemon = serve(stream, SHIPPED, input=ABSENT)
    daemon.until_validity("ok")
    return daemon


def test_everything_says_that_nobody_is_decoded(simulating: Daemon, stream: str) -> None:
    simulating.until(lambda heard: heard.heartbeats)
    assert all("simulated" in one["flags"] for one in simulating.heard.heartbeats)
    assert "simulated" in simulating.ask("status").result["flags"]
    assert "SIMULATED" in simulating.ask("status").result["source"]
    wait_until(lambda: simulating.err.count("SIMULATED") >= 2)
    assert "spikeloop init" in simulating.err
    (found,) = pylsl.resolve_byprop("name", f"{stream}-decodes", 1, 5.0)
    inlet = pylsl.StreamInlet(found)
    assert inlet.info(5.0).desc().child_value("simulated") == "true"


def test_the_simulated_subject_ends_with_the_daemon(simulating: Daemon) -> None:
    pid = int(simulating.announced["pid"])
    name = f"simulated-subject-{pid}"
    assert pylsl.resolve_byprop("name", name, 1, 5.0)
    os.kill(pid, signal.SIGKILL)  # it cannot end anything in order
    wait_until(lambda: not pylsl.resolve_byprop("name", name, 1, 0.5))


def test_a_simulated_subject_started_by_hand_is_told_as_well(
    run: Callable[..., Process], serve: DaemonStarter, stream: str
) -> None:
    run("simulate", "--name", stream)
    daemon = serve(stream, SHIPPED, input={"wait_s": 30.0})
    daemon.until(lambda heard: heard.heartbeats)
    assert "simulated" in daemon.heard.heartbeats[0]["flags"]
    assert daemon.until_event("simulated")["detail"]["warning"]


def test_a_stream_that_answers_is_decoded_and_not_simulated(
    serve: DaemonStarter, bundle: Path, stream: str
) -> None:
    source = Living(stream, UNIT_KEYS)
    daemon = serve(stream, bundle, input=ABSENT | {"wait_s": 5.0})
    daemon.until_validity("ok", source.send_due)
    assert daemon.ask("status").result["flags"] == []
    source.close()
    daemon.until_event("source_lost")
    with contextlib.suppress(AssertionError):  # long enough for a subject to be found
        daemon.until(
            lambda heard: any(e["event"] == "source_back" for e in heard.events), within_s=3
        )
    assert "SIMULATED" not in daemon.err


def test_without_the_key_nothing_is_simulated(
    run: Callable[..., Process], config: ConfigWriter, stream: str
) -> None:
    served = run("serve", str(config(stream, SHIPPED, input={"wait_s": 0.5})))
    assert served.code() == ExitCode.STREAM
