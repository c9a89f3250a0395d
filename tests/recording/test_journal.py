"""The journal in the daemon: bounded while nobody fetches, and begun anew by a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest

from export.bundle import DecoderBundle
from service.loop.shaping import Shaping
from service.telemetry.recording import records
from service.telemetry.recording.records import decode_record, encode_record
from service.telemetry.recording.run_journal import NOTES_AT_MOST, RunJournal, record_of
from streams.messages import SpikeBatch
from streams.spikes.ring import SpikeRing
from tests.export.tiny_graph import write_tiny_bundle
from tests.service.beat_rig import HOP_US, UNIT_KEYS, BeatRig


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> DecoderBundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("journal") / "tiny", UNIT_KEYS)


def packed(journal: RunJournal) -> list[records.Record]:
    """The records of what waits, packed and unpacked."""
    return [decode_record(encode_record(record_of(note))) for note in journal.fetch()]


def test_nothing_is_noted_before_the_first_checkpoint(bundle: DecoderBundle) -> None:
    journal = RunJournal()
    rig = BeatRig(bundle, journal=journal)
    rig.warm(5)
    assert packed(journal) == []
    journal.checkpoint(rig.loop)
    (point,) = packed(journal)
    assert isinstance(point, records.Checkpoint)
    assert (point.k, point.n_lost) == (5, 0)


def test_beats_are_noted_in_the_order_in_which_they_were_made(bundle: DecoderBundle) -> None:
    journal = RunJournal()
    rig = BeatRig(bundle, journal=journal)
    journal.checkpoint(rig.loop)
    rig.fed_turn(1)
    rig.loop.predecode(2)  # of no consequence: nothing is noted
    rig.fed_turn(2)
    rig.ask("pause")
    rig.fed_turn(3)
    found = [type(one).__name__ for one in packed(journal)]
    assert found == [
        "Checkpoint", "Arrived", "Cut", "Ran", "Arrived", "Cut", "Ran",
        "Arrived", "Commanded", "Cut", "Ran",
    ]  # fmt: skip


def test_a_bin_that_was_decoded_ahead_is_noted_once_it_is_cut(bundle: DecoderBundle) -> None:
    journal = RunJournal()
    rig = BeatRig(bundle, journal=journal)
    journal.checkpoint(rig.loop)
    rig.go_to(1)
    rig.arrive([(1000, 0), (HOP_US, 1)])
    rig.loop.predecode(1)
    assert [type(one).__name__ for one in packed(journal)] == ["Checkpoint", "Arrived"]
    rig.turn(1)
    assert rig.loop.newest.was_predecoded
    cut, ran = packed(journal)
    assert cut == records.Cut(1, HOP_US, "settled")
    assert isinstance(ran, records.Ran)
    assert (ran.k, ran.n_tokens) == (1, 2)


def test_a_beat_s_end_takes_the_checkpoint_that_is_asked_for(bundle: DecoderBundle) -> None:
    journal = RunJournal()
    rig = BeatRig(bundle, journal=journal)
    journal.checkpoint(rig.loop)
    rig.ask("shape", shaping=Shaping(gain=2.0, smoothing=0.5, bounds={"velocity": (-1, 1)}))
    rig.warm()
    journal.fetch()
    journal.beat_over(rig.loop, 0.0)
    assert packed(journal) == []
    journal.wants_checkpoint = True
    rig.arrive([(rig.loop.last_k * HOP_US + 5, 0)])
    journal.fetch()
    journal.beat_over(rig.loop, 0.0)
    (point,) = packed(journal)
    assert isinstance(point, records.Checkpoint)
    assert np.frombuffer(point.t_us, np.int64).tolist() == [rig.loop.last_k * HOP_US + 5]
    assert point.shaping["gain"] == 2.0
    assert point.smooth == rig.loop.slots.active.shaper.smooth
    (memory,) = point.decoders
    assert (memory.number, memory.last_k) == (rig.decoder.number, rig.loop.last_k)
    assert memory.memory
    assert not journal.wants_checkpoint


def test_notes_that_nobody_fetches_are_bounded_and_counted(bundle: DecoderBundle) -> None:
    journal = RunJournal()
    rig = BeatRig(bundle, journal=journal)
    journal.checkpoint(rig.loop)
    for i in range(NOTES_AT_MOST + 10):
        journal.closed(i)
    assert not journal.is_open
    held = journal.fetch()
    assert len(held) == NOTES_AT_MOST
    assert held[-1] == records.Closed(NOTES_AT_MOST - 2)  # in order, without a hole before its end
    assert journal.n_lost == 11
    journal.checkpoint(rig.loop)
    (point,) = packed(journal)
    assert isinstance(point, records.Checkpoint)
    assert point.n_lost == 11
    assert journal.is_open


def test_a_ring_that_goes_on_from_a_checkpoint_cuts_the_same_bins() -> None:
    rng = np.random.default_rng(5)
    known = np.ones(6, np.bool_)

    def batch(k: int) -> SpikeBatch:
        t_us = (k * 1000 + rng.integers(-2500, 900, 40)).astype(np.int64)
        unit = rng.integers(0, 6, 40).astype(np.int32)
        return SpikeBatch(t_us, unit, np.ones(40, np.int32))

    ours, again = SpikeRing(500, 3000, 1000, 1000), SpikeRing(500, 3000, 1000, 1000)
    for k in range(1, 60):
        one = batch(k)
        ours.admit(one, known, 10**9)
        if k == 30:
            again.resume(ours.held())
        elif k > 30:
            again.admit(one, known, 10**9)
        if k >= 30:
            (found, _), (wanted, _) = again.cut(k * 1000 - 500), ours.cut(k * 1000 - 500)
            assert found.t_us.tolist() == wanted.t_us.tolist()
            assert found.unit.tolist() == wanted.unit.tolist()
            again.close(k * 1000 - 500)
        ours.close(k * 1000 - 500)
