"""One clock: LSL's, the daemon's and this process's are the same."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from streams.clock import MonotonicClock
from streams.lsl.inlets import lsl_now
from tests.system.conftest import UNIT_KEYS, DaemonStarter
from tests.system.running import clock
from tests.system.sources import Living

pytestmark = pytest.mark.alone

LSL_RESOLUTION_S = 1e-6


def test_the_clock_of_lsl_is_the_monotonic_clock() -> None:
    ours = MonotonicClock()
    readings = [read() for _ in range(1000) for read in (ours.now, lsl_now)]
    for before, after in pairwise(readings):
        assert after >= before - LSL_RESOLUTION_S


def test_a_sender_on_this_host_has_no_offset(
    serve: DaemonStarter, bundle: Path, stream: str
) -> None:
    source = Living(stream, UNIT_KEYS)
    daemon = serve(stream, bundle)
    t_before_s = clock.now()
    daemon.until(lambda heard: len(heard.heartbeats) >= 3, source.send_due)
    assert {beat["clock_offset_s"] for beat in daemon.heard.heartbeats} == {0.0}
    decode = daemon.until_validity("ok", source.send_due)
    assert t_before_s < decode["t_newest_spike"] <= source.newest_s + LSL_RESOLUTION_S
    assert decode["t_sent"] <= clock.now()
    source.close()
