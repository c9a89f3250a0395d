"""An amplifier's program that pushes blocks: the settle time finds their length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from service.bench.sender import unit_keys
from tests.export.tiny_graph import write_tiny_bundle
from tests.system.conftest import HOP_S, write_config
from tests.system.running import Daemon, Process, unique

pytestmark = pytest.mark.alone

N_UNITS, RATE_HZ = 20, 50.0
FOR_S = 4.0


@dataclass(frozen=True, slots=True)
class Settled:
    """Daemons that have listened for long enough to settle.

    Attributes:
        auto: hears 10 ms blocks.
        hasty: hears them too, but waits for 2 ms only.
        too_long: hears 35 ms blocks, at a hop of 20 ms, and waits for the settle time.
    """

    auto: Daemon
    hasty: Daemon
    too_long: Daemon

    def listen(self) -> None:
        """Take in what all of them publish."""
        for daemon in (self.auto, self.hasty, self.too_long):
            daemon.listen()


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settled]:
    """They settle side by side: it takes ten seconds."""
    folder = tmp_path_factory.mktemp("settle")
    write_tiny_bundle(folder / "tiny", unit_keys(N_UNITS), HOP_S, HOP_S)
    processes: list[Process] = []

    def send(block_ms: float) -> str:
        name = unique("blocks")
        processes.append(
            Process(
                folder, "bench", "sender", "--name", name, "--units", str(N_UNITS),
                "--rate", str(RATE_HZ), "--block-ms", str(block_ms), "--seconds", "600",
            )
        )  # fmt: skip
        return name

    def serve(stream: str, settle_ms: float | str, cut: str = "auto") -> Daemon:
        output = {"lsl_name": unique("decodes")}
        beat = {"settle_ms": settle_ms, "cut": cut}
        sections: dict[str, dict[str, Any]] = {"beat": beat, "output": output}
        daemon = Daemon(folder, write_config(folder, stream, folder / "tiny", **sections))
        processes.append(daemon)
        return daemon

    try:
        short, long = send(10.0), send(35.0)
        # With `auto` a hasty daemon's beats would come to fall where blocks end: none is late then.
        hasty = serve(short, 0.5, "settled")
        daemons = Settled(serve(short, "auto"), hasty, serve(long, "auto", "settled"))
        for daemon in (daemons.auto, daemons.too_long):
            daemon.until_event("settled", daemons.listen)
        yield daemons
    finally:
        for process in processes:
            process.kill()


def n_late(daemon: Daemon) -> int:
    """Spikes that were late so far."""
    fates: dict[str, int] = daemon.ask("status").result["fates"]
    return fates["late"]


def test_settle_finds_the_length_of_10_ms_blocks(settled: Settled) -> None:
    auto, hasty = settled.auto, settled.hasty
    detail = auto.until_event("settled")["detail"]
    # Of the same minute on the same machine, which may stand still for longer than a block lasts.
    longer = settled.too_long.until_event("settled", settled.listen)["detail"]
    assert 2.0 < detail["settle_ms"] < longer["settle_ms"]
    before = n_late(auto), n_late(hasty)
    n_beats = len(auto.heard.decodes) + FOR_S / HOP_S
    auto.until(lambda heard: len(heard.decodes) >= n_beats, settled.listen)
    assert 4 * (n_late(auto) - before[0]) < n_late(hasty) - before[1]
    first, last = auto.heard.heartbeats[0], auto.heard.heartbeats[-1]
    assert first["settling"]
    assert first["settle_ms"] >= HOP_S * 1e3
    assert (last["settling"], last["settle_ms"]) == (False, detail["settle_ms"])


def test_blocks_longer_than_a_hop_are_waited_for_and_told_once(settled: Settled) -> None:
    daemon = settled.too_long
    detail = daemon.until_event("settled")["detail"]
    assert detail["settle_ms"] > 30.0
    assert "shorter blocks" in detail["note"]
    decode = daemon.until_validity("ok")
    assert decode["t_sent"] - decode["t_window"] > 30e-3
    daemon.until(lambda heard: heard.heartbeats[-1]["delay_ms"] is not None)
    heartbeat = daemon.heard.heartbeats[-1]
    assert heartbeat["delay_ms"] > 30.0
    assert heartbeat["fates"]["late"] < 0.02 * heartbeat["spikes_in"]
