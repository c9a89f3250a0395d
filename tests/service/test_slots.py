"""Changes of decoder at a beat's boundary, with real decoders and a clock that the test moves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from export.backends.onnxruntime_cpu import open_cpu
from export.bundle import DecoderBundle
from service.loop.commands import LoopCommand
from service.loop.decoder import Decoder
from service.loop.shaping import Shaper
from service.loop.slots import CATCH_UP_BINS, RANGE_OVER_S, Change, DecoderSlot
from service.loop.validity import ValidityJudge
from tests.export.tiny_graph import write_tiny_bundle
from tests.service.beat_rig import (
    CONTEXT_BEATS,
    HOP_S,
    HOP_US,
    KEEP_ALIVE_S,
    STRANGER,
    UNIT_KEYS,
    BeatRig,
)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> DecoderBundle:
    """Another decoder of the same outputs, which knows the stranger and not `u1`."""
    where: Path = tmp_path_factory.mktemp("bundles") / "other"
    keys = ("stranger", *(key for key in UNIT_KEYS if key != "u1"))
    return write_tiny_bundle(where, keys, HOP_S, HOP_S, with_position=True, name="other", seed=7)


def slot_of(bundle: DecoderBundle, rig: BeatRig) -> DecoderSlot:
    """A newcomer that has run nothing yet."""
    manifest = bundle.manifest
    decoder = Decoder(manifest, open_cpu(bundle), bundle.row_of_key, rig.source_keys)
    decoder.last_k = decoder.k_reset = rig.loop.last_k
    judge = ValidityJudge(manifest.context_s, manifest.stale_after_s, KEEP_ALIVE_S, HOP_S)
    return DecoderSlot(decoder, judge, Shaper(manifest.outputs))


def ask(rig: BeatRig, change: Change, slot: DecoderSlot | None = None) -> LoopCommand:
    return rig.ask(change, slot=slot)


def test_a_newcomer_runs_in_shadow_and_takes_over_at_a_boundary(
    rig: BeatRig, other: DecoderBundle
) -> None:
    k = rig.warm()
    joined = ask(rig, "join", slot_of(other, rig))
    assert not joined.done.is_set()
    for i in range(1, CONTEXT_BEATS + 1):
        decode = rig.fed_turn(k + i)
        shadow = rig.loop.run_shadow()
        assert (decode.decoder_id, decode.validity) == ("tiny", "ok")
        assert shadow is not None
        assert (shadow.decoder_id, shadow.seq, shadow.beat) == ("other", i, decode.beat)
        assert shadow.validity == ("ok" if i == CONTEXT_BEATS else "warmup")
        assert shadow.value_raw != decode.value_raw
    assert joined.done.is_set()
    assert joined.error == ""
    promoted = ask(rig, "promote")
    decode = rig.fed_turn(k + CONTEXT_BEATS + 1)
    assert promoted.done.is_set()
    assert (decode.decoder_id, decode.validity) == ("other", "ok")
    assert decode.seq == k + CONTEXT_BEATS + 1
    assert rig.loop.run_shadow() is None


def test_a_rollback_needs_no_warm_up(rig: BeatRig, other: DecoderBundle) -> None:
    k = rig.warm()
    alone = BeatRig(rig.bundle)
    alone.warm()
    ask(rig, "join", slot_of(other, rig))
    ask(rig, "promote")
    for i in range(1, 4):
        assert rig.fed_turn(k + i).decoder_id == "other"
        rig.loop.run_shadow()
        alone.fed_turn(k + i)
    ask(rig, "rollback")
    decode = rig.fed_turn(k + 4)
    assert (decode.decoder_id, decode.validity) == ("tiny", "ok")
    assert decode.value_raw == alone.fed_turn(k + 4).value_raw


def _other_tables(rig: BeatRig, name: str, seed: int) -> DecoderSlot:
    """The rig's decoder with other tables, as the one that deploys hands it over: run up to now."""
    rng = np.random.default_rng(seed)
    manifest = rig.bundle.manifest.model_copy(update={"name": name, "id": name})
    backend = open_cpu(rig.bundle)
    backend.set_tables(
        {n: rng.normal(0, 0.3, t.shape).astype(np.float32) for n, t in rig.bundle.tables.items()}
    )
    decoder = Decoder(manifest, backend, rig.bundle.row_of_key, rig.source_keys)
    decoder.last_k = rig.loop.last_k
    decoder.k_reset = rig.loop.last_k - CONTEXT_BEATS
    judge = ValidityJudge(manifest.context_s, manifest.stale_after_s, KEEP_ALIVE_S, HOP_S)
    return DecoderSlot(decoder, judge, Shaper(manifest.outputs), tables_only=True)


