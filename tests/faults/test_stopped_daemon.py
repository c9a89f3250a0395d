"""The daemon stands still (SIGSTOP) and goes on: nothing old leaves it as `ok`."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path

import pytest

from streams.lsl.inlets import find_inlet
from streams.messages import Validity
from tests.faults.conftest import only_full
from tests.faults.seen import Seen
from tests.system.conftest import HOP_S, DaemonStarter
from tests.system.running import keep_on
from tests.system.sender_process import SenderProcess

SETTLE_S = 0.02
"""As `tests.system.conftest` sets it."""
OVERDUE_S = SETTLE_S + 2 * HOP_S
N_STOPS = int(os.environ.get("SPIKELOOP_STOPS", "8"))
CONTEXT_S = 0.5
"""The tiny bundle's."""
SENT_BEFORE_S = 0.05
"""What the daemon sent before it stopped has arrived after this time."""


@pytest.mark.long
def test_after_a_stop_nothing_old_is_ok(
    serve: DaemonStarter, bundle: Path, stream: str, living: SenderProcess, seen: Seen
) -> None:
    daemon = serve(stream, bundle)
    daemon.until_validity("ok")
    inlet = find_inlet("Decoder", name=f"{stream}-decodes")
    inlet.open()
    chance, found = random.Random(5), []
    for _ in range(N_STOPS):
        keep_on(0.3 + chance.random() * HOP_S, daemon.listen)
        daemon.stand_still()
        t_stopped_s = seen.fault(daemon)
        keep_on(SENT_BEFORE_S, daemon.listen)
        inlet.pull(0.0)
        n_before = len(daemon.heard.decodes)
        keep_on(0.15 + chance.random(), lambda: None)
        t_resumed_s = seen.over(was_silent=True)
        daemon.go_on()
        daemon.until(lambda heard, n=n_before: len(heard.decodes) > n + 5)
        # A message that ZeroMQ had before the stop left in time: only its reader can tell its age.
        after = [d for d in daemon.heard.decodes[n_before:] if d["t_sent"] > t_stopped_s]
        found += [d for d in after if d["validity"] == "ok" and _age(d["t_window"], t_resumed_s)]
        samples, stamps = inlet.pull(0.0)
        first = after[0]["seq"]
        for sample, t_s in zip(samples, stamps, strict=True):
            if sample[5] >= first and sample[4] == Validity.OK and _age(t_s, t_resumed_s):
                found.append({"lsl": sample.tolist(), "t_window": float(t_s)})
    assert not found, json.dumps(found[0])
    assert any(d["reason"] == "overdue" for d in daemon.heard.decodes)


def _age(t_window: float, t_s: float) -> bool:
    """Return True if a decode of this window was more than two hops overdue by then."""
    return t_s > t_window + OVERDUE_S


@pytest.mark.parametrize("seconds", [2.0, pytest.param(60.0, marks=only_full)])
def test_after_a_long_stop_the_memory_begins_anew(
    serve: DaemonStarter,
    bundle: Path,
    stream: str,
    living: SenderProcess,
    seconds: float,
    seen: Seen,
) -> None:
    daemon = serve(stream, bundle)
    run_id = daemon.until_validity("ok")["run_id"]
    keep_on(0.3, daemon.listen)
    daemon.stand_still()
    t_stopped_s = seen.fault(daemon)
    keep_on(seconds, lambda: None)
    t_resumed_s = seen.over(was_silent=True)
    daemon.go_on()
    daemon.until(lambda heard: heard.decodes[-1]["t_window"] > t_resumed_s + 1.0)
    after = [d for d in daemon.heard.decodes if d["t_sent"] > t_resumed_s]
    ok = [d for d in after if d["validity"] == "ok"]
    assert ok
    assert not [d for d in ok if _age(d["t_window"], d["t_sent"])]
    assert ok[0]["t_window"] > t_resumed_s
    assert ok[0]["run_id"] == run_id
    # A hole of over a second empties the memory: context comes first. It may begin with the bin
    # that was awaited when the daemon went on: a hop and a settle time, here one more, before.
    assert ok[0]["t_window"] - t_stopped_s > seconds + CONTEXT_S - 3 * HOP_S
    assert {d["validity"] for d in after} <= {"ok", "warmup", "stale", "fault"}
    assert daemon.end() == 0


def test_a_guardian_that_was_stopped_asks_nobody_to_end(
    serve: DaemonStarter, bundle: Path, stream: str, living: SenderProcess, seen: Seen
) -> None:
    """As by Ctrl-Z and `fg`, which stop the daemon's parent, too."""
    daemon = serve(stream, bundle)
    daemon.until_validity("ok")
    seen.fault(daemon)
    daemon.signal(signal.SIGSTOP)
    keep_on(1.0, daemon.listen)
    daemon.signal(signal.SIGCONT)
    n_before = len(daemon.heard.decodes)
    daemon.until(lambda heard: len(heard.decodes) > n_before + 50)
    assert daemon.heard.decodes[-1]["validity"] == "ok"
    assert not any(event["event"] == "stopped" for event in daemon.heard.events)
