"""A subscriber that answers no more: its connection is closed, and it comes back to new decodes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from streams.wire.curve_keys import CLIENT_FILE, SERVER_FILE, write_curve_keys
from streams.wire.sockets import LINK_SILENT_MOST_MS, new_pair
from tests.faults.network.other_machine import OtherMachine, needs_another_machine
from tests.faults.subscriber_process import SubscriberProcess
from tests.system.conftest import DaemonStarter
from tests.system.running import Daemon, clock, keep_on, wait_until
from tests.system.sender_process import SenderProcess

ESTABLISHED = "01"
OF_SUBSCRIBER, OLD_S = 200, 1.0


def n_connections(daemon: Daemon) -> int:
    """Established connections to the daemon's socket for decodes."""
    port = f":{urlsplit(daemon.endpoint).port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(port) and row[3] == ESTABLISHED for row in rows)


@pytest.fixture
def subscribed(
    serve: DaemonStarter, bundle: Path, stream: str, living: SenderProcess, tmp_path: Path
) -> Iterator[tuple[Daemon, SubscriberProcess]]:
    daemon = serve(stream, bundle)
    daemon.until_validity("ok")
    subscriber = SubscriberProcess(tmp_path, daemon.endpoint)
    wait_until(lambda: subscriber.read, daemon.listen)
    yield daemon, subscriber
    subscriber.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/net/tcp")
def test_a_subscriber_that_stands_still_is_cut_off_and_comes_back(
    subscribed: tuple[Daemon, SubscriberProcess],
) -> None:
    daemon, subscriber = subscribed
    assert n_connections(daemon) == 2
    subscriber.stand_still()
    t_stopped_s, n_before = clock.now(), len(subscriber.read)
    wait_until(lambda: n_connections(daemon) == 1, daemon.listen)
    silent_s = LINK_SILENT_MOST_MS * 1e-3
    assert clock.now() - t_stopped_s < 3 * silent_s
    keep_on(silent_s, daemon.listen)
    t_resumed_s = clock.now()
    subscriber.go_on()
    wait_until(lambda: n_connections(daemon) == 2, daemon.listen)
    wait_until(lambda: subscriber.read[-1]["t_window"] > t_resumed_s, daemon.listen)
    after = subscriber.read[n_before:]
    # What was on its way when it stopped may still come; nothing waits on the daemon's side.
    old = [d for d in after if d["t_read"] - d["t_window"] > OLD_S]
    assert all(d["t_window"] < t_stopped_s + 3 * silent_s for d in old)
    fresh = next(d for d in after if d["t_window"] > t_resumed_s)
    hole = fresh["seq"] - max((d["seq"] for d in old), default=subscriber.read[n_before - 1]["seq"])
    assert hole > 1
    assert daemon.until_validity("ok")["run_id"] == fresh["run_id"]


@needs_another_machine
def test_a_link_that_was_cut_brings_nothing_old(
    serve: DaemonStarter, bundle: Path, stream: str, living: SenderProcess, tmp_path: Path
) -> None:
    machine, keys = OtherMachine(OF_SUBSCRIBER), tmp_path / "keys"
    write_curve_keys(keys, new_pair(), new_pair())
    output = {"decode": f"tcp://{machine.here}:*", "keys": str(keys / SERVER_FILE)}
    daemon = serve(stream, bundle, output=output)
    endpoint, client = daemon.announced["decode"], str(keys / CLIENT_FILE)
    subscriber = SubscriberProcess(tmp_path, endpoint, client, machine)
    try:
        wait_until(lambda: subscriber.read and subscriber.read[-1]["validity"] == "ok")
        machine.both(up=False)
        n_before = len(subscriber.read)
        keep_on(2 * LINK_SILENT_MOST_MS * 1e-3, lambda: None)
        machine.both(up=True)
        t_mended_s = clock.now()
        wait_until(lambda: subscriber.read[-1]["t_window"] > t_mended_s)
        # A few were read while the link went down.
        after = [d for d in subscriber.read[n_before:] if d["t_read"] > t_mended_s]
        assert all(d["t_read"] - d["t_window"] < OLD_S for d in after)
        assert daemon.is_alive
    finally:
        subscriber.close()
        machine.close()