def test_tables_follow_one_another_and_the_decoder_before_them_stands_by(rig: BeatRig) -> None:
    k = rig.warm()
    alone = BeatRig(rig.bundle)
    alone.warm()
    for i, name in enumerate(("first", "second", "third"), start=1):
        swapped = ask(rig, "tables_swapped", _other_tables(rig, name, i))
        decode = rig.fed_turn(k + i)
        rig.loop.run_shadow()
        assert swapped.done.is_set()
        assert (decode.decoder_id, decode.validity, decode.seq) == (name, "ok", k + i)
        assert decode.value_raw != alone.fed_turn(k + i).value_raw
        standby = rig.loop.slots.standby
        assert standby is not None
        assert standby.decoder.manifest.name == "tiny"
    assert [(event, told["decoder_id"]) for event, told in rig.events] == [
        ("tables_swapped", name) for name in ("first", "second", "third")
    ]
    ask(rig, "rollback")
    decode = rig.fed_turn(k + 4)
    assert (decode.decoder_id, decode.validity) == ("tiny", "ok")
    assert decode.value_raw == alone.fed_turn(k + 4).value_raw


def test_tables_that_run_a_bin_behind_run_it_before_they_decode(rig: BeatRig) -> None:
    k = rig.warm()
    slot = _other_tables(rig, "first", 1)
    rig.fed_turn(k + 1)
    ask(rig, "tables_swapped", slot)
    decode = rig.fed_turn(k + 2)
    ahead = BeatRig(rig.bundle)
    ahead.warm()
    ask(ahead, "tables_swapped", _other_tables(ahead, "first", 1))
    assert ahead.fed_turn(k + 1).decoder_id == "first"
    assert (decode.decoder_id, decode.value_raw) == ("first", ahead.fed_turn(k + 2).value_raw)


def test_tables_of_another_network_are_refused(rig: BeatRig, other: DecoderBundle) -> None:
    k = rig.warm()
    swapped = ask(rig, "tables_swapped", slot_of(other, rig))
    assert rig.fed_turn(k + 1).decoder_id == "tiny"
    assert "another network" in swapped.error


@pytest.mark.parametrize(
    ("change", "told"), [("promote", "no decoder is in shadow"), ("rollback", "stands by")]
)
def test_what_cannot_be_done_is_refused(rig: BeatRig, change: Change, told: str) -> None:
    request = ask(rig, change)
    rig.turn(1)
    assert request.done.is_set()
    assert told in request.error


def test_a_shadow_that_is_behind_catches_up_before_it_takes_over(
    rig: BeatRig, other: DecoderBundle
) -> None:
    k = rig.warm()
    slot = slot_of(other, rig)
    n_behind = CATCH_UP_BINS + 3
    for i in range(1, n_behind):
        rig.fed_turn(k + i)
    ask(rig, "join", slot)
    promoted = ask(rig, "promote")
    assert rig.fed_turn(k + n_behind).decoder_id == "tiny"
    assert rig.loop.run_shadow() is None
    assert rig.fed_turn(k + n_behind + 1).decoder_id == "tiny"
    assert not promoted.done.is_set()
    assert rig.loop.run_shadow() is not None
    assert rig.fed_turn(k + n_behind + 2).decoder_id == "other"
    assert promoted.done.is_set()


def test_a_dismissed_shadow_is_gone(rig: BeatRig, other: DecoderBundle) -> None:
    k = rig.warm()
    ask(rig, "join", slot_of(other, rig))
    rig.fed_turn(k + 1)
    ask(rig, "dismiss")
    assert rig.fed_turn(k + 2).decoder_id == "tiny"
    assert rig.loop.run_shadow() is None


