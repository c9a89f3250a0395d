"""Damage in memory, decoder by decoder: what the beat says, what is told, what takes over."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nacl.signing import SigningKey

from export.backends.opening import OpenedBackend, open_backend
from export.bundle import DecoderBundle
from export.signing.keys import public_of
from export.signing.signature import sign_bundle
from service.deploy.failover import Failover
from service.deploy.memory_watch import RETRY_S, MemoryWatch
from service.loop.decoder import Decoder
from service.loop.journal import NO_JOURNAL
from service.loop.shaping import Shaper
from service.loop.slots import DecoderSlot, make_slot
from service.loop.validity import ValidityJudge
from tests.export.tiny_graph import write_tiny_bundle
from tests.service.beat_rig import KEEP_ALIVE_S, UNIT_KEYS, BeatRig

CPU = "onnxruntime-cpu"


class Watched:
    """A rig whose decoder is looked after, and what is told of it."""

    def __init__(self, bundle: DecoderBundle, *signers: str) -> None:
        self.rig, self.told = BeatRig(bundle), list[tuple[str, dict[str, Any]]]()
        self.opened = open_backend(bundle, CPU)
        self.rig.loop.slots.active = self.slot(bundle, self.opened)
        self.rig.loop.slots.follow_source()
        loop, report = self.rig.loop, lambda *event: self.told.append(event)
        self.failover = Failover(loop, self.slot, report, 60.0)
        self.failover.prepare(bundle, self.opened)
        self.watch = MemoryWatch(loop, self.failover, self.slot, report, 60.0, signers)

    def slot(self, bundle: DecoderBundle, opened: OpenedBackend) -> DecoderSlot:
        slot = make_slot(
            bundle, opened, self.rig.source_keys, Shaper(bundle.manifest.outputs),
            token_cap=None, keep_alive_every_s=KEEP_ALIVE_S, kernels=self.rig.loop.decoder.kernels,
            journal=NO_JOURNAL,
        )  # fmt: skip
        slot.decoder.skip_to(self.rig.loop.last_k)
        return slot

    def damage(self, opened: OpenedBackend, array: str = "table") -> None:
        held = opened.backend.fixed_arrays()[array]  # type: ignore[attr-defined]
        held.reshape(-1).view(np.uint8)[5] ^= 8

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.told]


@pytest.fixture
def watched(bundle: DecoderBundle) -> Watched:
    return Watched(bundle)


def test_the_decoder_in_service_is_read_anew(watched: Watched) -> None:
    rig = watched.rig
    k = rig.warm()
    watched.watch.look()
    assert rig.fed_turn(k + 1).validity == "ok"
    assert watched.told == []
    damaged = rig.loop.slots.active
    watched.damage(watched.opened)
    looking = threading.Thread(target=watched.watch.look)
    looking.start()
    k += 1
    reasons = []
    while looking.is_alive():
        k += 1
        decode = rig.fed_turn(k)
        reasons.append(decode.reason)
    looking.join()
    assert watched.events == ["memory_damaged"]
    detail = watched.told[0][1]
    assert (detail["what"], detail["in_service"]) == ("table", True)
    assert [event for event, _ in rig.events if event == "reloaded"]
    assert rig.loop.slots.active is not damaged
    assert "memory_damaged" in reasons
    assert reasons[-1] != "memory_damaged"
    watched.watch.look()
    assert watched.events == ["memory_damaged"]


def test_rows_of_the_sources_units_are_looked_at_and_may_grow(watched: Watched) -> None:
    rig = watched.rig
    rig.warm()
    slot = rig.loop.slots.active
    rig.source_keys.append("u99")
    rig.loop.slots.follow_source()
    watched.watch.check(slot)
    assert slot.damage == ""
    slot.decoder.row_of[1] ^= 1
    watched.watch.check(slot)
    assert slot.damage == "row_of"


def test_one_that_stands_by_is_told_and_a_fault_once_it_is_in_service(
    watched: Watched, tmp_path: Path
) -> None:
    rig = watched.rig
    k = rig.warm()
    other = write_tiny_bundle(tmp_path / "other", UNIT_KEYS, name="other", seed=4)
    opened = open_backend(other, CPU)
    rig.ask("join", slot=watched.slot(other, opened))
    rig.fed_turn(k + 1)
    watched.damage(opened)
    watched.watch.look()
    assert watched.events == ["memory_damaged"]
    assert watched.told[0][1]["in_service"] is False
    assert rig.fed_turn(k + 2).validity == "ok"
    rig.loop.run_shadow()
    rig.ask("promote")
    decode = rig.fed_turn(k + 3)
    assert (decode.decoder_id, decode.reason) == ("other", "memory_damaged")


def test_one_that_cannot_be_read_anew_is_given_to_the_failover(watched: Watched) -> None:
    rig = watched.rig
    rig.warm()
    tables = watched.rig.bundle.path / "tables.safetensors"
    held = tables.read_bytes()
    tables.write_bytes(held[:-1])
    watched.damage(watched.opened)
    watched.watch.look()
    tables.write_bytes(held)
    assert rig.loop.backend_failed.is_set()
    assert "not reloaded" in str(rig.loop.decoder.failure)
    watched.watch.look()  # not at once again
    assert watched.events == ["memory_damaged"]
    watched.watch._t_tried_s -= RETRY_S
    k = rig.loop.last_k
    looking = threading.Thread(target=watched.watch.look)
    looking.start()
    while looking.is_alive():
        k += 1
        rig.fed_turn(k)
    assert rig.loop.slots.active.damage == ""


def test_a_check_that_fails_is_a_flag(watched: Watched) -> None:
    def broken() -> dict[str, np.ndarray]:
        raise ValueError("not this one")

    memory = watched.rig.loop.slots.active.memory
    assert memory is not None
    memory._sources.append(broken)
    watched.watch.start()
    deadline = threading.Event()
    while not watched.watch.failure:
        deadline.wait(0.01)
    assert watched.events == ["memory_unchecked"]
    assert "ValueError: not this one" in watched.watch.failure


def test_status_tells_how_long_damage_may_hide(watched: Watched) -> None:
    told = watched.watch.report()
    assert told["probe"] is True
    assert told["bytes"] > 0
    assert 0 < told["within_s"] < 60.0


def test_a_decoder_without_a_check_is_left_alone(bundle: DecoderBundle) -> None:
    rig = BeatRig(bundle)
    decoder = Decoder(bundle.manifest, rig.backend, bundle.row_of_key, rig.source_keys)
    slot = DecoderSlot(decoder, ValidityJudge(0.5, 0.1, 0.05, 0.02), Shaper(()))
    MemoryWatch(rig.loop, None, None, print, 1.0).check(slot)  # type: ignore[arg-type]
    assert slot.damage == ""


def test_what_is_read_anew_must_be_signed_where_that_is_demanded(tmp_path: Path) -> None:
    bundle, key = write_tiny_bundle(tmp_path / "tiny", UNIT_KEYS), SigningKey.generate()
    sign_bundle(bundle.path, bundle.manifest.files, key)
    watched = Watched(bundle, public_of(key))
    (bundle.path / "engines").mkdir()
    (bundle.path / "engines" / "added.engine").write_bytes(b"later than the signature")
    damaged = watched.rig.loop.slots.active
    watched.damage(watched.opened)
    watched.watch.look()
    assert watched.rig.loop.slots.active is damaged
    assert "added.engine: not signed" in str(damaged.decoder.failure)
