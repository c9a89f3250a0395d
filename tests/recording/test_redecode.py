"""Every decode of a recorded run is made again from the record, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.redecode.replay import NOT_OPENED
from streams.wire.schema import Command, encode
from tests.export.tiny_graph import write_tiny_bundle
from tests.recording.recorded import only_run, redecoded
from tests.system.conftest import HOP_S, UNIT_KEYS, DaemonStarter
from tests.system.running import Daemon, clock, keep_on, unique
from tests.system.sender_process import SenderProcess
from tests.system.sources import Living
from tests.system.test_counts import BIN_S, LABELS, Counter


def assert_made_again(daemon: Daemon, folder: Path) -> dict[str, Any]:
    """All decodes that were said are made again and are the same."""
    assert daemon.end() == 0
    report = redecoded(only_run(folder))
    for what in ("differing", "other_values", "other_tokens", "other_checkpoints"):
        assert report[what] == 0
    assert report["compared"] == report["decodes"]
    assert report["decodes"] == daemon.heard.decodes[-1]["seq"] + len(daemon.heard.shadows)
    assert report["bit_for_bit"]
    return report


@pytest.mark.parametrize(
    "beat",
    [
        {"settle_ms": "auto", "cut": "auto"},
        {"cut": "settled"},
        {"cut": "arrived", "rehearse": False},
        {"cut": "settled", "token_cap": 2},
    ],
    ids=lambda beat: "-".join(map(str, beat.values())),
)
def test_however_bins_are_cut(
    serve: DaemonStarter,
    bundle: Path,
    stream: str,
    source: Living,
    tmp_path: Path,
    beat: dict[str, Any],
) -> None:
    record = {"enabled": True, "folder": str(tmp_path / "recordings"), "part_mb": 0.01}
    daemon = serve(stream, bundle, record=record, beat=beat, shaping={"smoothing": 0.5})
    daemon.until_validity("ok", source.send_due)
    rng = np.random.default_rng(1)

    def jumble() -> None:
        source.send_due()
        stamps = np.round(clock.now() - rng.uniform(0.0, 3 * HOP_S, 4), 4)
        source.send(stamps.tolist(), rng.integers(0, len(UNIT_KEYS), 4).tolist())
        daemon.listen()

    keep_on(2.0, jumble)
    report = assert_made_again(daemon, tmp_path / "recordings")
    assert report["bins_run"] > 100


def test_bins_that_overlap(
    serve: DaemonStarter, stream: str, source: Living, tmp_path: Path
) -> None:
    wide = write_tiny_bundle(tmp_path / "wide", UNIT_KEYS, HOP_S, 3 * HOP_S, with_position=True)
    record = {"enabled": True, "folder": str(tmp_path / "recordings")}
    daemon = serve(stream, wide.path, record=record)
    daemon.until_validity("ok", source.send_due)
    keep_on(1.0, lambda: (source.send_due(), daemon.listen()))
    assert_made_again(daemon, tmp_path / "recordings")


def test_a_source_of_counts(serve: DaemonStarter, tmp_path: Path) -> None:
    name = unique("counts")
    bundle = write_tiny_bundle(tmp_path / "counts", (*reversed(LABELS), "other"), BIN_S, BIN_S)
    record = {"enabled": True, "folder": str(tmp_path / "recordings")}
    counter = Counter(name)
    try:
        beat = {"settle_ms": 50.0, "hop_ms": 50.0}
        daemon = serve(name, bundle.path, record=record, beat=beat)
        daemon.until_validity("ok", counter.send_due)
        daemon.until(lambda heard: len(heard.decodes) >= 60, counter.send_due)
        assert_made_again(daemon, tmp_path / "recordings")
    finally:
        counter.close()


def test_a_decoder_in_shadow_that_knows_more_units(
    serve: DaemonStarter, bundle: Path, stream: str, tmp_path: Path
) -> None:
    """While it is there the ring admits spikes that the one in service does not know."""
    keys = (*UNIT_KEYS, "u50", "u51")
    more = write_tiny_bundle(tmp_path / "more", keys, HOP_S, HOP_S, with_position=True, seed=4)
    source = Living(stream, keys)
    record = {"enabled": True, "folder": str(tmp_path / "recordings")}
    try:
        daemon = serve(stream, bundle, record=record)
        daemon.until(lambda heard: len(heard.decodes) > 10, source.send_due)
        swap = Command(command="swap", arguments={"bundle": str(more.path), "hold": True})
        assert daemon.send(encode(swap)).ok
        daemon.until(lambda heard: len(heard.shadows) > 25, source.send_due)
        assert daemon.ask("dismiss").ok
        daemon.until_event("dismiss", source.send_due)
        keep_on(0.5, lambda: (source.send_due(), daemon.listen()))
        report = assert_made_again(daemon, tmp_path / "recordings")
        assert len(report["by_decoder"]) == 2
    finally:
        source.close()


def test_the_others_are_compared_where_a_decoder_s_bundle_is_gone(
    serve: DaemonStarter, bundle: Path, stream: str, source: Living, tmp_path: Path
) -> None:
    """What was said by the one that is gone is what the next one's values are smoothed with."""
    other = write_tiny_bundle(
        tmp_path / "other", UNIT_KEYS, HOP_S, HOP_S, with_position=True, seed=4
    ).path
    record = {"enabled": True, "folder": str(tmp_path / "recordings")}
    daemon = serve(stream, bundle, record=record, shaping={"smoothing": 0.9})
    daemon.until_validity("ok", source.send_due)
    for n_swaps, path in enumerate((other, bundle), 1):
        arguments = {"bundle": str(path), "shadow_s": 0.2}
        assert daemon.send(encode(Command(command="swap", arguments=arguments))).ok
        daemon.until(
            lambda heard, n=n_swaps: sum(e["event"] == "promote" for e in heard.events) == n,
            source.send_due,
        )
        keep_on(0.5, lambda: (source.send_due(), daemon.listen()))
    whole = assert_made_again(daemon, tmp_path / "recordings")
    for gone in (other, bundle):
        hidden = gone.rename(tmp_path / "hidden")
        report = redecoded(only_run(tmp_path / "recordings"))
        hidden.rename(gone)
        assert 0 < report["compared"] < whole["compared"]
        assert report["not_compared"].keys() == {NOT_OPENED}
        assert report["differing"] == report["other_values"] == 0


def test_a_daemon_that_stood_still(
    serve: DaemonStarter, bundle: Path, stream: str, living: SenderProcess, tmp_path: Path
) -> None:
    """Beats are overdue, skipped and caught up, and after a longer hole the memory begins anew."""
    record = {"enabled": True, "folder": str(tmp_path / "recordings")}
    daemon = serve(stream, bundle, record=record, shaping={"smoothing": 0.5})
    daemon.until_validity("ok")

    def stand_still(stood_s: float) -> None:
        daemon.stand_still()
        keep_on(stood_s, daemon.listen)
        daemon.go_on()
        keep_on(1.0, daemon.listen)

    for stood_s in (0.1, 0.4, 1.6):
        stand_still(stood_s)
    assert daemon.heard.decodes[-1]["beats_skipped"] > 50
    # A beat that is overdue may lack its keep-alives too, which it says first: again until not.
    n_again = 0
    while not any(decode["reason"] == "overdue" for decode in daemon.heard.decodes):
        n_again += 1
        assert n_again <= 20
        stand_still(0.1)
    report = assert_made_again(daemon, tmp_path / "recordings")
    assert "overdue" in report["by_reason"]
