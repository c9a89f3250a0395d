"""What `lint` finds in spikes and counts; every kind of fault with a variant."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from streams.clock import OffsetEstimate
from streams.lint.findings import Heard
from streams.lint.judge import lint
from streams.lint.spikes import doubled_units, equal_columns
from streams.lint.timing import burst_starts, disorder_s, true_rate
from streams.lsl.inlets import lsl_now
from tests.streams.lint_inputs import (
    SECONDS,
    UNITS,
    bad,
    bad_of,
    counts,
    described,
    heard_of,
    in_blocks,
    spike_times,
    spikes,
)


def test_a_sound_stream_has_no_finding_and_its_numbers_are_measured() -> None:
    report = lint(spikes(), [])
    assert not bad(report)
    assert (report.kind, report.worst, report.is_unfit) == ("spikes", "good", False)
    told = json.loads(json.dumps(report.as_json(), allow_nan=False))
    measured = told["measured"]
    assert measured["delay_p50_s"] == pytest.approx(0.0025, abs=5e-4)
    assert measured["block_p50_s"] == pytest.approx(0.005, abs=1e-6)
    assert measured["keep_alive_every_s"] == pytest.approx(0.05, abs=0.01)
    assert measured["units"] == UNITS
    assert measured["disorder_p999_s"] == 0.0
    assert told["stream"]["source_id"] == "NSP-7"


OTHER_CLOCKS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "Unix": (lambda t_s: t_s - lsl_now() + time.time(), "look like Unix time)"),
    "Unix ms": (lambda t_s: (t_s - lsl_now() + time.time()) * 1e3, "Unix time in milliseconds"),
    "Unix ns": (lambda t_s: (t_s - lsl_now() + time.time()) * 1e9, "Unix time in nanoseconds"),
    "device behind": (lambda t_s: t_s - 300.0, "300.00"),
    "device ahead": (lambda t_s: t_s + 7200.0, "s ahead of it"),
}


@pytest.mark.parametrize("name", OTHER_CLOCKS)
def test_stamps_of_another_clock_are_told_with_how_far_off(name: str) -> None:
    shift, says = OTHER_CLOCKS[name]
    found = bad_of(spikes(stamps_s=shift(spike_times())))
    assert found["clock"].level == "stop"
    assert says in found["clock"].found
    assert ("pace" in found) == (name in ("Unix ms", "Unix ns"))


def test_a_remote_clock_is_brought_to_ours_and_its_uncertainty_judged() -> None:
    remote_s = spike_times() + 3600.0
    assert not bad_of(spikes(stamps_s=remote_s, offset=OffsetEstimate(0.0, -3600.0, 1e-4)))
    found = bad_of(spikes(stamps_s=remote_s, offset=OffsetEstimate(0.0, -3600.0, 0.02)))
    assert set(found) == {"offset"}
    assert "could not be measured" in bad_of(spikes(offset=None))["offset"].found


@pytest.mark.parametrize(("ahead_s", "share"), [(0.01, 1.0), (0.2, 0.05)])
def test_stamps_in_the_future_stop(ahead_s: float, share: float) -> None:
    stamps_s = spike_times()
    stamps_s[: round(share * len(stamps_s))] += ahead_s + 0.005
    found = bad_of(spikes(stamps_s=stamps_s))
    assert found["clock"].level == "stop"
    assert f"{share:.0%}" in found["clock"].found


@pytest.mark.parametrize(
    ("block_s", "delay_s", "level"),
    [(0.005, 0.0, None), (0.005, 0.06, "warn"), (0.1, 0.0, "warn"), (0.005, 0.7, "stop")],
)
def test_delay_and_blocks(block_s: float, delay_s: float, level: str | None) -> None:
    found = bad_of(spikes(arrived_s=in_blocks(spike_times(), block_s, delay_s)))
    assert (found["delay"].level if "delay" in found else None) == level
    assert ("blocks" in found) == (block_s > 0.02)


def test_a_single_stall_of_the_listener_is_no_delay() -> None:
    t_s = spike_times()
    arrived_s = in_blocks(t_s, 0.005)
    held_up = (arrived_s > t_s[700]) & (arrived_s < t_s[700] + 0.9)
    arrived_s[held_up] = t_s[700] + 0.9
    found = bad_of(spikes(arrived_s=arrived_s))
    assert found["delay"].level == "warn"
    assert "only now and then" in found["delay"].change
    often = np.where(np.arange(len(t_s)) % 20 == 0, 0.7, 0.0)
    late = heard_of(spikes().values, t_s - often, in_blocks(t_s, 0.005), ("channel", "unit", "seq"))
    assert bad_of(late)["delay"].level == "stop"


def test_disorder_is_how_far_behind_the_newest_stamp_samples_come() -> None:
    assert disorder_s(np.array([1.0, 3.0, 2.5, 2.0, np.nan, 4.0])).tolist() == [
        0.0, 0.0, 0.5, 1.0, 0.0,
    ]  # fmt: skip
    stamps_s = spike_times()
    late = np.arange(0, len(stamps_s), 50)
    stamps_s[late] -= 0.1
    found = bad_of(spikes(stamps_s=stamps_s))
    assert found["order"].level == "warn"
    assert found["order"].numbers["disorder_p999_s"] == pytest.approx(0.1, abs=0.01)


def test_pulls_that_take_a_block_in_parts_count_as_one_block() -> None:
    arrived_s = np.array([1.0, 1.0, 1.0002, 1.0004, 1.005, 1.0052])
    assert burst_starts(arrived_s).tolist() == [0, 4]


@pytest.mark.parametrize(
    ("seq", "level", "says"),
    [
        (np.arange(2000) + (np.arange(2000) > 900), "warn", "1 numbers never came"),
        (np.arange(2000) * 2, "stop", "1999 numbers never came"),
        (np.arange(2000) // 2, "stop", "came again"),
    ],
)
def test_sequence_holes_and_repeats(seq: np.ndarray, level: str, says: str) -> None:
    found = bad_of(spikes(seq=seq))
    assert found["sequence"].level == level
    assert says in found["sequence"].found


def without_sequence(stamps_s: np.ndarray, arrived_s: np.ndarray) -> Heard:
    n = len(stamps_s)
    rows = np.stack([1 + np.arange(n) % UNITS, np.ones(n)], axis=1).astype(np.int32)
    return heard_of(rows, stamps_s, arrived_s, ("channel", "unit"))


def test_without_a_sequence_number_spikes_sent_twice_are_found() -> None:
    t_s = spike_times()
    once = without_sequence(t_s, in_blocks(t_s, 0.005))
    assert "duplicates" not in bad_of(once)
    order = np.sort(np.concatenate([np.arange(len(t_s)), np.arange(0, len(t_s), 20)]))
    twice = heard_of(once.values[order], t_s[order], once.arrived_s[order], ("channel", "unit"))
    found = bad_of(twice)
    assert found["duplicates"].level == "stop"
    assert {"sequence", "keep-alives"} <= set(found)


def test_blocks_with_one_stamp_are_told_apart_from_spikes_sent_twice() -> None:
    t_s = spike_times()
    block_s = in_blocks(t_s, 0.1)
    found = bad_of(without_sequence(block_s, block_s))
    assert found["equal stamps"].level == found["duplicates"].level == "warn"
    assert "doubled" not in found
    events = np.zeros((len(t_s), 50), np.int16)
    events[:, 0], events[:, 2:] = np.arange(len(t_s)) % UNITS, -7
    nds = heard_of(
        events, block_s, block_s, [str(i) for i in range(50)], type="SpikeEvents", format="int16"
    )
    report = lint(nds, [])
    assert report.worst == "warn"
    assert report.as_json()["measured"]["invalid_values"] == 0


def test_units_that_fire_at_exactly_the_same_stamps() -> None:
    t_s = spike_times(600)
    unit = (np.arange(600) % 6).astype(np.int32)
    assert doubled_units(t_s, unit) == []
    shared_s, again = t_s[unit == 2], t_s[unit == 4][:-10]
    both = np.concatenate([t_s, shared_s, again])
    units = np.concatenate([unit, np.full(len(shared_s), 6), np.full(len(again), 7)])
    assert doubled_units(both, units.astype(np.int32)) == [(2, 6), (4, 7)]
    chance = np.concatenate([t_s, shared_s[:10]])
    assert doubled_units(chance, np.append(unit, np.full(10, 5)).astype(np.int32)) == []


@pytest.mark.parametrize(
    ("rate_hz", "level"),
    [(50.0, None), (50.05, "warn"), (49.9, "warn"), (40.0, "stop"), (1000.0, "stop")],
)
def test_the_true_rate_against_the_nominal(rate_hz: float, level: str | None) -> None:
    found = bad_of(counts(rate_hz))
    assert (found["rate"].level if "rate" in found else None) == level
    assert "holes" not in found
    if level:
        assert found["rate"].numbers["rate_hz"] == pytest.approx(rate_hz, rel=1e-6)


def test_missing_bins_and_stamps_of_the_push() -> None:
    whole = counts()
    kept = np.flatnonzero(np.arange(len(whole)) % 100 != 7)
    holes = heard_of(
        whole.values[kept], whole.stamps_s[kept], whole.arrived_s[kept], whole.labels, rate_hz=50.0
    )
    found = bad_of(holes)
    assert set(found) == {"holes"}
    assert found["holes"].numbers["missing_samples"] == 5
    rng = np.random.default_rng(3)
    jittered_s = whole.stamps_s + rng.uniform(0.0, 0.02, len(whole))
    measured = true_rate(jittered_s, 50.0)
    assert measured is not None
    assert measured.hz == pytest.approx(50.0, abs=4 * measured.error_hz)
    pushed_s = in_blocks(whole.stamps_s, 0.1)
    clumped = heard_of(whole.values, pushed_s, pushed_s, whole.labels, rate_hz=50.0)
    assert {"jitter", "blocks"} <= set(bad_of(clumped))
    assert true_rate(np.full(50, 7.0), 50.0) is None


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda n: np.random.default_rng(0).normal(size=n), "fractions"),
        (lambda n: np.full(n, np.nan), "NaN"),
        (lambda n: np.random.default_rng(0).poisson(0.4, n) * 0.5, "fractions"),
        (lambda n: np.random.default_rng(0).poisson(0.4, n) - 1.0, "negative"),
    ],
)
def test_values_that_are_no_counts(
    make: Callable[[tuple[int, int]], np.ndarray], says: str
) -> None:
    found = bad_of(counts(values=make((500, UNITS)), format="double64"))
    assert found["values"].level == "stop"
    assert says in found["values"].found
    whole = np.random.default_rng(0).poisson(0.4, (500, UNITS)).astype(np.float64)
    assert not bad_of(counts(values=whole, format="double64"))


def test_silent_and_doubled_channels_of_counts() -> None:
    held = np.random.default_rng(2).poisson(0.4, (500, UNITS)).astype(np.int32)
    held[:, 3] = 0
    held[:, 7] = held[:, 1]
    found = bad_of(counts(values=held))
    assert set(found) == {"silent", "doubled"}
    assert found["silent"].numbers["silent"] == ["u3"]
    assert found["doubled"].numbers["doubled"] == ["u1 = u7"]
    assert equal_columns(np.zeros((50, 3))) == []


def test_what_serve_cannot_read_is_unfit() -> None:
    unlabelled = lint(counts(labels=()), [])
    assert unlabelled.is_unfit
    assert bad(unlabelled)["layout"].change
    wide = heard_of(
        np.zeros((50, 7), np.int32), spike_times(50), spike_times(50), ("a", "b", *"cdefg")
    )
    assert lint(wide, []).is_unfit


def test_columns_that_are_named_are_read() -> None:
    t_s = spike_times()
    whole = without_sequence(t_s, in_blocks(t_s, 0.005))
    odd = heard_of(whole.values, t_s, whole.arrived_s, ("probe", "code"))
    assert lint(odd, []).is_unfit
    assert "`columns = [" in bad_of(odd)["layout"].found
    named = lint(odd, [], columns=("channel", "unit"))
    assert not named.is_unfit
    assert named.as_json()["measured"]["units"] == UNITS


def test_silence_and_an_end_stop() -> None:
    nothing = heard_of(
        np.zeros((0, 3), np.int32), np.zeros(0), np.zeros(0), ("channel", "unit", "seq")
    )
    found = bad_of(nothing)
    assert found["samples"].level == "stop"
    assert bad_of(replace(nothing, seconds=0.2))["samples"].level == "warn"
    assert not lint(nothing, []).is_unfit
    assert lint(replace(nothing, labels=("a", "b", "c")), []).is_unfit
    quiet = spikes()
    only_alive = quiet.values[:, 1] < 0
    alive = heard_of(
        quiet.values[only_alive], quiet.stamps_s[only_alive], quiet.arrived_s[only_alive],
        quiet.labels,
    )  # fmt: skip
    assert bad_of(alive)["units"].level == "stop"
    ended = Heard(
        described(), quiet.labels, quiet.values, quiet.stamps_s, quiet.arrived_s, SECONDS,
        quiet.offset, has_ended=True,
    )  # fmt: skip
    assert bad_of(ended)["end"].level == "stop"
