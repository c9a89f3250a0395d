"""The wait before a cut: until when, and that a rehearsal in it leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from export.bundle import DecoderBundle
from export.onnxruntime_backend import open_cpu
from service.loop.token_cap import TokenCap
from service.loop.wait import Wait
from streams.messages import TokenWindow
from streams.spikes.kernels.choose import NUMPY, Kernels
from tests.service.beat_rig import HOP_S, HOP_US, SETTLE_S, T0_S, BeatRig, estimate
from tests.streams.ways import BOTH_WAYS

SETTLED, ARRIVED = "settled", "arrived"
A_LOOK_S = 3e-6
"""What a look takes that finds nothing."""


def wait_of(rig: BeatRig, cut: str, *, rehearse: bool = False) -> Wait:
    """Nothing arrives while it waits: time passes."""

    def let_pass(wait_s: float) -> None:
        rig.clock.t_s += max(A_LOOK_S, wait_s)

    return Wait(rig.clock, rig.beat, rig.inbox, let_pass, cut=cut, rehearse=rehearse)  # type: ignore[arg-type]


def window_end_s(rig: BeatRig, k: int) -> float:
    return rig.beat.schedule.window_end_s(k)


def test_a_beat_waits_for_its_settle_time(rig: BeatRig) -> None:
    rig.clock.sleep_until(window_end_s(rig, 1))
    rig.arrive([(HOP_US + 5, 0)])
    t_settled = window_end_s(rig, 1) + SETTLE_S
    assert wait_of(rig, SETTLED).until_settled(1, SETTLE_S, settling=False) == t_settled
    assert rig.clock.now() == t_settled


@pytest.mark.parametrize(("stamp_us", "waits"), [(HOP_US, True), (HOP_US + 1, False)])
def test_a_later_stamp_ends_the_wait(rig: BeatRig, stamp_us: int, waits: bool) -> None:
    t_end = window_end_s(rig, 1)
    rig.clock.sleep_until(t_end)
    rig.arrive([(stamp_us, 0)])
    if waits:
        rig.clock.sleep_until(t_end + SETTLE_S)
    due = wait_of(rig, ARRIVED).until_settled(1, SETTLE_S, settling=False)
    assert due == (t_end + SETTLE_S if waits else t_end)


def test_no_beat_is_cut_early_while_settling(rig: BeatRig) -> None:
    rig.clock.sleep_until(window_end_s(rig, 1))
    rig.arrive([(HOP_US + 5, 0)])
    t_settled = window_end_s(rig, 1) + SETTLE_S
    assert wait_of(rig, ARRIVED).until_settled(1, SETTLE_S, settling=True) == t_settled


@BOTH_WAYS
@pytest.mark.parametrize("cut", [SETTLED, ARRIVED])
def test_a_rehearsal_leaves_no_trace(bundle: DecoderBundle, cut: str, kernels: Kernels) -> None:
    decodes = []
    for rehearse in (False, True):
        rig = BeatRig(bundle, kernels=kernels)
        wait = wait_of(rig, cut, rehearse=rehearse)
        for k in range(1, 30):
            rig.clock.sleep_until(window_end_s(rig, k))
            rig.arrive([(k * HOP_US - 7 - k, k % 2), (k * HOP_US + 1, 3)])
            wait.until_settled(k, SETTLE_S, settling=False)
            decodes.append(estimate(rig.beat.turn(k, SETTLE_S)))
        decodes.append(rig.beat.ring.fates.as_dict())
    assert decodes[:30] == decodes[30:]


def prepare(bundle: DecoderBundle, kernels: Kernels = NUMPY) -> BeatRig:
    """Beat 12 is decoded as far as it has come: one spike that the memory has not seen."""
    rig = BeatRig(bundle, kernels=kernels)
    for k in range(1, 12):
        rig.arrive([(k * HOP_US - 7 - k, k % 2)])
        rig.turn(k)
    rig.clock.sleep_until(window_end_s(rig, 12))
    rig.arrive([(12 * HOP_US - 100, 1), (12 * HOP_US + 50, 3)])
    rig.beat.take_in(rig.inbox)
    return rig


def late_spike(rig: BeatRig) -> None:
    rig.arrive([(12 * HOP_US - 3, 3)])


def early_spike_of_the_next_bin(rig: BeatRig) -> None:
    rig.arrive([(12 * HOP_US + 1, 0)])


def spike_that_came_before(rig: BeatRig) -> None:
    rig.arrive([(12 * HOP_US - 100, 1)])


def spike_of_a_unit_not_met_before(rig: BeatRig) -> None:
    rig.source_keys.append("another stranger")
    rig.arrive([(12 * HOP_US - 3, len(rig.source_keys) - 1)])


def other_lead(rig: BeatRig) -> None:
    rig.beat.lead_s = rig.bundle.manifest.lead_s.max


def fewer_tokens(rig: BeatRig) -> None:
    rig.arrive([(12 * HOP_US - 3, 3)])
    rig.beat.take_in(rig.inbox)
    rig.beat.token_cap = TokenCap(HOP_S)
    rig.beat.token_cap.in_force = 1


def nothing(rig: BeatRig) -> None:
    pass


@BOTH_WAYS
@pytest.mark.parametrize(
    ("change", "stays"),
    [
        (nothing, True),
        (late_spike, False),
        (early_spike_of_the_next_bin, True),
        (spike_that_came_before, True),
        (spike_of_a_unit_not_met_before, True),
        (other_lead, False),
        (fewer_tokens, False),
    ],
)
def test_a_decode_made_ahead_stands_if_nothing_of_it_changed(
    bundle: DecoderBundle, change: Callable[[BeatRig], None], stays: bool, kernels: Kernels
) -> None:
    """What the beat publishes is in any case what a beat that never decodes ahead publishes."""
    ahead, plain = prepare(bundle, kernels), prepare(bundle)
    ahead.beat.rehearse(12)
    assert ahead.beat.is_ahead(12)
    told = []
    for rig in (ahead, plain):
        change(rig)
        rig.beat.take_in(rig.inbox)
        told.append([estimate(rig.turn(12)), estimate(rig.turn(13)), rig.beat.ring.fates.as_dict()])
    assert told[0] == told[1]
    assert told[0][0]["tokens"] == 1 + (change is late_spike)
    assert not plain.beat.newest.was_ahead
    fresh = prepare(bundle, kernels)
    fresh.beat.rehearse(12)
    change(fresh)
    fresh.turn(12)
    assert fresh.beat.newest.was_ahead == stays


def test_a_decode_made_ahead_is_dropped_when_the_memory_moves(bundle: DecoderBundle) -> None:
    """Beats that were skipped run through the memory first; a pause of over a second empties it."""
    for k in (14, 12 + 120):
        told = []
        for rig in (prepare(bundle), prepare(bundle)):
            if not told:
                rig.beat.rehearse(k)
            rig.clock.sleep_until(window_end_s(rig, k))
            told.append([estimate(rig.turn(k)), rig.beat.counts.skipped])
            assert not rig.beat.newest.was_ahead
        assert told[0] == told[1]


def test_a_decode_that_is_not_finite_made_ahead_empties_the_memory(bundle: DecoderBundle) -> None:
    rig = prepare(bundle)
    tables = {name: values.copy() for name, values in bundle.tables.items()}
    tables["session"] = np.full_like(tables["session"], np.nan)
    rig.backend.set_tables(tables)
    rig.beat.rehearse(12)
    decode = rig.turn(12)
    assert rig.beat.newest.was_ahead
    assert (decode.validity, decode.reason) == ("fault", "non_finite")
    assert rig.decoder.k_reset == 12


def test_rehearsing_what_follows_a_decode_leaves_no_trace(bundle: DecoderBundle) -> None:
    told = []
    for rig in (prepare(bundle), prepare(bundle)):
        rig.beat.rehearse(12)
        for _ in range(3 if not told else 0):
            rig.beat.rehearse_telling(SETTLE_S)
        decodes = [rig.turn(12), rig.turn(13)]
        told.append([(d.value, d.value_raw, d.validity, d.seq, d.late) for d in decodes])
    assert told[0] == told[1]


def test_what_cannot_be_rehearsed_is_slept_through(
    bundle: DecoderBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No bin is cut for nothing: not for a backend that cannot, nor for a slow one."""
    begun: list[int] = []
    for slow in (False, True):
        rig = prepare(bundle)
        monkeypatch.setattr(rig.beat, "rehearse", begun.append)
        if slow:
            rig.beat.newest = replace(rig.beat.newest, run_s=0.25 * HOP_S)
        else:
            monkeypatch.setattr(rig.decoder, "_ahead", None)
        wait_of(rig, SETTLED, rehearse=True).until_settled(12, SETTLE_S, settling=False)
        assert rig.clock.now() == window_end_s(rig, 12) + SETTLE_S
    assert not begun


