"""Units that die or change are named; those that merely vary are not."""

import numpy as np

from service.telemetry.unit_health import UnitHealth

KEYS = tuple(f"u{i}" for i in range(40))
SECONDS = 40


def health_after(now_hz: np.ndarray, before_hz: np.ndarray) -> dict:
    health = UnitHealth(dict(zip(KEYS, before_hz.tolist(), strict=True)))
    rng = np.random.default_rng(0)
    n_spikes = np.zeros(len(KEYS), np.int64)
    for second in range(SECONDS + 1):
        health.sample(float(second), n_spikes)
        n_spikes += rng.poisson(now_hz)
    return health.report(KEYS)


def test_poisson_variation_alarms_nobody():
    rates_hz = np.linspace(1.0, 40.0, len(KEYS))
    report = health_after(rates_hz, rates_hz)
    assert report["judged"] == len(KEYS)
    assert not report["dead"]
    assert not report["changed"]
    assert not report["recalibration_advised"]


def test_dead_and_changed_units_are_named():
    before_hz = np.full(len(KEYS), 10.0)
    now_hz = before_hz.copy()
    now_hz[3], now_hz[5] = 0.0, 50.0
    report = health_after(now_hz, before_hz)
    assert report["dead"] == ["u3"]
    assert report["changed"] == ["u5"]
    assert not report["recalibration_advised"]


def test_many_changed_units_advise_recalibration():
    before_hz = np.full(len(KEYS), 10.0)
    now_hz = before_hz.copy()
    now_hz[:9] = 0.0
    assert health_after(now_hz, before_hz)["recalibration_advised"]


def test_silent_units_that_hardly_fired_before_are_not_judged():
    before_hz = np.full(len(KEYS), 0.1)
    report = health_after(np.zeros(len(KEYS)), before_hz)
    assert report["judged"] == 0
    assert not report["dead"]


def test_too_little_time_judges_nobody():
    health = UnitHealth({"u0": 10.0})
    health.sample(0.0, np.zeros(1, np.int64))
    health.sample(5.0, np.zeros(1, np.int64))
    assert health.report(("u0",))["judged"] == 0
