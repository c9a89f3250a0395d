"""Spikes that were not taken: told, a fault, and which bins lack them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.loop.intake.arrivals import Arrival
from service.loop.intake.rejected import CAUSES, FATES, RejectedSpikes
from service.loop.intake.schedule import Schedule
from streams.messages import SpikeBatch
from streams.spikes.ring import Fates

HOP_US, HOP_S = 20_000, 0.02
NONE = np.zeros(0, np.int64)
PER_BEAT = 100


def arrival(t_s: float = 10.0, age_s: float = 1e-3, n: int = 1, **changes: Any) -> Arrival:
    t_us = np.full(n, round(t_s * 1e6), np.int64)
    batch = SpikeBatch(t_us, np.zeros(n, np.int32), np.ones(n, np.int32))
    return Arrival(t_s, t_s, batch, round(t_s * 1e6), None, **{"invalid_us": NONE, **changes},
                   age_s=age_s)  # fmt: skip


class Beats:
    """Beats of 100 spikes each, so many of them with a fate."""

    def __init__(self) -> None:
        self.rejected, self.fates, self.n_in, self.t_s = (
            RejectedSpikes(Schedule(0.0, HOP_US)),
            Fates(),
            0,
            10.0,
        )

    def turn(self, n_beats: int, **of_fate: int) -> None:
        for _ in range(n_beats):
            self.t_s += HOP_S
            self.n_in += PER_BEAT
            for fate, n in of_fate.items():
                setattr(self.fates, fate, getattr(self.fates, fate) + n)
            self.rejected.update_shares(self.t_s, self.fates, self.n_in, 0.01)


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize(
    ("n", "told", "fault"), [(1, False, False), (3, True, False), (20, True, True)]
)
def test_a_share_is_told_above_1_percent_and_a_fault_above_10(
    fate: str, n: int, told: bool, fault: bool
) -> None:
    beats = Beats()
    beats.turn(100)
    beats.turn(150, **{fate: n})
    assert beats.rejected.shares[fate] == pytest.approx(n / PER_BEAT)
    assert beats.rejected.is_fault is fault
    happened = list(beats.rejected.drain())
    assert [one.event for one in happened] == ["spikes_rejected"] * told
    for one in happened:
        assert one.detail["fate"] == fate
        assert one.detail["warning"].endswith(CAUSES[fate][-20:])


def test_it_is_told_again_only_after_it_was_gone() -> None:
    beats = Beats()
    beats.turn(50)
    beats.turn(1000, invalid=5)
    assert len(list(beats.rejected.drain())) == 1
    beats.turn(700)
    beats.turn(60, invalid=5)
    assert len(list(beats.rejected.drain())) == 1


def test_few_spikes_are_no_share() -> None:
    rejected, fates = RejectedSpikes(Schedule(0.0, HOP_US)), Fates()
    rejected.update_shares(1.0, fates, 0, 0.01)
    fates.invalid = 4
    rejected.update_shares(1.5, fates, 8, 0.01)
    assert not rejected.is_fault
    assert not list(rejected.drain())


def test_a_backlog_is_no_fault_but_lateness_that_goes_on_is() -> None:
    backlog = Beats()
    backlog.turn(50)
    backlog.turn(1, late=90)
    for _ in range(60):
        backlog.turn(1)
        assert not backlog.rejected.is_fault
    for_good = Beats()
    for_good.turn(50)
    for_good.turn(150, late=90)
    assert for_good.rejected.is_fault


def test_what_was_lacking_in_ok_beats_is_a_fault_at_once() -> None:
    beats = Beats()
    beats.turn(50)
    for k in range(1, 40):
        beats.rejected.note_published(k, ok=k >= 20)
    late_us = np.arange(25, 35).repeat(60) * HOP_US
    beats.rejected.note(arrival(), late_us, NONE, 0)
    beats.turn(5, late=20)
    assert beats.rejected.is_fault
    unheard = Beats()
    unheard.turn(50)
    for k in range(1, 40):
        unheard.rejected.note_published(k, ok=k < 20)
    unheard.rejected.note(arrival(), late_us, NONE, 0)
    unheard.turn(5, late=20)
    assert not unheard.rejected.is_fault


@pytest.mark.parametrize(("n_taken", "lacks"), [(10, True), (98, True), (99, False)])
def test_a_bin_lacks_what_was_invalid_or_in_the_future(n_taken: int, lacks: bool) -> None:
    for changes, future_us in (
        ({"invalid_us": np.array([5 * HOP_US - 1])}, NONE),
        ({}, np.array([4 * HOP_US + 1])),
    ):
        rejected = RejectedSpikes(Schedule(0.0, HOP_US))
        rejected.note(arrival(**changes), NONE, future_us, 0)
        assert rejected.bin_lacks(4 * HOP_US, 5 * HOP_US, n_taken) is lacks
        assert not rejected.bin_lacks(5 * HOP_US, 6 * HOP_US, 0)
        # An overlapping bin holds it too.
        assert rejected.bin_lacks(3 * HOP_US, 6 * HOP_US, 10)


def test_numbers_that_never_came_are_lacking_since_the_pull_before() -> None:
    rejected = RejectedSpikes(Schedule(0.0, HOP_US))
    rejected.note(arrival(t_s=10.0), NONE, NONE, 0)
    rejected.note(arrival(t_s=10.05, n_lost=3), NONE, NONE, 0)
    ks = [k for k in range(490, 510) if rejected.bin_lacks((k - 1) * HOP_US, k * HOP_US, 50)]
    assert ks == [500, 501, 502, 503]


def test_stamps_of_another_clock_are_told_after_half_a_second_and_when_they_are_over() -> None:
    rejected = RejectedSpikes(Schedule(0.0, HOP_US))
    for i in range(40):
        rejected.note(arrival(t_s=10.0 + HOP_S * i, age_s=-1.7e9), NONE, NONE, 0)
        assert rejected.other_clock is (i * HOP_S >= 0.5)
    rejected.note(arrival(t_s=11.0), NONE, NONE, 0)
    assert not rejected.other_clock
    assert [one.event for one in rejected.drain()] == ["other_clock", "lsl_clock_again"]


def test_a_backlog_that_is_old_for_a_moment_is_of_the_same_clock() -> None:
    rejected = RejectedSpikes(Schedule(0.0, HOP_US))
    rejected.note(arrival(t_s=10.0), NONE, NONE, 0)
    for age_s in (60.0, 30.0, 7.0, 0.001):
        rejected.note(arrival(t_s=70.0, age_s=age_s), NONE, NONE, 0)
        assert not rejected.other_clock
