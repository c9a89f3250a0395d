"""A beat in steady state leaves nothing behind: no object, and no longer list."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from service.loop.completeness import KEPT_S as SILENCES_KEPT_S
from service.loop.flight import KEPT_S, FlightRecorder, timing_of
from service.loop.token_cap import TokenCap
from streams.wire.schema import encode
from tests.service.beat_rig import HOP_S, HOP_US, SETTLE_S, BeatRig

N_WARM, N_BEATS = 300, 1000


@pytest.fixture
def collection_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def beat(rig: BeatRig, k: int, recorder: FlightRecorder) -> None:
    rig.go_to(k)
    rig.arrive([((k - 1) * HOP_US + 1 + i, i % 4 + (i % 4 > 1)) for i in range(50)])
    if k % 3:
        rig.beat.rehearse(k)
        rig.beat.rehearse_telling(SETTLE_S)
    decode = rig.beat.turn(k, SETTLE_S)
    timing = timing_of(decode, rig.beat, decode.t_cut, decode.t_sent, decode.t_sent)
    encode(decode)
    encode(timing)
    recorder.note(decode, timing, 0)


@pytest.mark.usefixtures("collection_off")
def test_a_thousand_beats_leave_nothing_behind(rig: BeatRig) -> None:
    rig.beat.trace_beat = None
    rig.beat.token_cap = TokenCap(HOP_S)
    recorder = FlightRecorder(HOP_S)
    n_kept = round(max(KEPT_S, SILENCES_KEPT_S) / HOP_S)
    for k in range(1, n_kept + N_WARM):
        beat(rig, k, recorder)
    before = sys.getallocatedblocks()
    for k in range(n_kept + N_WARM, n_kept + N_WARM + N_BEATS):
        beat(rig, k, recorder)
    assert sys.getallocatedblocks() - before < N_BEATS / 20