def test_fates_are_told_by_the_decoder_in_service(rig: BeatRig, other: DecoderBundle) -> None:
    k = rig.warm()
    ask(rig, "join", slot_of(other, rig))
    rig.fed_turn(k + 1)
    rig.loop.run_shadow()
    rig.go_to(k + 2)
    rig.arrive([((k + 1) * HOP_US + 5, STRANGER), ((k + 1) * HOP_US + 6, 3)])
    decode, shadow = rig.turn(k + 2), rig.loop.run_shadow()
    assert shadow is not None
    assert (decode.tokens, shadow.tokens) == (1, 1)
    assert rig.loop.ring.fates.unknown_unit == 1
    ask(rig, "promote")
    rig.go_to(k + 3)
    rig.arrive([((k + 2) * HOP_US + 5, STRANGER), ((k + 2) * HOP_US + 6, 3)])
    assert rig.turn(k + 3).tokens == 1
    assert rig.loop.ring.fates.unknown_unit == 2
    assert rig.loop.ring.n_pending == 0


def test_keys_that_the_source_shows_just_before_a_change_do_not_stop_it(
    rig: BeatRig, other: DecoderBundle
) -> None:
    k = rig.warm()
    slot = slot_of(other, rig)
    rig.source_keys.append("u99")
    joined = ask(rig, "join", slot)
    rig.turn(k + 1)
    assert joined.done.is_set()
    rig.go_to(k + 2)
    rig.arrive([((k + 2) * HOP_US, 5), ((k + 2) * HOP_US, 0)])
    assert rig.turn(k + 2).tokens == 1
    assert rig.loop.ring.fates.unknown_unit == 1


@pytest.mark.parametrize("both", [False, True])
def test_outputs_that_leave_their_bounds_roll_back_once(
    rig: BeatRig, bundle: DecoderBundle, other: DecoderBundle, *, both: bool
) -> None:
    """Two that do, for wrong input, do not take turns: a person says which one serves."""
    k = rig.warm()
    slot = slot_of(other, rig)
    wild = [(slot, other), (rig.loop.slots.active, bundle)]
    for one, of in wild if both else wild[:1]:
        tables = {name: 1e4 * table for name, table in of.tables.items()}
        one.decoder.backend.set_tables(tables)
    ask(rig, "join", slot)
    ask(rig, "promote")
    ids = []
    for i in range(1, 200):
        ids.append(rig.fed_turn(k + i).decoder_id)
        rig.loop.run_shadow()
    changes = [event for event, _ in rig.events if event != "out_of_range"]
    assert changes == ["join", "promote", "rolled_back_out_of_range"]
    assert ids == ["other"] * 51 + ["tiny"] * 148
    ask(rig, "rollback")
    assert rig.fed_turn(k + 200).decoder_id == "other"


def test_a_value_beyond_its_bounds_is_told_once_in_ten_seconds(
    rig: BeatRig, bundle: DecoderBundle
) -> None:
    k = rig.warm()
    within = {name: 1e-3 * table for name, table in bundle.tables.items()}
    wild = {name: 1e4 * table for name, table in bundle.tables.items()}
    backend = rig.loop.decoder.backend
    rig.loop.slots._n_within = rig.loop.slots._n_told_after  # the test's own begin here
    rig.events.clear()

    def turns(tables: Mapping[str, np.ndarray], n: int) -> None:
        nonlocal k
        backend.set_tables(tables)
        for _ in range(n):
            backend.reset()  # what it remembers grows by itself
            k += 1
            rig.fed_turn(k)

    turns(within, 5)
    assert rig.events == []
    turns(wild, 1)
    event, detail = rig.events[0]
    low, high = bundle.manifest.outputs[0].low[0], bundle.manifest.outputs[0].high[0]
    assert event == "out_of_range"
    assert (detail["decoder_id"], detail["output"]) == ("tiny", "velocity")
    assert any(not low <= value <= high for value in detail["value"])
    turns(wild, 20)
    turns(within, round(RANGE_OVER_S / HOP_S) - 1)
    turns(wild, 1)
    assert len(rig.events) == 1
    turns(within, round(RANGE_OVER_S / HOP_S))
    turns(wild, 1)
    assert [event for event, _ in rig.events] == ["out_of_range"] * 2
