"""The beat and validity: what it warns of, and the safe value that it publishes then."""

from __future__ import annotations

import numpy as np
import pytest

from export.bundle import DecoderBundle
from service.loop.decode_writer import as_of_now
from tests.service.beat_rig import (
    CONTEXT_BEATS,
    HOP_S,
    HOP_US,
    SETTLE_S,
    STRANGER,
    T0_S,
    BeatRig,
    estimate,
)

HEARD_BEATS = 80


def test_it_warms_up_for_the_context_of_the_bundle(rig: BeatRig) -> None:
    reasons = [rig.fed_turn(k).reason for k in range(1, CONTEXT_BEATS + 2)]
    assert reasons == ["context_short"] * (CONTEXT_BEATS - 1) + ["", ""]


def test_no_spike_at_all_is_stale(rig: BeatRig) -> None:
    decode = rig.turn(1)
    assert (decode.validity, decode.reason) == ("stale", "no_spikes")
    assert decode.t_newest_spike is None


def test_a_silence_of_a_source_that_is_heard_often_is_incomplete_then_stale(rig: BeatRig) -> None:
    k = rig.warm(HEARD_BEATS)
    reasons = [rig.turn(k + i).reason for i in range(1, 7)]
    assert reasons == ["incomplete"] * 4 + ["no_spikes"] * 2
    assert rig.fed_turn(k + 7).reason == ""