def test_a_run_that_ends_after_the_cut_counts_as_decoding(bundle: DecoderBundle) -> None:
    rig = prepare(bundle)
    t_settled = window_end_s(rig, 12) + SETTLE_S
    rig.clock.sleep_until(t_settled - 1e-4)
    run = rig.decoder.rehearse

    def slow(*arguments: object) -> object:
        rig.clock.t_s += 5e-4
        return run(*arguments)  # type: ignore[arg-type]

    rig.decoder.rehearse = slow  # type: ignore[method-assign, assignment]
    rig.beat.rehearse(12)
    decode = rig.beat.turn(12, SETTLE_S)
    assert rig.beat.newest.was_ahead
    assert decode.t_cut == t_settled
    assert decode.t_done - decode.t_cut == pytest.approx(4e-4)
    assert rig.beat.newest.run_s == pytest.approx(5e-4)


def test_a_rehearsed_step_is_the_step_bit_for_bit(bundle: DecoderBundle) -> None:
    rng = np.random.default_rng(0)
    plain, rehearsed = open_cpu(bundle), open_cpu(bundle)
    for n in (0, 3, 60, 1):
        window, other = (
            TokenWindow(
                rng.integers(0, 4, m, dtype=np.int32),
                rng.uniform(0, 0.02, m).astype(np.float32),
                np.ones(m, np.float32),
                0.0,
            )
            for m in (n, n + 5)
        )
        rehearsed.rehearse(other, 0.05)
        rehearsed.rehearse(window, 0.0)
        want, got = plain.step(window, 0.0), rehearsed.step(window, 0.0)
        assert all(want[name].tobytes() == got[name].tobytes() for name in want)


