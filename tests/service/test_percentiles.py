"""Percentiles against numpy's."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.telemetry.percentiles import QUANTILES, Histogram, percentiles

LOW, HIGH = 1e-3, 1e4
SAMPLES = st.lists(st.floats(LOW, HIGH), min_size=1, max_size=300)


@given(SAMPLES, st.sampled_from([50, 400]), st.floats(0.001, 1.0))
def test_a_histogram_quantile_lies_within_a_bin_of_the_exact_one(
    samples: list[float], n_bins: int, q: float
) -> None:
    histogram = Histogram(LOW, HIGH, n_bins)
    for sample in samples:
        histogram.add(sample)
    ratio = (HIGH / LOW) ** (1 / n_bins)
    least = float(np.quantile(samples, max(0.0, q - 1e-9), method="inverted_cdf"))
    most = float(np.quantile(samples, min(1.0, q + 1e-9), method="inverted_cdf"))
    assert least * (1 - 1e-9) <= histogram.quantile(q) <= most * ratio * (1 + 1e-9)
    assert histogram.quantile(q) <= max(samples)


def test_half_of_two_is_the_smaller() -> None:
    histogram = Histogram(LOW, HIGH)
    for value in (1.0, 100.0):
        histogram.add(value)
    assert 1.0 <= histogram.quantile(0.5) < 1.05


@given(SAMPLES)
def test_its_summary_rises_to_the_exact_maximum(samples: list[float]) -> None:
    histogram = Histogram(LOW, HIGH)
    for sample in samples:
        histogram.add(sample)
    summary = histogram.summary()
    assert list(summary) == ["p50", "p95", "p99", "p999", "max"]
    assert sorted(summary.values()) == list(summary.values())
    assert (summary["max"], histogram.n) == (max(samples), len(samples))


def test_a_value_may_count_several_times() -> None:
    once, often = Histogram(LOW, HIGH), Histogram(LOW, HIGH)
    often.add(3.0, n=5)
    for _ in range(5):
        once.add(3.0)
    assert once.summary() == often.summary()
    assert once.n == often.n == 5


def test_values_beyond_its_edges_count_at_the_edges() -> None:
    histogram = Histogram(LOW, HIGH)
    for value in (0.0, 1e-9):
        histogram.add(value)
    assert histogram.quantile(0.5) == 1e-9
    histogram.add(1e9, n=10)
    assert histogram.quantile(0.99) <= HIGH * (1 + 1e-9)
    assert histogram.max == 1e9


def test_an_empty_one_has_no_quantile() -> None:
    assert math.isnan(Histogram(LOW, HIGH).quantile(0.5))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=100))
def test_percentiles_of_a_finished_run_are_exact(samples: list[float]) -> None:
    expected = {name: float(np.quantile(samples, q)) for name, q in QUANTILES.items()}
    assert percentiles(samples) == expected | {"max": max(samples)}


def test_percentiles_of_nothing_are_nan() -> None:
    assert all(math.isnan(value) for value in percentiles([]).values())
    assert list(percentiles([])) == ["p50", "p95", "p99", "p999", "max"]
