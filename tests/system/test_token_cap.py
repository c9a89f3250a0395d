"""A decoder too slow for its spikes: without a cap it misses beats, with one it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.bench.sender import unit_keys
from tests.export.heavy_graph import write_heavy_bundle
from tests.system.conftest import DaemonStarter
from tests.system.running import Daemon, Heard, Process

pytestmark = pytest.mark.alone

N_UNITS, RATE_HZ, HOP_S = 20, 1000.0, 0.05
BUCKET = 200
BUCKET_OF_HOP = 0.25
"""The spikes of a beat would take 1.25 hops."""
AHEAD = {"priority": 10}
"""Where it is permitted, other programs on the machine take no time from either run."""
N_BEATS = 40
N_STARTING = 20


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 tokens take a quarter of a hop; a thousand come in each."""
    path = tmp_path_factory.mktemp("slow") / "heavy"
    write_heavy_bundle(path, unit_keys(N_UNITS), HOP_S, BUCKET, BUCKET_OF_HOP * HOP_S)
    return path


@pytest.fixture
def sending(run: Callable[..., Process], stream: str) -> Process:
    return run(
        "bench", "sender", "--name", stream, "--units", str(N_UNITS), "--rate", str(RATE_HZ),
        "--seconds", "100",
    )  # fmt: skip


def decoded(daemon: Daemon) -> list[dict[str, Any]]:
    """The decodes of 2 s, once a second of them is over."""

    def enough(heard: Heard) -> bool:
        beats = [decode["beat"] for decode in heard.decodes if decode["tokens"]]
        return bool(beats) and beats[-1] - beats[0] >= N_STARTING + N_BEATS

    daemon.until(enough)
    decodes = daemon.heard.decodes
    first = next(decode["beat"] for decode in decodes if decode["tokens"])
    return [decode for decode in decodes if decode["beat"] >= first + N_STARTING]


def share_missed(decodes: list[dict[str, Any]]) -> float:
    n_beats = decodes[-1]["beat"] - decodes[0]["beat"] + 1
    return (n_beats - sum(not decode["late"] for decode in decodes)) / n_beats


def test_the_cap_keeps_the_beat_and_sheds_nothing_but_tokens(
    serve: DaemonStarter, slow: Path, stream: str, sending: Process
) -> None:
    without = serve(stream, slow, beat={"shed_tokens": False}, realtime=AHEAD)
    missed_without = share_missed(decoded(without))
    assert all(decode["token_cap"] is None for decode in without.heard.decodes)
    assert without.end() == 0

    daemon = serve(stream, slow, realtime=AHEAD)
    decodes = decoded(daemon)
    assert share_missed(decodes) < 0.2 * missed_without
    assert missed_without > 0.5
    for decode in decodes:
        assert decode["token_cap"] is not None
        assert decode["tokens"] <= decode["token_cap"]
    began = daemon.until_event("token_cap")["detail"]
    assert began["before"] is None
    assert began["token_cap"] < 1000
    assert "evenly over units" in began["warning"]
    assert daemon.end() == 0
    assert "token_cap" in daemon.err

    last = daemon.heard.heartbeats[-1]
    fates = last["fates"]
    assert sum(fates.values()) == last["spikes_in"]
    assert fates["overflow"] > 0
    assert fates["unknown_unit"] == fates["invalid"] == 0
