"""Bad spikes in a good stream: each has its one fate, and the daemon decodes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from export.bundle import open_bundle
from tests.export.tiny_graph import write_tiny_bundle
from tests.system.conftest import HOP_S, UNIT_KEYS, DaemonStarter
from tests.system.recorded_tokens import assert_cut_as_offline, read_run, recorded_in
from tests.system.running import clock, keep_on
from tests.system.sources import Floats, Living

STRANGER = len(UNIT_KEYS)


@pytest.fixture
def source(stream: str) -> Iterator[Living]:
    """Sends what the decoder knows; u100, which it does not know, only when asked."""
    living = Living(stream, (*UNIT_KEYS, "u100"), n_firing=len(UNIT_KEYS))
    yield living
    living.close()


@pytest.fixture
def floats(stream: str) -> Iterator[Floats]:
    outlet = Floats(stream)
    yield outlet
    outlet.close()


def test_unknown_units_are_counted_and_too_many_are_a_fault(
    serve: DaemonStarter, bundle: Path, stream: str, source: Living
) -> None:
    daemon = serve(stream, bundle)
    daemon.until_validity("ok", source.send_due)
    n_unknown, known = 30, [unit for unit in range(STRANGER) for _ in range(3)]
    for _ in range(n_unknown // 2):  # one in twelve at most
        now_s = clock.now()
        stamps = now_s - 1e-5 * np.arange(len(known) + 2)
        source.send(stamps.tolist(), [*known, STRANGER, STRANGER])
        keep_on(0.1, source.send_due)
        daemon.listen()
    assert daemon.heard.decodes[-1]["spikes_in"] > 10 * n_unknown
    assert not any(decode["reason"] == "unknown_units" for decode in daemon.heard.decodes)

    def with_strangers() -> None:
        nonlocal n_unknown
        before = source.n_sent
        source.send_due()
        if source.n_sent > before:
            source.send([clock.now()], [STRANGER])
            n_unknown += 1

    fault = daemon.until_validity("fault", with_strangers)
    assert fault["reason"] == "unknown_units"
    assert fault["value"]["velocity"] == [0.0, 0.0]
    daemon.until_validity("ok", source.send_due)
    status = daemon.until_settled(source.n_sent)
    assert status["fates"]["unknown_unit"] == n_unknown
    assert sum(status["fates"].values()) == source.n_sent
    assert status["units_seen"] == status["units_known"] + 1


def test_old_and_future_stamps_are_counted_and_not_decoded(
    serve: DaemonStarter, bundle: Path, stream: str, source: Living
) -> None:
    daemon = serve(stream, bundle)
    daemon.until_validity("ok", source.send_due)
    daemon.until_settled(source.n_sent)
    late_before = daemon.ask("status").result["fates"]["late"]
    newest_s = source.newest_s
    source.send([newest_s - 2.0, 1e-3], [0, 1])
    source.send([clock.now() + 10.0, clock.now() + 1e6, 1e300], [0, 1, 2])
    status = daemon.until_settled(source.n_sent)
    assert status["fates"]["late"] == late_before + 2
    assert status["fates"]["future"] == 3
    assert sum(status["fates"].values()) == source.n_sent
    stale = daemon.until_validity("stale")
    assert stale["t_newest_spike"] <= newest_s + 1e-6
    daemon.until_validity("ok", source.send_due)


def test_out_of_order_stamps_are_cut_as_if_in_order(
    serve: DaemonStarter, bundle: Path, stream: str, source: Living, tmp_path: Path
) -> None:
    daemon = serve(stream, bundle, record=recorded_in(tmp_path))
    daemon.until_validity("ok", source.send_due)
    rng = np.random.default_rng(1)

    def jumble() -> None:
        daemon.listen()
        source.send_due()
        stamps = np.round(clock.now() - rng.uniform(0.0, 1.5 * HOP_S, 6), 4)
        source.send(stamps.tolist(), rng.integers(0, len(UNIT_KEYS), 6).tolist())

    keep_on(1.0, jumble)
    status = daemon.until_settled(source.n_sent, source.send_due)
    assert sum(status["fates"].values()) <= source.n_sent
    assert daemon.end() == 0
    run = read_run(tmp_path)
    assert np.any(np.diff(run.received.spikes.t_us) < 0)
    assert assert_cut_as_offline(run, open_bundle(bundle).row_of_key) > 300


def test_without_numbers_a_unit_and_fine_stamp_that_come_again_are_a_duplicate(
    serve: DaemonStarter, bundle: Path, stream: str
) -> None:
    source = Floats(stream, ["unit"])
    daemon = serve(stream, bundle)
    source.wait_for_listener(daemon.listen)
    rng, n_sent = np.random.default_rng(2), 0

    def fire() -> None:
        nonlocal n_sent
        daemon.listen()
        stamps = np.sort(clock.now() - rng.uniform(0.0, 5e-3, 6))
        source.send([[float(unit)] for unit in rng.integers(0, STRANGER, 6)], stamps.tolist())
        n_sent += 6

    daemon.until_validity("ok", fire)
    before = daemon.until_settled(n_sent)["fates"]
    t_s = clock.now()
    source.send([[0.0], [0.0], [0.0], [1.0]], [t_s, t_s, t_s, t_s])
    daemon.until_settled(n_sent + 4)
    source.send([[0.0], [1.0]], [t_s, t_s])
    after = daemon.until_settled(n_sent + 6)["fates"]
    assert after["duplicate"] == before["duplicate"] + 4
    source.close()


def test_numbered_spikes_of_an_equal_stamp_are_no_duplicates(
    serve: DaemonStarter, bundle: Path, stream: str, source: Living
) -> None:
    daemon = serve(stream, bundle)
    daemon.until_validity("ok", source.send_due)
    daemon.until_settled(source.n_sent)
    t_s = clock.now()
    source.send([t_s, t_s, t_s, t_s], [0, 0, 0, 1])
    source.send([t_s, t_s], [0, 1])
    after = daemon.until_settled(source.n_sent)["fates"]
    assert after["duplicate"] == 0
    assert sum(after.values()) == source.n_sent


@pytest.mark.parametrize("labels", [("channel", "unit"), ("unit",), ("seq", "unit")])
def test_blocks_of_one_stamp_lose_no_spike(
    serve: DaemonStarter, bundle: Path, stream: str, labels: tuple[str, ...]
) -> None:
    """As from programs that push a block at a time: several spikes of a unit share its stamp."""
    with_channel = "channel" in labels
    decoder = bundle.parent / f"blocks-{len(labels)}"
    if with_channel and not decoder.exists():
        write_tiny_bundle(decoder, [f"ch{i}/u0" for i in range(STRANGER)], HOP_S, HOP_S)
    source = Floats(stream, labels)
    daemon = serve(stream, decoder if with_channel else bundle)
    source.wait_for_listener(daemon.listen)
    rng, n_sent = np.random.default_rng(3), 0

    def push() -> None:
        nonlocal n_sent
        daemon.listen()
        n, t_s = int(rng.integers(10, 40)), clock.now()
        columns = {
            "channel": rng.integers(0, STRANGER, n),
            "unit": np.zeros(n) if with_channel else rng.integers(0, STRANGER, n),
            "seq": np.arange(n_sent, n_sent + n),
        }
        rows = np.stack([columns[label] for label in labels], axis=1).astype(float)
        source.send(rows.tolist(), [t_s] * n)
        n_sent += n
        keep_on(0.02, daemon.listen)

    daemon.until(lambda _: n_sent > 3000, push)
    fates = daemon.until_settled(n_sent)["fates"]
    assert fates["duplicate"] == 0
    assert fates["used"] + fates["late"] == n_sent
    daemon.until_validity("ok", push)
    source.close()


def test_a_sequence_number_that_came_before_is_a_duplicate(
    serve: DaemonStarter, bundle: Path, stream: str, floats: Floats
) -> None:
    daemon = serve(stream, bundle)
    floats.wait_for_listener(daemon.listen)
    t_s = clock.now()
    floats.send([[0, 0], [1, 1], [2, 2]], [t_s, t_s + 1e-3, t_s + 2e-3])
    floats.send([[1, 1], [2, 2], [3, 3]], [t_s + 3e-3, t_s + 4e-3, t_s + 5e-3])
    fates = daemon.until_settled(6)["fates"]
    assert fates["duplicate"] == 2
    assert fates["used"] + fates["late"] == 4


def test_numbers_that_name_no_unit_are_invalid(
    serve: DaemonStarter, bundle: Path, stream: str, floats: Floats
) -> None:
    daemon = serve(stream, bundle)
    floats.wait_for_listener(daemon.listen)
    units = [np.nan, -5.0, 2.5, np.inf, 1e12, 3.0, -1.0]
    now_s = clock.now()
    floats.send([[unit, seq] for seq, unit in enumerate(units)], [now_s] * len(units))
    floats.send([[0.0, np.nan], [1.0, -3.0]], [now_s, now_s])
    floats.send([[2.0, 20.0]], [np.nan])
    fates = daemon.until_settled(9)["fates"]
    assert fates["invalid"] == 6
    assert fates["used"] + fates["late"] == 3
    assert daemon.end() == 0


def test_what_the_ring_cannot_hold_is_counted(
    serve: DaemonStarter, bundle: Path, stream: str, source: Living
) -> None:
    daemon = serve(stream, bundle, input={"budget_spikes_per_s": 100})
    daemon.until_validity("ok", source.send_due)
    before = daemon.until_settled(source.n_sent)["fates"]
    n = 900
    t_s = clock.now() + np.linspace(0.0, 2e-3, n)
    source.send(t_s.tolist(), (np.arange(n) % len(UNIT_KEYS)).tolist())
    after = daemon.until_settled(source.n_sent)["fates"]
    assert after["overflow"] == before["overflow"] + n - 500
    assert sum(after.values()) == source.n_sent
    assert daemon.until_validity("ok", source.send_due)["spikes_dropped"] == after["overflow"]


def test_what_was_lost_while_the_daemon_stood_still_is_counted(
    serve: DaemonStarter, bundle: Path, stream: str, source: Living
) -> None:
    daemon = serve(stream, bundle, input={"budget_spikes_per_s": 100})
    daemon.until_validity("ok", source.send_due)
    daemon.until_settled(source.n_sent)
    skipped_before = daemon.heard.decodes[-1]["beats_skipped"]
    daemon.stand_still()
    t_stopped_s = clock.now()
    for _ in range(300):
        source.send(
            (clock.now() - np.arange(1000) * 1e-6).tolist(), [i % STRANGER for i in range(1000)]
        )
    keep_on(1.5, lambda: None)
    t_resumed_s = clock.now()
    daemon.go_on()
    status = {}

    def all_accounted() -> bool:
        status.update(daemon.ask("status").result)
        return bool(sum(status["fates"].values()) + status["spikes_lost"] >= source.n_sent)

    daemon.until(lambda _: all_accounted())
    assert sum(status["fates"].values()) + status["spikes_lost"] == source.n_sent
    assert status["spikes_lost"] > 0
    warming = daemon.until_validity("warmup", source.send_due)
    n_missed = int((t_resumed_s - t_stopped_s) / HOP_S) - 2
    assert warming["beats_skipped"] >= skipped_before + n_missed
    daemon.until_validity("ok", source.send_due)