def test_rehearsals_end_before_the_next_block_may_come(bundle: DecoderBundle) -> None:
    """A source in blocks of 3 ms: nothing is begun in the last moments before one is due."""
    rig = BeatRig(bundle)
    block_s, taken_s = 3e-3, 0.5e-3
    begun_s: list[float] = []
    rehearse = rig.beat.rehearse

    def timed(k: int) -> None:
        begun_s.append(rig.clock.now())
        rehearse(k)
        rig.beat.rehearsal.taken_s = taken_s  # on a clock that stands still it took nothing
        rig.clock.t_s += taken_s

    rig.beat.rehearse = timed  # type: ignore[method-assign]
    rig.beat.rehearsal.taken_s = taken_s
    rig.beat.newest = replace(rig.beat.newest, run_s=taken_s)
    for i in range(20):
        rig.clock.t_s = T0_S + i * 1e-3
        if i % 3 == 0:
            rig.arrive([(i * 1000, 0)])
    t_newest = T0_S + 18e-3
    settle_s = t_newest + 2 * block_s - window_end_s(rig, 1)
    wait_of(rig, ARRIVED, rehearse=True).until_settled(1, settle_s, settling=False)
    assert begun_s
    assert max(begun_s) <= t_newest + block_s - taken_s


def test_a_stamp_of_the_future_cuts_no_bin_before_its_end(bundle: DecoderBundle) -> None:
    """A sender's clock may be ahead by a few milliseconds."""
    rig = BeatRig(bundle)
    rig.clock.sleep_until(window_end_s(rig, 1) - 3e-3)
    rig.arrive([(HOP_US + 500, 0)])
    due = wait_of(rig, ARRIVED).until_settled(1, SETTLE_S, settling=False)
    assert due == pytest.approx(window_end_s(rig, 1), abs=2 * A_LOOK_S)
    assert due >= window_end_s(rig, 1)


def test_a_beat_keeps_still_while_its_decode_is_carried(bundle: DecoderBundle) -> None:
    """But not where decoding takes most of the hop, nor where a hop is too short for it."""
    rig = BeatRig(bundle)
    wait, t_s = wait_of(rig, SETTLED), rig.clock.now()
    wait.while_carried()
    assert rig.clock.now() == pytest.approx(t_s + 0.4e-3)
    rig.beat.newest = replace(rig.beat.newest, run_s=0.5 * HOP_S)
    t_s = rig.clock.now()
    wait.while_carried()
    assert rig.clock.now() == t_s
    rig.beat.newest = replace(rig.beat.newest, run_s=0.0)
    rig.beat.ring.hop_us = 5000
    wait.while_carried()
    assert rig.clock.now() == t_s


@pytest.mark.parametrize("run_s", [2e-4, 5e-4, 1e-3])
def test_a_beat_is_awake_for_as_long_as_its_first_rehearsals_need(
    bundle: DecoderBundle, run_s: float
) -> None:
    """Who is awake for longer takes the core from sender and client; at most 3 ms."""
    rig, settle_s = BeatRig(bundle), 0.015
    wait, run, begun = wait_of(rig, SETTLED, rehearse=True), rig.decoder.rehearse, list[float]()

    def slow(*arguments: object) -> object:
        begun.append(rig.clock.now())
        rig.clock.t_s += run_s
        return run(*arguments)  # type: ignore[arg-type]

    rig.decoder.rehearse = slow  # type: ignore[method-assign, assignment]
    for k in range(1, 80):
        begun.clear()
        wait.until_settled(k, settle_s, settling=False)
        awake_s = window_end_s(rig, k) + settle_s - begun[0]
        rig.beat.turn(k, settle_s)
    assert awake_s == pytest.approx(min(3e-3, 4 * run_s), rel=0.05)
