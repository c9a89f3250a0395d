"""`[beat] cut = "arrived"`: a source in order need not be waited for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.system.conftest import HOP_S, DaemonStarter
from tests.system.running import Daemon, clock, keep_on
from tests.system.sources import Living

pytestmark = pytest.mark.alone

SETTLE_S = 0.02
ROUNDING_S = 1e-9
"""Of the difference of two times."""
EVERY_S = 0.004


def feed(daemon: Daemon, source: Living, seconds: float) -> list[dict[str, Any]]:
    """Send a block of spikes every 4 ms, all in the order of their stamps; the decodes then."""
    daemon.listen()
    n_before, sent_s = len(daemon.heard.decodes), [clock.now()]

    def send() -> None:
        now_s = clock.now()
        if now_s - sent_s[0] >= EVERY_S:
            stamps = np.linspace(sent_s[0] + 1e-4, now_s, 8)
            source.send(stamps.tolist(), list(range(8)))
            source.send_due()
            sent_s[0] = clock.now()
        daemon.listen()

    keep_on(seconds, send)
    return daemon.heard.decodes[n_before + 5 :]


def waited_s(decodes: list[dict[str, Any]]) -> np.ndarray:
    return np.array([decode["t_cut"] - decode["t_window"] for decode in decodes])


def test_a_beat_is_cut_when_later_spikes_came_and_at_the_latest_when_settled(
    serve: DaemonStarter, bundle: Path, stream: str, source: Living
) -> None:
    daemon = serve(stream, bundle, beat={"cut": "arrived", "settle_ms": SETTLE_S * 1e3})
    daemon.until_validity("ok", source.send_due)
    decodes = feed(daemon, source, 2.0)
    assert np.median(waited_s(decodes)) < 0.8 * SETTLE_S
    status = daemon.until_settled(source.n_sent - 20, source.send_due)
    assert status["fates"]["late"] < 0.02 * source.n_sent
    n_before = len(daemon.heard.decodes)
    keep_on(20 * HOP_S, daemon.listen)
    silent = [decode for decode in daemon.heard.decodes[n_before:] if not decode["tokens"]]
    assert np.all(waited_s(silent[5:]) >= SETTLE_S - ROUNDING_S)
    assert daemon.end() == 0


def test_by_default_every_beat_waits_until_settled(
    serve: DaemonStarter, bundle: Path, stream: str, source: Living
) -> None:
    daemon = serve(stream, bundle, beat={"settle_ms": SETTLE_S * 1e3})
    daemon.until_validity("ok", source.send_due)
    assert np.all(waited_s(feed(daemon, source, 0.5)) >= SETTLE_S - ROUNDING_S)
