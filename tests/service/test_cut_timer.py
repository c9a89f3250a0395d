"""The wait before a cut: its end, and that predecoding in it leaves no trace."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from export.backends.onnxruntime_cpu import open_cpu
from export.bundle import DecoderBundle
from service.loop.cut_timer import CutTimer
from service.loop.token_cap import TokenCap
from streams.messages import TokenWindow
from streams.spikes.kernels.choose import NUMPY, Kernels
from tests.service.beat_rig import HOP_S, HOP_US, SETTLE_S, T0_S, BeatRig, estimate
from tests.streams.ways import BOTH_WAYS

SETTLED, ARRIVED = "settled", "arrived"
A_LOOK_S = 3e-6
"""What a look takes that finds nothing."""


def timer_of(rig: BeatRig, cut: str, *, predecode: bool = False) -> CutTimer:
    """Nothing arrives while it waits: time passes."""

    def let_pass(wait_s: float) -> None:
        rig.clock.t_s += max(A_LOOK_S, wait_s)

    return CutTimer(rig.clock, rig.loop, let_pass, cut=cut, predecode=predecode)  # type: ignore[arg-type]


def window_end_s(rig: BeatRig, k: int) -> float:
    return rig.loop.schedule.window_end_s(k)


def test_a_beat_waits_for_its_settle_time(rig: BeatRig) -> None:
    rig.clock.sleep_until(window_end_s(rig, 1))
    rig.arrive([(HOP_US + 5, 0)])
    t_settled = window_end_s(rig, 1) + SETTLE_S
    assert timer_of(rig, SETTLED).until_cut(1, SETTLE_S, settling=False) == t_settled
    assert rig.clock.now() == t_settled


@pytest.mark.parametrize(("stamp_us", "waits"), [(HOP_US, True), (HOP_US + 1, False)])
def test_a_later_stamp_ends_the_wait(rig: BeatRig, stamp_us: int, waits: bool) -> None:
    t_end = window_end_s(rig, 1)
    rig.clock.sleep_until(t_end)
    rig.arrive([(stamp_us, 0)])
    if waits:
        rig.clock.sleep_until(t_end + SETTLE_S)
    due = timer_of(rig, ARRIVED).until_cut(1, SETTLE_S, settling=False)
    assert due == (t_end + SETTLE_S if waits else t_end)


def test_no_beat_is_cut_early_while_settling(rig: BeatRig) -> None:
    rig.clock.sleep_until(window_end_s(rig, 1))
    rig.arrive([(HOP_US + 5, 0)])
    t_settled = window_end_s(rig, 1) + SETTLE_S
    assert timer_of(rig, ARRIVED).until_cut(1, SETTLE_S, settling=True) == t_settled


@BOTH_WAYS
@pytest.mark.parametrize("cut", [SETTLED, ARRIVED])
def test_predecoding_leaves_no_trace(bundle: DecoderBundle, cut: str, kernels: Kernels) -> None:
    decodes = []
    for predecode in (False, True):
        rig = BeatRig(bundle, kernels=kernels)
        timer = timer_of(rig, cut, predecode=predecode)
        for k in range(1, 30):
            rig.clock.sleep_until(window_end_s(rig, k))
            rig.arrive([(k * HOP_US - 7 - k, k % 2), (k * HOP_US + 1, 3)])
            timer.until_cut(k, SETTLE_S, settling=False)
            decodes.append(estimate(rig.loop.step(k)))
        decodes.append(rig.loop.ring.fates.as_dict())
    assert decodes[:30] == decodes[30:]


def prepare(bundle: DecoderBundle, kernels: Kernels = NUMPY) -> BeatRig:
    """Beat 12 is decoded as far as it has come: one spike that the memory has not seen."""
    rig = BeatRig(bundle, kernels=kernels)
    for k in range(1, 12):
        rig.arrive([(k * HOP_US - 7 - k, k % 2)])
        rig.turn(k)
    rig.clock.sleep_until(window_end_s(rig, 12))
    rig.arrive([(12 * HOP_US - 100, 1), (12 * HOP_US + 50, 3)])
    rig.loop.admit()
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
    rig.ask("shape", lead_s=rig.bundle.manifest.lead_s.max)


def fewer_tokens(rig: BeatRig) -> None:
    rig.arrive([(12 * HOP_US - 3, 3)])
    rig.loop.admit()
    rig.loop.token_cap = TokenCap(HOP_S)
    rig.loop.token_cap.in_force = 1


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
    ahead.loop.predecode(12)
    assert ahead.loop.is_predecoded(12)
    told = []
    for rig in (ahead, plain):
        change(rig)
        rig.loop.admit()
        told.append([estimate(rig.turn(12)), estimate(rig.turn(13)), rig.loop.ring.fates.as_dict()])
    assert told[0] == told[1]
    assert told[0][0]["tokens"] == 1 + (change is late_spike)
    assert not plain.loop.newest.was_predecoded
    fresh = prepare(bundle, kernels)
    fresh.loop.predecode(12)
    change(fresh)
    fresh.turn(12)
    assert fresh.loop.newest.was_predecoded == stays


def test_a_decode_made_ahead_is_dropped_when_the_memory_moves(bundle: DecoderBundle) -> None:
    """Beats that were skipped run through the memory first; a pause of over a second empties it."""
    for k in (14, 12 + 120):
        told = []
        for rig in (prepare(bundle), prepare(bundle)):
            if not told:
                rig.loop.predecode(k)
            rig.clock.sleep_until(window_end_s(rig, k))
            told.append([estimate(rig.turn(k)), rig.loop.counts.skipped])
            assert not rig.loop.newest.was_predecoded
        assert told[0] == told[1]


def test_a_decode_that_is_not_finite_made_ahead_empties_the_memory(bundle: DecoderBundle) -> None:
    rig = prepare(bundle)
    tables = {name: values.copy() for name, values in bundle.tables.items()}
    tables["session"] = np.full_like(tables["session"], np.nan)
    rig.backend.set_tables(tables)
    rig.loop.predecode(12)
    decode = rig.turn(12)
    assert rig.loop.newest.was_predecoded
    assert (decode.validity, decode.reason) == ("fault", "non_finite")
    assert rig.decoder.k_reset == 12


def test_warming_up_what_follows_a_decode_leaves_no_trace(bundle: DecoderBundle) -> None:
    told = []
    for rig in (prepare(bundle), prepare(bundle)):
        rig.loop.predecode(12)
        for _ in range(3 if not told else 0):
            rig.loop.warm_up_publish()
        decodes = [rig.turn(12), rig.turn(13)]
        told.append([(d.value, d.value_raw, d.validity, d.seq, d.late) for d in decodes])
    assert told[0] == told[1]


def test_what_cannot_be_predecoded_is_slept_through(
    bundle: DecoderBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No bin is cut for nothing: not for a backend that cannot, nor for a slow one."""
    begun: list[int] = []
    for slow in (False, True):
        rig = prepare(bundle)
        monkeypatch.setattr(rig.loop, "predecode", begun.append)
        if slow:
            rig.loop.newest = rig.loop.newest._replace(run_s=0.25 * HOP_S)
        else:
            monkeypatch.setattr(rig.decoder, "_predecodes", None)
        timer_of(rig, SETTLED, predecode=True).until_cut(12, SETTLE_S, settling=False)
        assert rig.clock.now() == window_end_s(rig, 12) + SETTLE_S
    assert not begun


