"""The beat, driven by hand: real tokens, a real network, a clock that the test moves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.bundle import DecoderBundle
from service.loop.decode_loop import CATCH_UP_S
from service.loop.intake.schedule import Schedule
from streams.spikes.ring import Fates
from streams.spikes.tokenizer import cut_bins
from tests.service.beat_rig import (
    CONTEXT_BEATS,
    HOP_S,
    HOP_US,
    SETTLE_S,
    SOURCE_KEYS,
    T0_S,
    BeatRig,
    batch_of,
    estimate,
)

SPIKES = st.lists(
    st.tuples(st.integers(1, 12 * HOP_US), st.integers(0, len(SOURCE_KEYS) - 1)), max_size=60
)
N_BEATS = 13
quick = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


# --- when beats fall


@given(st.integers(1, 10**9), st.sampled_from([1000, 10_000, 20_000, 33_333, 50_000]))
def test_the_newest_beat_due_is_the_last_whose_cutting_may_start(k: int, hop_us: int) -> None:
    schedule = Schedule(T0_S, hop_us)
    due_s = schedule.window_end_s(k) + SETTLE_S
    assert schedule.newest_due(due_s + 1e-4 * hop_us * 1e-6 + 1e-6, SETTLE_S) == k
    assert schedule.newest_due(due_s - 1e-4 * hop_us * 1e-6 - 1e-6, SETTLE_S) == k - 1


def test_a_decode_says_what_it_is(rig: BeatRig, bundle: DecoderBundle) -> None:
    decode = rig.fed_turn(1)
    assert (decode.schema, decode.run_id, decode.seq, decode.beat) == (1, "7f3a", 1, 1)
    assert decode.t_window == pytest.approx(T0_S + HOP_S, abs=1e-9)
    assert decode.t_newest_spike == pytest.approx(T0_S + HOP_S, abs=1e-9)
    assert decode.t_cut == decode.t_done == decode.t_sent == rig.clock.now()
    assert decode.units == {"velocity": "cm/s", "position": "cm"}
    assert (decode.decoder_id, decode.checksum) == ("tiny", bundle.manifest.id)
    assert (decode.backend, decode.precision) == ("onnxruntime-cpu", "fp32")
    assert (decode.tokens, decode.spikes_in, decode.token_cap) == (2, 2, None)


def test_seq_counts_decodes_and_beat_counts_hops(rig: BeatRig) -> None:
    decodes = [rig.turn(k) for k in (1, 2, 5, 6, 9)]
    assert [d.seq for d in decodes] == [1, 2, 3, 4, 5]
    assert [d.beat for d in decodes] == [1, 2, 5, 6, 9]
    assert [d.beats_skipped for d in decodes] == [0, 0, 2, 2, 4]


@pytest.mark.parametrize(
    ("late_s", "late"), [(0.0, False), (HOP_S / 2 - 1e-5, False), (HOP_S / 2 + 1e-5, True)]
)
def test_late_is_over_half_a_hop_after_the_settle_time(
    rig: BeatRig, late_s: float, late: bool
) -> None:
    assert rig.turn(1, late_s).late == late
    assert rig.loop.counts.late == late
    assert not rig.turn(2).late


# --- tokens and fates


@quick
@given(SPIKES, st.lists(st.integers(0, N_BEATS), max_size=60), st.sampled_from([1, 2, 3]))
def test_the_tokens_of_each_beat_are_those_cut_offline(
    bundles: dict[int, DecoderBundle], spikes: list[tuple[int, int]], pulls: list[int], overlap: int
) -> None:
    rig = BeatRig(bundles[overlap])
    rig.go_to(12)
    order = np.argsort([pulls[i % len(pulls)] if pulls else 0 for i in range(len(spikes))])
    for i in range(0, len(spikes), 7):
        rig.arrive([spikes[j] for j in order[i : i + 7]])
    for k in range(1, N_BEATS):
        rig.turn(k)
    ends_us = np.arange(1, N_BEATS, dtype=np.int64) * HOP_US
    offline = cut_bins(batch_of(spikes), rig.decoder.row_of, ends_us, overlap * HOP_US)
    for i in range(len(offline)):
        of_bin = slice(offline.offsets[i], offline.offsets[i + 1])
        live = rig.windows[i + 1]
        assert live.unit.tobytes() == offline.unit[of_bin].tobytes()
        assert live.t_rel.tobytes() == offline.t_rel[of_bin].tobytes()
        assert live.count.tobytes() == offline.count[of_bin].tobytes()


@quick
@given(
    st.lists(
        st.tuples(
            st.integers(1, 3),
            st.lists(st.tuples(st.integers(-HOP_US, 12 * HOP_US), st.integers(0, 4)), max_size=12),
            st.integers(0, 3),
            st.integers(0, 3),
        ),
        max_size=10,
    ),
    st.sampled_from([1, 2]),
    st.sampled_from([None, 1, 3]),
    st.sampled_from([4, 1000]),
)
def test_every_spike_has_one_fate(
    bundles: dict[int, DecoderBundle],
    story: list[tuple[int, list[tuple[int, int]], int, int]],
    overlap: int,
    token_cap: int | None,
    capacity: int,
) -> None:
    rig = BeatRig(bundles[overlap], token_cap=token_cap, capacity=capacity)
    k, n_sent, decode = 0, 0, None
    for hops, spikes, n_invalid, n_duplicate in story:
        k += hops
        rig.go_to(k)
        rig.arrive(spikes, n_invalid=n_invalid, n_duplicate=n_duplicate)
        n_sent += len(spikes) + n_invalid + n_duplicate
        decode = rig.turn(k)
        assert rig.n_arrived() == n_sent
        assert token_cap is None or decode.tokens <= token_cap
    decode = rig.turn(k + 20)
    fates: Fates = rig.loop.ring.fates
    assert rig.loop.ring.n_pending == 0
    assert decode.spikes_in == sum(fates.as_dict().values()) == n_sent
    assert (decode.spikes_late, decode.spikes_dropped) == (fates.late, fates.overflow)


def test_units_that_the_source_shows_later_find_their_row(rig: BeatRig) -> None:
    rig.source_keys.append("u77")
    rig.go_to(1)
    rig.arrive([(5, 5), (6, 4)])
    assert rig.turn(1).tokens == 1
    assert rig.loop.ring.fates.unknown_unit == 1


# --- memory


@quick
@given(SPIKES, st.sets(st.integers(1, 11)))
def test_a_run_with_skipped_beats_decodes_as_one_without(
    bundle: DecoderBundle, spikes: list[tuple[int, int]], skipped: set[int]
) -> None:
    runs = []
    for left_out in (set[int](), skipped):
        rig = BeatRig(bundle)
        rig.go_to(12)
        rig.arrive(spikes)
        turned = [k for k in range(1, N_BEATS) if k not in left_out]
        runs.append({k: rig.turn(k) for k in turned})
        assert rig.loop.counts.skipped == len(left_out)
        assert set(rig.windows) == set(range(1, N_BEATS))
    for k, decode in runs[1].items():
        assert estimate(decode) == estimate(runs[0][k])


def test_memory_carries_the_past(bundle: DecoderBundle) -> None:
    decodes = []
    for spikes in ([], [(5, 0), (6, 1)]):
        rig = BeatRig(bundle)
        rig.go_to(3)
        rig.arrive(spikes)
        decodes.append([rig.turn(k).value_raw for k in (1, 2, 3)])
    assert decodes[0] != decodes[1]
    assert decodes[0][2] != decodes[1][2]


def test_a_hole_of_a_second_is_caught_up(rig: BeatRig) -> None:
    k = rig.warm()
    n = round(CATCH_UP_S / HOP_S)
    rig.go_to(k + n + 1)
    rig.arrive([((k + n + 1) * HOP_US, 0)])
    decode = rig.turn(k + n + 1)
    assert (decode.validity, decode.beats_skipped, rig.loop.counts.resets) == ("ok", n, 0)


def test_a_longer_hole_empties_the_memory_and_warms_up(rig: BeatRig, bundle: DecoderBundle) -> None:
    k = rig.warm()
    n = round(CATCH_UP_S / HOP_S) + 1
    decode = rig.fed_turn(k + n + 1)
    assert (decode.validity, decode.reason) == ("warmup", "context_short")
    assert (decode.beats_skipped, rig.loop.counts.resets) == (n, 1)
    fresh = BeatRig(bundle)
    fresh.loop.ring.close((k + n) * HOP_US)
    fresh.loop.last_k = k + n
    assert estimate(fresh.fed_turn(k + n + 1)) == estimate(decode)
    for after in range(2, CONTEXT_BEATS):
        assert rig.fed_turn(k + n + after).validity == "warmup"
    assert rig.fed_turn(k + n + CONTEXT_BEATS).validity == "ok"


def test_spikes_of_a_hole_that_is_not_caught_up_are_accounted_for(rig: BeatRig) -> None:
    rig.fed_turn(1)
    rig.go_to(60)
    rig.arrive([(k * HOP_US, 0) for k in range(10, 61)])
    rig.turn(60)
    rig.turn(61)
    assert rig.loop.ring.fates.overflow == 50
    assert rig.loop.ring.fates.used == 3
    assert rig.n_arrived() == 53


def test_the_bins_before_the_first_beat_run_unpublished(bundle: DecoderBundle) -> None:
    begun, turned = BeatRig(bundle), BeatRig(bundle)
    for rig in (begun, turned):
        rig.go_to(4)
        rig.arrive([(5, 0), (HOP_US + 5, 1), (3 * HOP_US, 3)])
    begun.loop.run_unpublished(3)
    for k in (1, 2, 3):
        turned.turn(k)
    decodes = begun.turn(4), turned.turn(4)
    assert estimate(decodes[0]) == estimate(decodes[1])
    assert (decodes[0].seq, decodes[0].beats_skipped) == (1, 0)
