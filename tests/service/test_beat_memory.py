"""A beat in steady state leaves nothing behind: no object, and no longer list."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from export.bundle import DecoderBundle
from service.loop.intake.completeness import KEPT_S as SILENCES_KEPT_S
from service.loop.intake.schedule import Schedule
from service.loop.token_cap import TokenCap
from service.telemetry.flight_recorder import KEPT_S
from service.telemetry.recording.records import encode_record
from service.telemetry.recording.run_journal import RunJournal, record_of
from service.telemetry.run_telemetry import RunTelemetry
from streams.wire.schema import encode
from tests.service.beat_rig import HOP_S, HOP_US, SOURCE_KEYS, T0_S, BeatRig

N_WARM, N_BEATS = 300, 1000


@pytest.fixture
def collection_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def beat(rig: BeatRig, k: int, telemetry: RunTelemetry, journal: Fetching) -> None:
    rig.go_to(k)
    rig.arrive([((k - 1) * HOP_US + 1 + i, i % 4 + (i % 4 > 1)) for i in range(50)])
    if k % 3:
        rig.loop.predecode(k)
        rig.loop.warm_up_publish()
    decode = rig.loop.step(k)
    journal.said(rig.decoder.number, decode, was_shaped=not decode.reason)
    journal.pack(rig)
    encode(decode)
    telemetry.published(decode)
    encode(
        telemetry.beat_over(decode, rig.loop, t_out=decode.t_sent, t_end=decode.t_sent, queued=0)
    )


class Fetching(RunJournal):
    """A journal whose notes are packed at the end of each beat, as a thread does it."""

    def pack(self, rig: BeatRig) -> None:
        self.beat_over(rig.loop, rig.clock.now())
        for note in self.fetch():
            encode_record(record_of(note))


@pytest.mark.usefixtures("collection_off")
@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_thousand_beats_leave_nothing_behind(bundle: DecoderBundle, is_recorded: bool) -> None:
    telemetry = RunTelemetry(Schedule(T0_S, HOP_US), SOURCE_KEYS)
    journal = Fetching()
    journal.wants_checkpoint = is_recorded
    rig = BeatRig(bundle, shed=TokenCap(HOP_S), observer=telemetry, journal=journal)
    n_kept = round(max(KEPT_S, SILENCES_KEPT_S) / HOP_S)
    for k in range(1, n_kept + N_WARM):
        beat(rig, k, telemetry, journal)
    before = sys.getallocatedblocks()
    for k in range(n_kept + N_WARM, n_kept + N_WARM + N_BEATS):
        beat(rig, k, telemetry, journal)
    assert sys.getallocatedblocks() - before < N_BEATS / 20
