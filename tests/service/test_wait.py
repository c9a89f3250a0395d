"""The wait before a cut: until when, and that a rehearsal in it leaves no trace."""

from __future__ import annotations

import numpy as np
import pytest

from export.bundle import DecoderBundle
from export.onnxruntime_backend import open_cpu
from service.loop.wait import Wait
from streams.messages import TokenWindow
from tests.service.beat_rig import HOP_US, SETTLE_S, T0_S, BeatRig, estimate

SETTLED, ARRIVED = "settled", "arrived"


def wait_of(rig: BeatRig, cut: str, *, rehearse: bool = False) -> Wait:
    """Nothing arrives while it waits: time passes."""

    def let_pass(wait_s: float) -> None:
        rig.clock.t_s += max(0.0, wait_s)

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


@pytest.mark.parametrize("cut", [SETTLED, ARRIVED])
def test_a_rehearsal_leaves_no_trace(bundle: DecoderBundle, cut: str) -> None:
    decodes = []
    for rehearse in (False, True):
        rig = BeatRig(bundle)
        wait = wait_of(rig, cut, rehearse=rehearse)
        for k in range(1, 30):
            rig.clock.sleep_until(window_end_s(rig, k))
            rig.arrive([(k * HOP_US - 7 - k, k % 2), (k * HOP_US + 1, 3)])
            wait.until_settled(k, SETTLE_S, settling=False)
            decodes.append(estimate(rig.beat.turn(k, SETTLE_S)))
        decodes.append(rig.beat.ring.fates.as_dict())
    assert decodes[:30] == decodes[30:]


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
        rig.beat.rehearsal_s = taken_s  # on a clock that stands still it took nothing
        rig.clock.t_s += taken_s

    rig.beat.rehearse = timed  # type: ignore[method-assign]
    rig.beat.rehearsal_s = rig.beat.taken_s = taken_s
    for i in range(20):
        rig.clock.t_s = T0_S + i * 1e-3
        if i % 3 == 0:
            rig.arrive([(i * 1000, 0)])
    t_newest = T0_S + 18e-3
    settle_s = t_newest + 2 * block_s - window_end_s(rig, 1)
    wait_of(rig, ARRIVED, rehearse=True).until_settled(1, settle_s, settling=False)
    assert begun_s
    assert max(begun_s) <= t_newest + block_s - taken_s
