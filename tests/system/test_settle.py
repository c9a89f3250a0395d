"""An amplifier's program that pushes blocks: the settle time finds their length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from service.bench.sender import unit_keys
from tests.export.tiny_graph import write_tiny_bundle
from tests.system.conftest import HOP_S, DaemonStarter
from tests.system.running import Daemon, Process

N_UNITS, RATE_HZ = 20, 50.0
FOR_S = 4.0


@pytest.fixture(scope="module")
def sender_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("settle") / "tiny"
    write_tiny_bundle(path, unit_keys(N_UNITS), HOP_S, HOP_S)
    return path


@pytest.fixture
def send(run: Callable[..., Process], stream: str) -> Callable[[float], Process]:
    """Starts a process that sends spikes in blocks of so many milliseconds."""

    def start(block_ms: float) -> Process:
        return run(
            "bench", "sender", "--name", stream, "--units", str(N_UNITS), "--rate", str(RATE_HZ),
            "--block-ms", str(block_ms), "--seconds", "600",
        )  # fmt: skip

    return start


def n_late(daemon: Daemon) -> int:
    """Spikes that were late so far."""
    fates: dict[str, int] = daemon.ask("status").result["fates"]
    return fates["late"]


def test_settle_finds_the_length_of_10_ms_blocks(
    serve: DaemonStarter, sender_bundle: Path, stream: str, send: Callable[[float], Process]
) -> None:
    send(10.0)
    auto = serve(stream, sender_bundle, beat={"settle_ms": "auto"})
    hasty = serve(
        stream,
        sender_bundle,
        beat={"settle_ms": 2.0},
        output={"lsl_name": f"{stream}-hasty"},
    )
    settled = auto.until_event("settled", hasty.listen)["detail"]
    assert 2.0 < settled["settle_ms"] <= HOP_S * 1e3
    before = n_late(auto), n_late(hasty)
    n_beats = len(auto.heard.decodes) + FOR_S / HOP_S
    auto.until(lambda heard: len(heard.decodes) >= n_beats, hasty.listen)
    assert 4 * (n_late(auto) - before[0]) < n_late(hasty) - before[1]
    beat = auto.heard.heartbeats[-1]
    assert (beat["settling"], beat["settle_ms"]) == (False, settled["settle_ms"])
    assert auto.heard.heartbeats[0]["settling"]
    assert auto.heard.heartbeats[0]["settle_ms"] == HOP_S * 1e3


def test_blocks_longer_than_a_hop_are_warned_of(
    serve: DaemonStarter, sender_bundle: Path, stream: str, send: Callable[[float], Process]
) -> None:
    send(35.0)
    daemon = serve(stream, sender_bundle, beat={"settle_ms": "auto"})
    settled = daemon.until_event("settled")["detail"]
    assert settled["settle_ms"] == HOP_S * 1e3
    assert "shorter blocks" in settled["warning"]
    daemon.until_validity("ok")
    assert daemon.end() == 0
    assert "shorter blocks" in daemon.err
