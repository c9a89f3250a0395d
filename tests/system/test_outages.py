"""The source dies, stays away, falls silent, comes back, and comes back with its backlog."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pylsl
import pytest

from service.bench.sender import unit_keys
from service.loop.intake.ingest import SILENT_S
from streams.errors import StreamAbsentError
from streams.lsl.description import KEEP_ALIVE_EVERY_S
from streams.lsl.inlets import Inlet
from tests.export.tiny_graph import write_tiny_bundle
from tests.system.conftest import HOP_S, UNIT_KEYS, DaemonStarter
from tests.system.running import WITHIN_S, Daemon, Process, clock, keep_on, unique
from tests.system.sources import Floats, Living

STALE_AFTER_S = 0.1
KEEP_ALIVES_S = 3 * KEEP_ALIVE_EVERY_S
N_SENDER_UNITS, SENDER_RATE_HZ = 8, 50.0


@pytest.fixture(scope="module")
def sender_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Knows the units of `bench sender`."""
    path = tmp_path_factory.mktemp("outages") / "tiny"
    write_tiny_bundle(path, unit_keys(N_SENDER_UNITS), HOP_S, HOP_S)
    return path


@pytest.fixture
def send(run: Callable[..., Process], stream: str) -> Callable[[], Process]:
    """Starts a process that sends spikes in real time."""

    def start() -> Process:
        return run(
            "bench", "sender", "--name", stream, "--units", str(N_SENDER_UNITS),
            "--rate", str(SENDER_RATE_HZ), "--seconds", "600",
        )  # fmt: skip

    return start


def assert_stale(decodes: list[dict[str, Any]], reason: str) -> None:
    """Every decode is stale for this reason, and carries the safe value."""
    assert decodes
    for decode in decodes:
        assert (decode["validity"], decode["reason"]) == ("stale", reason)
        assert decode["value"]["velocity"] == [0.0, 0.0]


def made_after(daemon: Daemon, t_s: float) -> list[dict[str, Any]]:
    """The decodes that were judged after `t_s`."""
    return [decode for decode in daemon.heard.decodes if decode["t_done"] > t_s]


def test_the_source_dies_stays_away_and_comes_back(
    serve: DaemonStarter, sender_bundle: Path, stream: str, send: Callable[[], Process]
) -> None:
    sender = send()
    daemon = serve(stream, sender_bundle)
    run_id = daemon.until_validity("ok")["run_id"]
    t_before_s = clock.now()
    sender.kill()
    t_dead_s = clock.now()
    daemon.until_validity("stale")
    keep_on(1.0, daemon.listen)
    assert_stale(made_after(daemon, t_dead_s + KEEP_ALIVES_S), "keep_alives_missed")
    assert made_after(daemon, t_before_s + KEEP_ALIVES_S)
    back = send()
    again = daemon.until_validity("ok")
    assert again["run_id"] == run_id
    assert again["t_newest_spike"] > t_dead_s
    assert again["value"]["velocity"] != [0.0, 0.0]
    before = daemon.ask("status").result["fates"]
    daemon.until(lambda heard: heard.decodes[-1]["spikes_in"] > sum(before.values()) + 100)
    after = daemon.ask("status").result["fates"]
    assert after["duplicate"] == before["duplicate"]
    assert after["used"] > before["used"]
    assert daemon.end() == 0
    back.kill()


def test_the_source_stands_still_and_comes_back_with_its_backlog(
    serve: DaemonStarter, sender_bundle: Path, stream: str, send: Callable[[], Process]
) -> None:
    sender = send()
    daemon = serve(stream, sender_bundle)
    daemon.until_validity("ok")
    late_before = daemon.ask("status").result["fates"]["late"]
    sender.signal(signal.SIGSTOP)
    t_stopped_s = clock.now()
    keep_on(1.5, daemon.listen)
    assert_stale(made_after(daemon, t_stopped_s + KEEP_ALIVES_S), "keep_alives_missed")
    sender.signal(signal.SIGCONT)
    daemon.until_validity("ok")
    fates = daemon.ask("status").result["fates"]
    n_backlog = 1.5 * N_SENDER_UNITS * SENDER_RATE_HZ
    assert fates["late"] - late_before > 0.8 * n_backlog
    assert fates["overflow"] == fates["duplicate"] == 0
    for decode in made_after(daemon, t_stopped_s):
        assert decode["tokens"] < 0.2 * n_backlog


def test_a_backlog_of_old_stamps_is_late_and_ends_no_staleness(
    serve: DaemonStarter, bundle: Path, stream: str
) -> None:
    source = Living(stream, UNIT_KEYS)
    daemon = serve(stream, bundle)
    daemon.until_validity("ok", source.send_due)
    newest_s = source.newest_s
    late_before = daemon.until_settled(source.n_sent)["fates"]["late"]
    daemon.until_validity("stale")
    n_before, n_backlog = source.n_sent, 0
    while n_backlog < 300:
        stamps = [newest_s - 2.0 + 1e-3 * n_backlog, newest_s - 1.9 + 1e-3 * n_backlog]
        source.send(stamps, [n_backlog % 4, 4 + n_backlog % 4])
        n_backlog += 2
        keep_on(2e-3, daemon.listen)
    fates = daemon.until_settled(n_before + n_backlog)["fates"]
    assert fates["late"] == late_before + n_backlog
    keep_on(0.1, daemon.listen)
    silent = made_after(daemon, newest_s + KEEP_ALIVES_S)
    # What was lacking in beats that were told `ok` is a fault for as long as it comes.
    assert {decode["reason"] for decode in silent} <= {"keep_alives_missed", "spikes_rejected"}
    assert all(decode["value"]["velocity"] == [0.0, 0.0] for decode in silent)
    daemon.until_validity("ok", source.send_due)
    source.close()


