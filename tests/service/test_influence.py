"""Influence on the simulated subject, whose tuning is known: decoder of the same day, new seeds."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from export.bundle import DecoderBundle, open_bundle
from export.shipped import bundle_path
from service.page.influence.live import Influence, LiveInfluence
from service.page.influence.worker import InfluenceWorker
from streams.clock import MonotonicClock
from streams.messages import Float64s
from streams.simulation.cortex import Population, population_on
from streams.simulation.openloop import record_open_loop
from streams.simulation.user import Style

SUBJECT, DAY, N_UNITS, MINUTES, LEAD_S = 1, 7, 96, 1.0, 0.1
WITHIN_S = 30.0
SEEDS: tuple[tuple[int, Style], ...] = ((101, "steer"), (102, "reach"), (103, "steer"))
"""Sessions on the day that the shipped decoder is of; it was trained on seed 0."""


@cache
def bundle() -> DecoderBundle:
    return open_bundle(bundle_path("shipped:demo"))


@cache
def followed(seed: int, style: Style) -> tuple[Influence, LiveInfluence]:
    session = record_open_loop(SUBJECT, DAY, MINUTES, N_UNITS, seed=seed, style=style)
    live = LiveInfluence(bundle(), LEAD_S)
    t_s = session.spikes.t_us * 1e-6
    for until_s in np.arange(1.0, 60.0 * MINUTES):
        new = (t_s > until_s - 1.0) & (t_s <= until_s)
        live.add(t_s[new], session.unit_keys, session.spikes.unit[new])
        live.update(float(until_s))
    return live.influences()["velocity"], live


def in_order_of(population: Population, influence: Influence) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the influence, and of the population, of units that live and are known."""
    at = {key: i for i, key in enumerate(influence.keys)}
    known = [i for i, key in enumerate(population.keys) if key in at and population.alive[i]]
    return np.array([at[population.keys[i]] for i in known]), np.array(known)


def information(population: Population) -> Float64s:
    """Fisher information on the velocity's two axes, in 1/s at 20 cm/s (docs/influence.md)."""
    slope = np.square(population.gain) + np.square(population.speed_gain)
    found: Float64s = np.exp(population.log_rate) * slope
    return found


def ranks(values: np.ndarray) -> Float64s:
    """Ranks, equal values sharing their mean."""
    _, which, n = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(n)
    found: Float64s = (last - 0.5 * (n - 1))[which]
    return found


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


@pytest.mark.parametrize(("seed", "style"), SEEDS)
def test_units_rank_by_their_true_information(seed: int, style: Style) -> None:
    influence, _ = followed(seed, style)
    population = population_on(SUBJECT, DAY, N_UNITS)
    rows, units = in_order_of(population, influence)
    assert spearman(influence.score[rows], information(population)[units]) >= 0.8


@pytest.mark.parametrize(("seed", "style"), SEEDS)
def test_untuned_units_are_at_the_bottom(seed: int, style: Style) -> None:
    influence, _ = followed(seed, style)
    population = population_on(SUBJECT, DAY, N_UNITS)
    rows, units = in_order_of(population, influence)
    untuned = population.gain[units] == 0.0
    score = influence.score[rows]
    assert untuned.sum() >= 15
    assert np.mean(score[untuned][:, None] < score[~untuned]) >= 0.9  # the area under the ROC curve
    assert untuned[np.argsort(score)[:10]].sum() >= 8


def test_spikes_push_in_the_preferred_direction() -> None:
    influence, _ = followed(*SEEDS[0])
    population = population_on(SUBJECT, DAY, N_UNITS)
    rows, units = in_order_of(population, influence)
    informative = information(population)[units] > np.median(information(population)[units])
    off = influence.direction[rows] - population.direction[units]
    off_deg = np.degrees(np.abs(np.angle(np.exp(1j * off[informative]))))
    assert np.median(off_deg) < 20.0


def test_units_under_each_others_keys_rank_by_nothing() -> None:
    """The control: true information of shuffled units."""
    influence, _ = followed(*SEEDS[0])
    population = population_on(SUBJECT, DAY, N_UNITS)
    rows, units = in_order_of(population, influence)
    mixed = np.random.default_rng(0).permutation(units)
    assert abs(spearman(influence.score[rows], information(population)[mixed])) < 0.3


def test_it_says_what_it_is_in() -> None:
    influence, live = followed(*SEEDS[0])
    assert influence.unit == "cm/s"
    assert influence.kind == "additive"
    assert influence.share.sum() == pytest.approx(1.0)
    assert influence.keys == tuple(unit.key for unit in bundle().manifest.units)
    assert influence.ranked()[0] == influence.keys[int(np.argmax(influence.score))]
    assert live.cost > 0.0


def test_unknown_units_and_silence_are_no_error() -> None:
    live = LiveInfluence(bundle())
    live.update(1.0)
    assert live.influences() == {}
    live.add(np.array([1.1, 1.2]), ["nobody", "ch1/u1"], np.array([0, 1]))
    for until_s in np.arange(2.0, 8.0):
        live.update(float(until_s))
    influence = live.influences()["velocity"]
    assert np.isfinite(influence.score).all()
    assert (influence.now == 0.0).all()


class SlowClock:
    """A clock on which every reading is 0.2 s after the last."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def now(self) -> float:
        self._now_s += 0.2
        return self._now_s

    def sleep_until(self, t_s: float) -> None: ...

    def spin_until(self, t_s: float) -> None: ...


def test_it_samples_less_often_where_it_costs_too_much() -> None:
    live = LiveInfluence(bundle(), clock=SlowClock())
    for until_s in np.arange(1.0, 30.0):
        live.update(float(until_s))
    quick = LiveInfluence(bundle())
    for until_s in np.arange(1.0, 30.0):
        quick.update(float(until_s))
    slow, usual = (one.influences()["velocity"].n_samples for one in (live, quick))
    assert slow < usual / 2


def test_a_worker_gives_what_the_computation_gives() -> None:
    session = record_open_loop(SUBJECT, DAY, 0.2, N_UNITS, seed=104)
    t_s, keys, unit = session.spikes.t_us * 1e-6, session.unit_keys, session.spikes.unit
    worker, clock = InfluenceWorker(bundle(), LEAD_S), MonotonicClock()
    worker.start()
    until_s = 0.0
    try:
        t_end_s = clock.now() + WITHIN_S
        while not worker.influences and clock.now() < t_end_s:
            until_s += 0.5
            new = (t_s > until_s - 0.5) & (t_s <= until_s)
            worker.add(t_s[new], keys, unit[new])
            worker.go_on(until_s)
            clock.sleep_until(clock.now() + 0.1)
        assert worker.influences["velocity"].score.max() > 0.0
        assert worker.trouble == ""
    finally:
        worker.stop()
        worker.join()
    assert not worker.is_alive()
