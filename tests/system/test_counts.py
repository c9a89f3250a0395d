"""A source of counts at 50 ms, decoded at hop = bin = 50 ms."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from export.bundle import open_bundle
from streams.lsl.outlets import CountsOutlet
from streams.messages import Int32s
from tests.export.tiny_graph import write_tiny_bundle
from tests.system.conftest import DaemonStarter
from tests.system.recorded_tokens import read_run, recorded_in, tokens_cut_offline
from tests.system.running import clock, keep_on, wait_until

BIN_S = 0.05
LABELS = tuple(f"electrode{i}" for i in range(6))


class Counter:
    """Publishes counts on edges 50 ms apart, and remembers them.

    Args:
        name: of the stream.
    """

    def __init__(self, name: str) -> None:
        self._outlet = CountsOutlet(name, name, LABELS, 1.0 / BIN_S)
        self._rng = np.random.default_rng(3)
        self._start_s = clock.now()
        self.sent: dict[float, Int32s] = {}

    def send_due(self) -> None:
        """Publish each bin that has ended, if anybody listens."""
        if not self._outlet.has_consumers():
            self._start_s = clock.now()
        while (edge_s := self._start_s + (len(self.sent) + 1) * BIN_S) <= clock.now():
            self.send(self._rng.poisson(0.7, len(LABELS)).astype(np.int32), edge_s)

    def send(self, counts: Int32s, edge_s: float) -> None:
        """Publish the bin that ends at `edge_s`."""
        self._outlet.push(counts, edge_s)
        self.sent[edge_s] = counts

    def close(self) -> None:
        """Take the stream off the network."""
        self._outlet.close()


@pytest.fixture(scope="module")
def counts_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Knows the labels, in another order, and one more."""
    path = tmp_path_factory.mktemp("counts") / "tiny"
    write_tiny_bundle(path, (*reversed(LABELS), "electrode99"), BIN_S, BIN_S)
    return path


@pytest.fixture
def counter(stream: str) -> Iterator[Counter]:
    source = Counter(stream)
    yield source
    source.close()


def test_the_tokens_of_each_beat_are_the_counts_of_its_bin(
    serve: DaemonStarter, counts_bundle: Path, stream: str, counter: Counter, tmp_path: Path
) -> None:
    beat, record = {"settle_ms": 50.0, "hop_ms": 50.0}, recorded_in(tmp_path)
    daemon = serve(stream, counts_bundle, beat=beat, record=record)
    daemon.until_validity("ok", counter.send_due)
    daemon.until(lambda heard: len(heard.decodes) >= 60, counter.send_due)
    n_spikes = sum(int(counts.sum()) for counts in counter.sent.values())
    fates = daemon.until_settled(n_spikes)["fates"]
    assert sum(fates.values()) == n_spikes
    assert daemon.end() == 0
    row_of_key = open_bundle(counts_bundle).row_of_key
    run = read_run(tmp_path)
    tokens = tokens_cut_offline(run, row_of_key)
    assert sum(len(window) for window in tokens.values()) > 100
    rows = np.array([row_of_key[label] for label in LABELS])
    late_us = set(run.received.spikes.t_us[run.received.cut_before].tolist())
    n_compared = 0
    for edge_s, counts in counter.sent.items():
        end_us = round((edge_s - run.received.t0_s) * 1e6)
        if end_us in late_us:
            continue
        beat = round(end_us / run.hop_us)
        assert abs(end_us - beat * run.hop_us) <= 1
        window = tokens[beat]
        expected = {int(row): int(n) for row, n in zip(rows, counts, strict=True) if n}
        assert dict(zip(window.unit.tolist(), window.count.tolist(), strict=True)) == expected
        assert np.all(window.t_rel == np.float32(BIN_S))
        n_compared += 1
    assert n_compared > 40


def test_a_negative_count_is_invalid_and_empty_bins_keep_alive(
    serve: DaemonStarter, counts_bundle: Path, stream: str, counter: Counter
) -> None:
    daemon = serve(stream, counts_bundle, beat={"settle_ms": 50.0})
    daemon.until_validity("ok", counter.send_due)
    zeros = np.zeros(len(LABELS), np.int32)
    newest_s = max(counter.sent)
    for _ in range(10):
        newest_s += BIN_S
        keep_on(newest_s - clock.now(), daemon.listen)
        counter.send(zeros, newest_s)
    n_before = sum(int(counts.sum()) for counts in counter.sent.values())
    fates = daemon.until_settled(n_before)["fates"]
    assert fates["invalid"] == 0
    bad = zeros.copy()
    bad[[1, 4]] = -3
    counter.send(bad, newest_s + BIN_S)
    assert daemon.until_settled(n_before + 2)["fates"]["invalid"] == 2
    keep_on(0.1, daemon.listen)
    assert daemon.end() == 0


def test_a_hop_that_is_no_multiple_of_the_bin_is_refused(
    serve: DaemonStarter, bundle: Path, stream: str, counter: Counter
) -> None:
    daemon = serve(stream, bundle)
    daemon.connect()
    wait_until(lambda: not daemon.is_alive, counter.send_due)
    assert daemon.code() == 2
    assert "50 ms" in daemon.err
    assert "20 ms" in daemon.err
