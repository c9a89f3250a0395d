"""Whatever a rig does: the decodes that the loop made of it are made again from its journal.

Bit for bit, from the beginning and from a checkpoint in the middle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings

from export.backends.onnxruntime_cpu import open_cpu
from service.redecode.comparison import same
from service.redecode.reading import Begins, RecordedRun
from service.redecode.replay import Opened, Replay
from service.telemetry.recording import records
from service.telemetry.recording.records import Record, decode_record, encode_record
from service.telemetry.recording.run_journal import RunJournal, record_of
from streams.wire.schema import Decode
from tests.promise.rigs import Rig, rigs, send
from tests.promise.test_promise import AS_MANY, EXAMPLES, decoder
from tests.promise.world import T_BEGIN_S, SimulatedDaemon, World

CHECKPOINT_EVERY = 40
"""Beats."""


@dataclass(slots=True)
class HeldRun(RecordedRun):
    """A run in memory.

    Attributes:
        held: its records.
    """

    held: list[Record] = field(default_factory=list)

    def records(self) -> Iterator[Record | Begins]:
        """Yield them."""
        yield Begins("")
        yield from self.held


class NotingDaemon(SimulatedDaemon):
    """Notes what it does, and makes a checkpoint every 40 beats."""

    def __init__(self, world: World, rig: Rig) -> None:
        self.journal = RunJournal()
        super().__init__(world, decoder(rig.hop_s), rig.hop_s, journal=self.journal)
        self.journal.checkpoint(self.loop)

    def _publish(self, decode: Decode) -> float:
        self.journal.said(self.loop.decoder.number, decode, was_shaped=not decode.reason)
        self.journal.wants_checkpoint = decode.seq % CHECKPOINT_EVERY == 0
        return super()._publish(decode)


def recorded(rig: Rig) -> HeldRun:
    """The journal of a daemon that has heard a rig to its end."""
    streams, _ = send(rig)
    daemon = NotingDaemon(World(streams), rig)
    number, loop, held = daemon.loop.decoder.number, daemon.loop, list[Record]()
    loop.begin(daemon.source.t_open_s)
    while daemon.world.t_s < T_BEGIN_S + rig.seconds:
        decode, _ = loop.run_beat(daemon._publish)
        loop.review_settling(decode)
        daemon.journal.beat_over(loop, 0.0)
        held += [decode_record(encode_record(record_of(note))) for note in daemon.journal.fetch()]
    facts = {
        "t0_s": daemon.schedule.zero_s,
        "hop_us": daemon.schedule.hop_us,
        "bin_us": daemon.schedule.hop_us,
        "ring_capacity": loop.ring.capacity,
    }
    header = records.Header(facts, list(daemon.source.keys), {number: {"name": "tiny"}})
    return HeldRun(Path("memory"), facts, held=[header, *held])


def assert_made_again(rig: Rig, run: HeldRun) -> int:
    """Every decode is what was said; how many there were."""
    bundle = decoder(rig.hop_s)
    replay = Replay(run, lambda told: Opened(bundle, open_cpu(bundle)))
    n = 0
    for remade in replay:
        assert not remade.why_not
        assert remade.same_tokens
        assert same(remade.value_raw, remade.decode.value_raw), remade.decode
        assert remade.value is not None
        assert same(remade.value, remade.decode.value), remade.decode
        n += 1
    assert replay.checks.n_other_checkpoints == replay.checks.n_other_tokens == 0
    return n


@settings(AS_MANY, max_examples=max(1, EXAMPLES // 10))
@given(rig=rigs(seconds=6.0, hop_s=0.02))
def test_the_decodes_of_any_rig_are_made_again(rig: Rig) -> None:
    run = recorded(rig)
    n_all = assert_made_again(rig, run)
    points = [i for i, one in enumerate(run.held) if isinstance(one, records.Checkpoint)]
    if len(points) > 1:  # as if the part before it were lost
        middle = points[len(points) // 2]
        run.held[:] = [run.held[0], *run.held[middle:]]
        assert 0 < assert_made_again(rig, run) < n_all