def test_a_run_that_ends_after_the_cut_counts_as_decoding(bundle: DecoderBundle) -> None:
    rig = prepare(bundle)
    t_settled = window_end_s(rig, 12) + SETTLE_S
    rig.clock.sleep_until(t_settled - 1e-4)
    run = rig.decoder.predecode

    def slow(*arguments: object) -> object:
        rig.clock.t_s += 5e-4
        return run(*arguments)  # type: ignore[arg-type]

    rig.decoder.predecode = slow  # type: ignore[method-assign, assignment]
    rig.loop.predecode(12)
    decode = rig.loop.step(12)
    assert rig.loop.newest.was_predecoded
    assert decode.t_cut == t_settled
    assert decode.t_done - decode.t_cut == pytest.approx(4e-4)
    assert rig.loop.newest.run_s == pytest.approx(5e-4)


def test_a_predecoded_step_is_the_step_bit_for_bit(bundle: DecoderBundle) -> None:
    rng = np.random.default_rng(0)
    plain, predecoded = open_cpu(bundle), open_cpu(bundle)
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
        predecoded.predecode(other, 0.05)
        predecoded.predecode(window, 0.0)
        want, got = plain.step(window, 0.0), predecoded.step(window, 0.0)
        assert all(want[name].tobytes() == got[name].tobytes() for name in want)


