"""A day on which yesterday's decoder fails: calibrated unattended, and as good as with minutes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from service.demo.recalibrate import shortfalls
from tests.system.running import Process

FIELDS = {
    "acquisition_per_min_before",
    "acquisition_per_min_after",
    "acquisition_per_min_reference",
    "driving_from_s",
    "at_reference_from_s",
    "assisted_then",
    "swaps_of_tables",
    "missed_beats",
    "skipped_beats",
    "bare_timer_late",
    "lost_messages",
    "collect_s",
    "adapt_s",
    "total_s",
    "r2_before",
    "r2_after",
}
GOOD = {
    "acquisition_per_min_before": 10.0,
    "acquisition_per_min_after": 28.0,
    "acquisition_per_min_reference": 30.0,
    "at_reference_from_s": 41.0,
    "skipped_beats": 0,
    "bare_timer_late": 3,
    "lost_messages": 0,
}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, []),
        ({"acquisition_per_min_after": 26.9}, ["26.9 targets a minute, 90% of 30.0 wanted"]),
        (
            {"acquisition_per_min_before": 28.5},
            ["28.0 targets a minute, no more than the 28.5 of before"],
        ),
        (
            {"at_reference_from_s": 61.0},
            ["at 90% of the reference 61 s after the wizard's start, 60 s wanted"],
        ),
        (
            {"at_reference_from_s": None},
            ["at 90% of the reference never, 60 s wanted"],
        ),
        (
            {"skipped_beats": 1, "lost_messages": 2},
            [
                "1 beats skipped, a bare timer was late for 3",
                "2 messages lost",
            ],
        ),
    ],
)
def test_what_the_demonstration_must_show(change: dict[str, float], told: list[str]) -> None:
    assert shortfalls(GOOD | change) == told


@pytest.mark.skipif(
    "SPIKELOOP_FULL" not in os.environ, reason="takes six minutes: SPIKELOOP_FULL=1"
)
def test_a_lost_day_is_won_back(run: Callable[..., Process]) -> None:
    demo = run("demo", "--recalibrate", "--json")
    demo.popen.wait(1200.0)
    result = json.loads(demo.out)
    assert set(result) == FIELDS
    assert demo.code() == 0, result
    assert not shortfalls(result)
    assert min(result["r2_after"]) > max(result["r2_before"])
