"""The amplifier is on another machine, and the link to it is bad: nothing empty or old is `ok`."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.network.other_machine import OtherMachine, needs_another_machine
from tests.faults.seen import Seen
from tests.system.conftest import HOP_S, UNIT_KEYS, DaemonStarter
from tests.system.running import Daemon, keep_on
from tests.system.sender_process import SEND

pytestmark = [needs_another_machine, pytest.mark.alone]
numbers = itertools.count(1)
CLOCK_AHEAD_S = 5000
KEEP_ALIVES_S = 0.15
CLOCK_OFF_S = 0.15
"""The other clock is known so badly at most where one way is slower."""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OtherMachine]:
    machine = OtherMachine(next(numbers), tmp_path / "silences")
    monkeypatch.setenv("LSLAPICFG", str(machine.reach_by_lsl(tmp_path)))
    yield machine
    machine.close()


def send_from(
    there: OtherMachine, stream: str, clock_ahead_s: int = CLOCK_AHEAD_S
) -> subprocess.Popen[bytes]:
    silences = [str(there.silences), str(clock_ahead_s)]
    command = [sys.executable, "-c", SEND, stream, ",".join(UNIT_KEYS), *silences]
    return there.run(command, clock_ahead_s=clock_ahead_s)


@pytest.fixture
def started(serve: DaemonStarter, bundle: Path, stream: str, there: OtherMachine) -> Daemon:
    """A daemon that decodes what the other machine sends: a spike every 10 ms."""
    send_from(there, stream)
    daemon = serve(stream, bundle, beat={"settle_ms": "auto"}, input={"wait_s": 20.0})
    daemon.until_validity("ok")
    return daemon


def empty_and_ok(decodes: list[dict[str, Any]], there: OtherMachine) -> list[dict[str, Any]]:
    """Each bin holds a spike at least, but for those in which the sender itself was silent."""
    lines = there.silences.read_text().splitlines() if there.silences.exists() else []
    silent_s = [float(line.split()[1]) for line in lines]
    return [
        d
        for d in decodes
        if d["validity"] == "ok"
        and d["tokens"] == 0
        and not any(abs(d["t_window"] - t_s) < CLOCK_OFF_S for t_s in silent_s)
    ]


def heard_for(daemon: Daemon, seconds: float) -> list[dict[str, Any]]:
    daemon.listen()
    n = len(daemon.heard.decodes)
    keep_on(seconds, daemon.listen)
    return daemon.heard.decodes[n:]


BAD = {
    "80 ms there and back": ({"delay_ms": 80.0}, {"delay_ms": 80.0}),
    "80 ms longer one way": ({"delay_ms": 80.0}, {"delay_ms": 0.0}),
    "80 ms longer the other way": ({"delay_ms": 0.0}, {"delay_ms": 80.0}),
    "jitter of 60 ms": ({"jitter_ms": 60.0}, {"jitter_ms": 60.0}),
    "a tenth of the packets lost": ({"loss": 0.1}, {"loss": 0.1}),
}


@pytest.mark.parametrize("how", BAD)
def test_no_bin_that_lacks_its_spikes_is_ok(
    started: Daemon, there: OtherMachine, how: str, seen: Seen
) -> None:
    good = heard_for(started, 1.0)
    assert not empty_and_ok(good, there)
    seen.fault(started)
    there.link(to_here=BAD[how][0], to_there=BAD[how][1])
    bad = heard_for(started, 4.0)
    assert not empty_and_ok(bad, there), how
    there.both(delay_ms=0.0, jitter_ms=0.0, loss=0.0)
    seen.over()
    started.until_validity("ok")
    assert not empty_and_ok(heard_for(started, 0.5), there)


def test_a_link_that_is_cut_and_mended(started: Daemon, there: OtherMachine, seen: Seen) -> None:
    run_id = started.heard.decodes[-1]["run_id"]
    there.both(up=False)
    t_cut_s = seen.fault(started)
    started.until_event("source_lost")
    after = [d for d in started.heard.decodes if d["t_done"] > t_cut_s + KEEP_ALIVES_S + 3 * HOP_S]
    settle_s = started.ask("status").result["settle_ms"] * 1e-3
    silent = [d for d in after if d["t_done"] > t_cut_s + KEEP_ALIVES_S + settle_s + 3 * HOP_S]
    assert silent
    assert {d["validity"] for d in silent} <= {"stale", "fault"}
    there.both(up=True)
    seen.over()
    started.until_event("source_back")
    assert started.until_validity("ok")["run_id"] == run_id
    assert not empty_and_ok(started.heard.decodes, there)


@pytest.mark.parametrize("steps_s", [-4900, 4900, 1])
def test_a_sender_that_restarts_on_a_clock_that_was_set(
    serve: DaemonStarter,
    bundle: Path,
    stream: str,
    there: OtherMachine,
    steps_s: int,
    seen: Seen,
) -> None:
    sender = send_from(there, stream)
    daemon = serve(stream, bundle, beat={"settle_ms": "auto"}, input={"wait_s": 20.0})
    run_id = daemon.until_validity("ok")["run_id"]
    seen.fault(daemon)
    sender.kill()
    daemon.until_event("source_lost")
    duplicate = daemon.ask("status").result["fates"]["duplicate"]
    seen.over()
    send_from(there, stream, CLOCK_AHEAD_S + steps_s)
    daemon.until_event("source_back")
    assert daemon.until_validity("ok")["run_id"] == run_id
    heard_for(daemon, 1.0)
    assert not empty_and_ok(daemon.heard.decodes, there)
    assert daemon.ask("status").result["fates"]["duplicate"] == duplicate