def test_predecodes_end_before_the_next_block_may_come(bundle: DecoderBundle) -> None:
    """A source in blocks of 3 ms: nothing is begun in the last moments before one is due."""
    rig = BeatRig(bundle)
    block_s, taken_s = 3e-3, 0.5e-3
    begun_s: list[float] = []
    predecode = rig.loop.predecode

    def timed(k: int) -> None:
        begun_s.append(rig.clock.now())
        predecode(k)
        rig.loop.predecode_s = taken_s  # on a clock that stands still it took nothing
        rig.clock.t_s += taken_s

    rig.loop.predecode = timed  # type: ignore[method-assign]
    rig.loop.predecode_s = taken_s
    rig.loop.newest = rig.loop.newest._replace(run_s=taken_s)
    for i in range(20):
        rig.clock.t_s = T0_S + i * 1e-3
        if i % 3 == 0:
            rig.arrive([(i * 1000, 0)])
    t_newest = T0_S + 18e-3
    settle_s = t_newest + 2 * block_s - window_end_s(rig, 1)
    timer_of(rig, ARRIVED, predecode=True).until_cut(1, settle_s, settling=False)
    assert begun_s
    assert max(begun_s) <= t_newest + block_s - taken_s


def test_a_stamp_of_the_future_cuts_no_bin_before_its_end(bundle: DecoderBundle) -> None:
    """A sender's clock may be ahead by a few milliseconds."""
    rig = BeatRig(bundle)
    rig.clock.sleep_until(window_end_s(rig, 1) - 3e-3)
    rig.arrive([(HOP_US + 500, 0)])
    due = timer_of(rig, ARRIVED).until_cut(1, SETTLE_S, settling=False)
    assert due == pytest.approx(window_end_s(rig, 1), abs=2 * A_LOOK_S)
    assert due >= window_end_s(rig, 1)


def test_a_beat_keeps_still_while_its_decode_is_carried(bundle: DecoderBundle) -> None:
    """But not where decoding takes most of the hop, nor where a hop is too short for it."""
    rig = BeatRig(bundle)
    timer, t_s = timer_of(rig, SETTLED), rig.clock.now()
    timer.idle_after_publish()
    assert rig.clock.now() == pytest.approx(t_s + 0.4e-3)
    rig.loop.newest = rig.loop.newest._replace(run_s=0.5 * HOP_S)
    t_s = rig.clock.now()
    timer.idle_after_publish()
    assert rig.clock.now() == t_s
    rig.loop.newest = rig.loop.newest._replace(run_s=0.0)
    rig.loop.schedule.hop_s = 5e-3
    timer.idle_after_publish()
    assert rig.clock.now() == t_s


@pytest.mark.parametrize("run_s", [2e-4, 5e-4, 1e-3])
def test_a_beat_is_awake_for_as_long_as_its_first_predecodes_need(
    bundle: DecoderBundle, run_s: float
) -> None:
    """Who is awake for longer takes the core from sender and client; at most 3 ms."""
    rig, settle_s = BeatRig(bundle), 0.015
    timer, run, begun = timer_of(rig, SETTLED, predecode=True), rig.decoder.predecode, list[float]()

    def slow(*arguments: object) -> object:
        begun.append(rig.clock.now())
        rig.clock.t_s += run_s
        return run(*arguments)  # type: ignore[arg-type]

    rig.decoder.predecode = slow  # type: ignore[method-assign, assignment]
    for k in range(1, 80):
        begun.clear()
        timer.until_cut(k, settle_s, settling=False)
        awake_s = window_end_s(rig, k) + settle_s - begun[0]
        rig.loop.step(k)
    assert awake_s == pytest.approx(min(3e-3, 4 * run_s), rel=0.05)