def test_a_silent_source_that_keeps_alive_is_ok(
    serve: DaemonStarter, bundle: Path, stream: str
) -> None:
    source = Living(stream, UNIT_KEYS, n_firing=0)
    daemon = serve(stream, bundle)
    decode = daemon.until_validity("ok", source.send_due)
    assert decode["t_newest_spike"] is None
    assert decode["tokens"] == 0
    source.close()


def test_a_source_without_keep_alives_is_stale_when_silent_too_long(
    serve: DaemonStarter, bundle: Path, stream: str
) -> None:
    source = Floats(stream, ["unit"])
    daemon = serve(stream, bundle)
    source.wait_for_listener(daemon.listen)
    daemon.until_validity("ok", lambda: source.send([[1.0]], [clock.now()]))
    source.send([[2.0]], [t_last_s := clock.now()])
    daemon.until_validity("stale")
    keep_on(0.2, daemon.listen)
    assert_stale(made_after(daemon, t_last_s + STALE_AFTER_S), "no_spikes")
    daemon.until_validity("ok", lambda: source.send([[1.0]], [clock.now()]))
    source.close()


def test_a_source_without_source_id_is_found_again(
    serve: DaemonStarter, bundle: Path, stream: str
) -> None:
    source = Living(stream, UNIT_KEYS, source_id="")
    daemon = serve(stream, bundle)
    run_id = daemon.until_validity("ok", source.send_due)["run_id"]
    source.close()
    assert stream in daemon.until_event("source_lost")["detail"]["stream"]
    daemon.until_validity("stale")
    again = Living(stream, UNIT_KEYS, source_id="")
    daemon.until_event("source_back", again.send_due)
    assert daemon.until_validity("ok", again.send_due)["run_id"] == run_id
    assert daemon.end() == 0
    again.close()


def test_the_daemon_ends_in_order_while_its_source_is_away(
    serve: DaemonStarter, bundle: Path, stream: str
) -> None:
    source = Living(stream, UNIT_KEYS, source_id="")
    daemon = serve(stream, bundle)
    daemon.until_validity("ok", source.send_due)
    source.close()
    daemon.until_event("source_lost")
    assert daemon.end() == 0
    assert daemon.heard.decodes[-1]["reason"] == "stopping"


@pytest.mark.parametrize("source_id", ["", "named"])
def test_a_source_that_restarts_at_once_counts_from_zero_again(
    serve: DaemonStarter, bundle: Path, stream: str, source_id: str
) -> None:
    name = source_id and stream
    source = Living(stream, UNIT_KEYS, name)
    daemon = serve(stream, bundle)
    daemon.until_validity("ok", source.send_due)
    source.send([clock.now() + 100.0], [0])
    daemon.until_settled(source.n_sent)
    source.close()
    again = Living(stream, UNIT_KEYS, name)
    daemon.until(lambda _: again.n_sent > 50, again.send_due)
    fates = daemon.until_settled(source.n_sent + again.n_sent, again.send_due)["fates"]
    assert fates["duplicate"] == 0
    daemon.until_validity("ok", again.send_due)
    again.close()


def test_a_source_that_comes_back_as_another_kind_is_refused_until_one_fits(
    serve: DaemonStarter, bundle: Path, stream: str
) -> None:
    source = Living(stream, UNIT_KEYS, source_id="")
    daemon = serve(stream, bundle)
    daemon.until_validity("ok", source.send_due)
    source.close()
    daemon.until_event("source_lost")
    other = Floats(stream, ["a", "b", "c", "d", "e"])
    changed = daemon.until_event("source_changed")
    assert "its channels are a, b, c, d, e" in changed["detail"]["warning"]
    decode = daemon.until_validity("fault")
    assert (decode["reason"], decode["value"]["velocity"]) == ("source_changed", [0.0, 0.0])
    other.close()
    back = Living(stream, UNIT_KEYS, source_id="of another run")
    daemon.until_event("source_back", back.send_due)
    daemon.until_validity("ok", back.send_due)
    assert daemon.end() == 0
    back.close()


def test_a_stream_that_goes_while_it_is_opened_is_absent(stream: str) -> None:
    source = Living(stream, UNIT_KEYS, source_id="")
    (info,) = pylsl.resolve_byprop("name", stream, 1, timeout=WITHIN_S)
    source.close()
    with pytest.raises(StreamAbsentError, match=stream):
        Inlet(info, budget_per_s=1000.0)


def test_a_stream_whose_address_another_has_taken_is_absent(stream: str) -> None:
    """LSL would give the other's description, and its labels, for those of the stream."""
    source = Living(stream, UNIT_KEYS, source_id="")
    (info,) = pylsl.resolve_byprop("name", stream, 1, timeout=WITHIN_S)
    source.close()
    others = [Living(unique("other"), UNIT_KEYS[:1], source_id="") for _ in range(3)]
    try:
        with pytest.raises(StreamAbsentError, match=stream):
            Inlet(info, budget_per_s=1000.0)
    finally:
        for other in others:
            other.close()


def test_a_source_that_is_silent_and_answers_is_not_lost(
    serve: DaemonStarter, bundle: Path, stream: str
) -> None:
    source = Floats(stream, ["unit"])
    daemon = serve(stream, bundle)
    source.wait_for_listener(daemon.listen)
    daemon.until_validity("ok", lambda: source.send([[1.0]], [clock.now()]))
    keep_on(1.5 * SILENT_S, daemon.listen)
    assert not [e for e in daemon.heard.events if e["event"] == "source_lost"]
    assert daemon.heard.decodes[-1]["reason"] == "no_spikes"
    daemon.until_validity("ok", lambda: source.send([[1.0]], [clock.now()]))
    source.close()