def test_a_silence_of_a_source_that_is_heard_seldom_tells_nothing(rig: BeatRig) -> None:
    k = 0
    for _ in range(HEARD_BEATS // 8):
        k += 8  # 0.16 s apart
        rig.clock.sleep_until(T0_S + k * HOP_S)
        rig.arrive([(k * HOP_US, 0)])
        rig.turn(k)
    reasons = [rig.turn(k + i).reason for i in range(1, 7)]
    assert reasons == ["", "", "", "", "no_spikes", "no_spikes"]


def test_a_burst_of_old_stamps_does_not_end_it(rig: BeatRig) -> None:
    k = rig.warm()
    rig.go_to(k + 20)
    rig.arrive([(t_us, 0) for t_us in range(k * HOP_US + 1, (k + 14) * HOP_US, 500)])
    decode = rig.turn(k + 20)
    assert (decode.validity, decode.reason) == ("stale", "no_spikes")
    assert decode.value["velocity"] == [0.0, 0.0]


def test_a_stamp_in_the_future_does_not_end_it(rig: BeatRig) -> None:
    k = rig.warm()
    rig.go_to(k + 20)
    rig.arrive([((k + 30) * HOP_US, 0)], keep_alive_us=(k + 30) * HOP_US)
    assert rig.turn(k + 20).validity == "stale"
    assert rig.loop.ring.fates.future == 1


def test_a_source_that_sends_keep_alives_may_be_silent(rig: BeatRig) -> None:
    k = rig.warm()
    for i in range(1, 21):
        rig.go_to(k + i)
        rig.arrive([], keep_alive_us=(k + i) * HOP_US)
        assert rig.turn(k + i).reason == ""
    reasons = [rig.turn(k + 20 + i).reason for i in range(1, 10)]
    assert reasons == ["incomplete"] * 7 + ["keep_alives_missed"] * 2


def test_old_keep_alives_do_not_end_a_silence(rig: BeatRig) -> None:
    k = rig.warm()
    rig.arrive([], keep_alive_us=k * HOP_US)
    rig.go_to(k + 20)
    rig.arrive([], keep_alive_us=(k + 5) * HOP_US)
    assert rig.turn(k + 20).reason == "keep_alives_missed"


def test_spikes_of_unknown_units_keep_no_source_alive(rig: BeatRig) -> None:
    k = rig.warm()
    rig.go_to(k + 20)
    rig.arrive([((k + 20) * HOP_US, STRANGER)])
    assert rig.turn(k + 20).reason == "no_spikes"


@pytest.mark.parametrize(("n_unknown", "reason"), [(25, ""), (26, "unknown_units")])
def test_over_a_fifth_of_unknown_units_is_a_fault(
    rig: BeatRig, n_unknown: int, reason: str
) -> None:
    k = rig.warm()
    rig.go_to(k + 1)
    # With the 48 spikes since the first beat, 100 of known units came within a second.
    rig.arrive([(k * HOP_US + 100 * i, 0) for i in range(1, 52)] + [((k + 1) * HOP_US, 0)])
    rig.arrive([(k * HOP_US + 100 * i, STRANGER) for i in range(n_unknown)])
    decode = rig.turn(k + 1)
    assert decode.reason == reason
    assert decode.validity == ("fault" if reason else "ok")


def test_paused_publishes_the_safe_value_and_keeps_the_memory(bundle: DecoderBundle) -> None:
    paused, other = BeatRig(bundle), BeatRig(bundle)
    for rig in (paused, other):
        rig.warm()
    paused.ask("pause")
    decode = paused.fed_turn(CONTEXT_BEATS + 1)
    assert (decode.validity, decode.reason) == ("paused", "paused")
    assert decode.value["velocity"] == [0.0, 0.0]
    assert estimate(decode) == estimate(other.fed_turn(CONTEXT_BEATS + 1))
    paused.ask("resume")
    resumed = paused.fed_turn(CONTEXT_BEATS + 2)
    assert resumed == other.fed_turn(CONTEXT_BEATS + 2)
    assert resumed.validity == "ok"


def test_a_jump_of_the_senders_clock_is_a_fault_and_the_memory_begins_after_it(
    bundle: DecoderBundle,
) -> None:
    faults = [""]
    rig = BeatRig(bundle, source_fault=lambda: faults[0])
    k = rig.warm()
    faults[0] = "clock_jump"
    assert [rig.fed_turn(k + i).reason for i in (1, 2)] == ["clock_jump"] * 2
    faults[0] = ""
    reasons = [rig.fed_turn(k + 3 + i).reason for i in range(CONTEXT_BEATS + 1)]
    assert reasons == ["context_short"] * CONTEXT_BEATS + [""]
    assert rig.loop.counts.resets == 1


def test_a_network_that_says_nan_is_a_fault_and_begins_anew(
    rig: BeatRig, bundle: DecoderBundle
) -> None:
    k = rig.warm()
    broken = {name: np.full_like(table, np.nan) for name, table in bundle.tables.items()}
    rig.backend.set_tables(broken)
    decode = rig.fed_turn(k + 1)
    assert (decode.validity, decode.reason) == ("fault", "non_finite")
    assert decode.value["velocity"] == [0.0, 0.0]
    assert decode.value_raw == {"velocity": [None, None], "position": [None, None]}
    rig.backend.set_tables(bundle.tables)
    decode = rig.fed_turn(k + 2)
    assert (decode.reason, rig.loop.counts.resets) == ("context_short", 1)
    fresh = BeatRig(bundle)
    fresh.loop.ring.close((k + 1) * HOP_US)
    fresh.loop.last_k = k + 1
    assert estimate(fresh.fed_turn(k + 2)) == estimate(decode)


def misplace_rows(rig: BeatRig) -> np.ndarray:
    """Point units at rows that the table does not have; returns the right rows."""
    right = rig.decoder.tokenizer.row_of
    rig.decoder.tokenizer.row_of = np.where(right < 0, right, 1000).astype(np.int32)
    return right


def test_a_backend_that_fails_is_a_fault_and_begins_anew(rig: BeatRig) -> None:
    k = rig.warm()
    right = misplace_rows(rig)
    decode = rig.fed_turn(k + 1)
    assert (decode.validity, decode.reason) == ("fault", "backend_error")
    assert decode.value["velocity"] == [0.0, 0.0]
    assert decode.value_raw == {"velocity": None, "position": None}
    rig.decoder.tokenizer.row_of = right
    assert rig.fed_turn(k + 2).reason == "context_short"


def test_a_failure_in_a_skipped_beat_does_not_pass_unseen(
    rig: BeatRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    k = rig.warm()
    right = misplace_rows(rig)
    monkeypatch.setattr(
        rig.kept, "failed", lambda number, k, why: setattr(rig.decoder.tokenizer, "row_of", right)
    )
    rig.go_to(k + 3)
    rig.arrive([((k + 1) * HOP_US, 0), ((k + 3) * HOP_US, 0)])
    decode = rig.turn(k + 3)
    assert decode.reason == "context_short"
    assert rig.loop.counts.resets == 1


def test_a_position_is_held_for_a_fifth_of_a_second_and_a_velocity_never(rig: BeatRig) -> None:
    k = rig.warm()
    held = rig.fed_turn(k + 1).value["position"]
    rig.ask("pause")
    values = [rig.fed_turn(k + 1 + i).value for i in range(1, 15)]
    assert held is not None
    assert [value["velocity"] for value in values] == [[0.0, 0.0]] * 14
    assert [value["position"] for value in values[:9]] == [held] * 9
    assert [value["position"] for value in values[10:]] == [None] * 4


def test_the_last_word_is_safe_and_says_why(rig: BeatRig) -> None:
    k = rig.warm()
    last = rig.loop.final_safe_decode("stopping")
    assert (last.validity, last.reason) == ("paused", "stopping")
    assert (last.beat, last.seq, last.tokens) == (k + 1, k + 1, 0)
    assert last.value["velocity"] == [0.0, 0.0]
    assert last.value_raw == {"velocity": None, "position": None}
    assert rig.loop.final_safe_decode("guard").validity == "fault"


def test_a_decode_that_is_held_up_after_it_was_judged_does_not_leave_as_ok(rig: BeatRig) -> None:
    k = rig.warm()
    decode, slot = rig.fed_turn(k + 1), rig.loop.slots.active
    assert decode.reason == ""
    t_latest = decode.t_window + SETTLE_S + 2 * HOP_S
    assert as_of_now(decode, slot, SETTLE_S, HOP_S, t_latest) is decode
    held_up = as_of_now(decode, slot, SETTLE_S, HOP_S, t_latest + 1e-3)
    assert (held_up.validity, held_up.reason, held_up.late) == ("stale", "overdue", True)
    assert held_up.value["velocity"] == [0.0, 0.0]
    assert held_up.value_raw == decode.value_raw
    assert rig.loop.reason == "overdue"
    assert rig.fed_turn(k + 2).reason == ""
