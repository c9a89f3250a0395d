"""Layouts of the field's streams against the rules of units and fates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import StreamUnfitError
from streams.lsl.description import StreamDescription
from streams.spikes.kernels.choose import NUMPY, Kernels
from streams.spikes.key_table import KeyTable
from streams.spikes.layouts.counts import CountsLayout
from streams.spikes.layouts.events import MOST_AT_ONCE, EventLayout
from streams.spikes.layouts.layout import LayoutOptions, Parsed
from streams.spikes.layouts.table import layout_of
from streams.spikes.sequence import SEQ_KEPT, SequenceCheck
from tests.streams.ways import BOTH_WAYS

IDS = st.tuples(st.integers(0, 300), st.integers(0, 5))
DTYPES = ["int32", "int16", "int64", "int8", "float32", "float64"]


def stream(
    n_channels: int, *, kind: str = "Spikes", rate_hz: float = 0.0, form: str = "int32"
) -> StreamDescription:
    return StreamDescription("amp", kind, "amp-1", "host", n_channels, rate_hz, form, "uid")


def events(
    labels: str, *, known: tuple[str, ...] = (), array: str = "", kernels: Kernels = NUMPY
) -> EventLayout:
    named = labels.split()
    layout = layout_of(stream(len(named)), named, LayoutOptions(known, array, kernels=kernels))
    assert isinstance(layout, EventLayout)
    return layout


def keys_of(layout: EventLayout, parsed: Parsed) -> list[str]:
    return [layout.table.keys[i] for i in parsed.unit]


def seconds(n: int) -> np.ndarray:
    return 100.0 + 0.001 * np.arange(n)


def parse(layout: Any, rows: list[list[float]], dtype: str = "int32") -> Parsed:
    parsed = layout.parse(np.array(rows, dtype), seconds(len(rows)))
    assert isinstance(parsed, Parsed)
    return parsed


# --- keys


@given(st.lists(st.lists(IDS, max_size=8), max_size=6), st.lists(IDS, max_size=6))
def test_a_key_table_names_each_unit_and_gives_it_one_index(
    pulls: list[list[tuple[int, int]]], known: list[tuple[int, int]]
) -> None:
    table = KeyTable([f"ch{c}/u{u}" for c, u in known], with_channel=True)
    assert set(table.keys) == {f"ch{c}/u{u}" for c, u in known}
    index_of: dict[str, int] = {key: i for i, key in enumerate(table.keys)}
    for ids in pulls:
        pairs = np.array(ids, np.int64).reshape(-1, 2)
        index = table.lookup(pairs[:, 0], pairs[:, 1])
        assert [table.keys[i] for i in index] == [f"ch{c}/u{u}" for c, u in ids]
        for key, i in zip((table.keys[i] for i in index), index.tolist(), strict=True):
            assert index_of.setdefault(key, i) == i
    assert len(set(table.keys)) == len(table.keys)


def test_bare_units_and_arrays_have_keys_of_their_own() -> None:
    flat = KeyTable(["u17", "ch3/u1", "velocity"], with_channel=False)
    assert flat.keys == ["u17"]
    named = KeyTable(["m1:ch3/u1", "s1:ch4/u1", "ch5/u1"], with_channel=True, array="m1")
    assert named.keys == ["m1:ch3/u1"]
    assert named.lookup(np.array([3, 9]), np.array([1, 0])).tolist() == [0, 1]
    assert named.keys == ["m1:ch3/u1", "m1:ch9/u0"]


def test_a_stream_of_something_else_does_not_fill_the_memory_with_keys() -> None:
    table = KeyTable([], with_channel=False)
    with pytest.raises(StreamUnfitError, match="over 200000 units"):
        table.lookup(np.zeros(200_001, np.int64), np.arange(200_001))


# --- sequence numbers


def checked(check: SequenceCheck, seq: list[int], t_s: float) -> tuple[list[bool], int]:
    fresh, n_lost = check.fresh(np.array(seq), np.full(len(seq), t_s))
    return fresh.tolist(), n_lost


def test_a_number_that_comes_again_is_a_duplicate_in_one_pull_or_in_two() -> None:
    check = SequenceCheck()
    assert checked(check, [0, 1, 1, 2], 1.0) == ([True, True, False, True], 0)
    assert checked(check, [2, 3, 0], 1.1) == ([False, True, False], 0)


def test_numbers_that_are_jumped_over_are_lost() -> None:
    check = SequenceCheck()
    assert checked(check, [10, 11], 1.0) == ([True, True], 0)
    assert checked(check, [14, 15, 17], 1.1) == ([True, True, True], 3)
    assert checked(check, [18], 1.2) == ([True], 0)


def test_numbers_out_of_order_in_a_pull_are_not_lost() -> None:
    check = SequenceCheck()
    assert checked(check, [3, 0, 2, 1], 1.0)[0] == [True] * 4
    assert checked(check, [4], 1.1) == ([True], 0)


def test_a_source_that_restarts_counts_anew() -> None:
    check = SequenceCheck(restart_after_s=0.5)
    assert checked(check, [0, 1, 2, 3], 1.0) == ([True] * 4, 0)
    assert checked(check, [0, 1], 3.0) == ([True, True], 0)
    assert checked(check, [2, 4], 3.1) == ([True, True], 1)


def test_a_restart_is_seen_although_one_stamp_lay_in_the_future() -> None:
    check = SequenceCheck(restart_after_s=0.5)
    assert checked(check, [0, 1, 2], 1.0) == ([True] * 3, 0)
    assert checked(check, [3], 1e6) == ([True], 0)
    assert checked(check, [0, 1], 1.6) == ([True, True], 0)


def test_a_backlog_that_comes_twice_is_no_restart() -> None:
    check = SequenceCheck(restart_after_s=0.5)
    checked(check, [0, 1, 2, 3], 1.0)
    assert checked(check, [0, 1, 2, 3], 1.0) == ([False] * 4, 0)


@given(st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=10), max_size=8))
def test_each_number_is_fresh_once(pulls: list[list[int]]) -> None:
    check, seen = SequenceCheck(), set()
    newest, n_lost = pulls[0][0] - 1 if pulls else 0, 0
    for pull in pulls:
        fresh, lost = checked(check, pull, 1.0)
        for number, is_fresh in zip(pull, fresh, strict=True):
            assert is_fresh == (number not in seen)
            seen.add(number)
        ahead = {number for number in pull if number > newest}
        expected = max(ahead) - newest - len(ahead) if ahead else 0
        assert lost == expected
        newest, n_lost = max(newest, *pull), n_lost + lost


def test_a_pull_longer_than_the_memory_of_numbers_is_all_fresh() -> None:
    fresh, n_lost = SequenceCheck().fresh(np.arange(2 * SEQ_KEPT), np.ones(2 * SEQ_KEPT))
    assert (fresh.all(), n_lost) == (True, 0)


# --- spikes as they happen


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_type_is_read_alike(dtype: str) -> None:
    layout = events("channel unit seq")
    parsed = parse(layout, [[12, 1, 0], [3, 0, 1], [-1, -1, 2], [12, 1, 3]], dtype)
    assert keys_of(layout, parsed) == ["ch12/u1", "ch3/u0", "ch12/u1"]
    assert parsed.t_s.tolist() == seconds(4)[[0, 1, 3]].tolist()
    assert parsed.keep_alive_s.tolist() == [seconds(4)[2]]
    assert parsed.count.tolist() == [1, 1, 1]
    assert (len(parsed.invalid_s), parsed.n_duplicate, parsed.n_lost) == (0, 0, 0)


@pytest.mark.parametrize(
    ("labels", "row", "key"),
    [
        ("unit", [17], "u17"),
        ("unit seq", [17, 0], "u17"),
        ("seq unit", [0, 17], "u17"),
        ("channel unit", [12, 1], "ch12/u1"),
        ("Channel Unit Seq", [12, 1, 0], "ch12/u1"),
        ("unit channel", [1, 12], "ch12/u1"),
    ],
)
def test_labels_tell_the_columns(labels: str, row: list[float], key: str) -> None:
    layout = events(labels)
    assert keys_of(layout, parse(layout, [row])) == [key]


def test_spike_events_carry_their_waveform_behind() -> None:
    layout = layout_of(
        stream(50, kind="SpikeEvents", form="int16"), (), LayoutOptions(("ch12/u1",))
    )
    assert isinstance(layout, EventLayout)
    parsed = parse(layout, [[12, 1, *range(-24, 24)], [300, 0, *([32767] * 48)]], "int16")
    assert keys_of(layout, parsed) == ["ch12/u1", "ch300/u0"]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, -2.0, 0.5, 2.0**31, 1e300])
@pytest.mark.parametrize("column", [0, 1])
def test_what_names_no_unit_is_invalid(wrong: float, column: int) -> None:
    layout = events("channel unit")
    row = [3.0, 1.0]
    row[column] = wrong
    parsed = parse(layout, [row, [3.0, 1.0]], "float64")
    assert (len(parsed.invalid_s), len(parsed.t_s), len(parsed.keep_alive_s)) == (1, 1, 0)
    assert layout.table.keys == ["ch3/u1"]


@pytest.mark.parametrize("stamp", [np.nan, np.inf, 0.0, -5.0])
def test_a_spike_without_a_proper_stamp_is_invalid(stamp: float) -> None:
    layout = events("unit")
    parsed = layout.parse(np.array([[3], [3]]), np.array([stamp, 100.0]))
    assert (len(parsed.invalid_s), parsed.t_s.tolist()) == (1, [100.0])


def test_a_keep_alive_without_a_proper_stamp_says_nothing() -> None:
    parsed = events("unit").parse(np.array([[-1], [-1]]), np.array([np.nan, 100.0]))
    assert parsed.keep_alive_s.tolist() == [100.0]
    assert len(parsed.invalid_s) == 0


def test_a_duplicate_keep_alive_is_no_duplicate_spike() -> None:
    parsed = parse(events("unit seq"), [[-1, 0], [-1, 0], [4, 1], [4, 1]])
    assert (len(parsed.keep_alive_s), len(parsed.t_s), parsed.n_duplicate) == (1, 1, 1)


def test_samples_lost_on_the_way_are_counted() -> None:
    layout = events("unit seq")
    assert parse(layout, [[4, 0], [4, 3]]).n_lost == 2
    assert parse(layout, [[4, 5]]).n_lost == 1


CELLS = st.one_of(st.integers(-3, 9).map(float), st.sampled_from([np.nan, np.inf, 0.25, 1e12]))


@given(st.lists(st.tuples(CELLS, CELLS, st.integers(0, 9).map(float)), max_size=20))
def test_every_sample_is_a_spike_or_counted_as_something_else(
    rows: list[tuple[float, float, float]],
) -> None:
    layout = events("channel unit seq")
    samples = np.array(rows, np.float64).reshape(-1, 3)
    parsed = layout.parse(samples, seconds(len(samples)))
    first = {seq: i for i, (_, _, seq) in reversed(list(enumerate(rows)))}
    fresh = [first[seq] == i for i, (_, _, seq) in enumerate(rows)]
    alive = [channel == unit == -1.0 for channel, unit, _ in rows]
    n_keep_alives_again = sum(a and not f for a, f in zip(alive, fresh, strict=True))
    assert len(parsed.keep_alive_s) == sum(alive) - n_keep_alives_again
    n_told = len(parsed.t_s) + len(parsed.invalid_s) + parsed.n_duplicate
    assert n_told == len(rows) - sum(alive)
    assert len(parsed.t_s) == len(parsed.unit) == len(parsed.count)


ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(-1, 2), st.integers(0, 2)), min_size=1, max_size=8
)


@BOTH_WAYS
@given(
    st.lists(st.tuples(st.booleans(), ROWS), max_size=8),
    st.sampled_from([5.0, -1.0, np.nan]),
    st.sampled_from([0, -1, -3, 2**31 - 9]),
)
def test_what_is_read_at_once_is_what_is_read_the_long_way(
    kernels: Kernels,
    pulls: list[tuple[bool, list[tuple[int, int, int]]]],
    a_stamp: float,
    seq: int,
) -> None:
    """Numbers of another type than int32 always go the long way."""
    at_once, long_way = events("channel unit seq", kernels=kernels), events("channel unit seq")
    t_s = 5.0
    for is_plain, rows in pulls:
        jumps = [1 if is_plain else jump for _, _, jump in rows]
        units = [abs(unit) if is_plain else unit for _, unit, _ in rows]
        seqs = (seq + np.cumsum(jumps)) % 2**31 if seq > 0 else seq + np.cumsum(jumps)
        seq = int(seqs[-1])
        samples = np.array([[row[0] for row in rows], units, seqs], np.int32).T.copy()
        stamps = t_s + np.arange(len(rows)) * 1e-3
        t_s += 0.01
        if not is_plain and len(rows) > 5:
            stamps[3] = a_stamp
        found = at_once.parse(samples, stamps)
        wanted = long_way.parse(samples.astype(np.float64), stamps)
        for name in ("t_s", "unit", "count", "keep_alive_s"):
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
        told = [(len(one.invalid_s), one.n_duplicate, one.n_lost) for one in (found, wanted)]
        assert told[0] == told[1]


def test_a_pull_of_any_length_is_read_alike() -> None:
    n = MOST_AT_ONCE + 1000
    rows = np.stack((np.arange(n) % 7, np.ones(n, int), np.arange(n)), axis=1).astype(np.int32)
    stamps = 5.0 + np.arange(n) * 1e-5
    at_once, in_parts = events("channel unit seq"), events("channel unit seq")
    whole = at_once.parse(rows, stamps)
    parts = [in_parts.parse(rows[i : i + 3000], stamps[i : i + 3000]) for i in range(0, n, 3000)]
    for name in ("t_s", "unit", "count"):
        np.testing.assert_array_equal(
            getattr(whole, name), np.concatenate([getattr(part, name) for part in parts])
        )
    assert (whole.n_lost, whole.n_duplicate, len(whole.invalid_s)) == (0, 0, 0)


# --- counts


def counts(labels: str, rate_hz: float = 20.0, array: str = "") -> CountsLayout:
    named = labels.split()
    layout = layout_of(stream(len(named), rate_hz=rate_hz), named, LayoutOptions(array=array))
    assert isinstance(layout, CountsLayout)
    return layout


def test_counts_become_entries_that_weigh() -> None:
    layout = counts("a b c")
    parsed = parse(layout, [[0, 2, 1], [0, 0, 0], [5, 0, 0]])
    assert layout.keys == ["a", "b", "c"]
    assert layout.bin_s == pytest.approx(0.05)
    assert parsed.unit.tolist() == [1, 2, 0]
    assert parsed.count.tolist() == [2, 1, 5]
    assert parsed.t_s.tolist() == seconds(3)[[0, 0, 2]].tolist()
    assert parsed.keep_alive_s.tolist() == seconds(3).tolist()


def test_an_array_prefixes_the_labels() -> None:
    assert counts("a b", array="m1").keys == ["m1:a", "m1:b"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_counts_of_every_number_type_are_read_alike(dtype: str) -> None:
    parsed = parse(counts("a b"), [[0, 3], [1, 0]], dtype)
    assert (parsed.unit.tolist(), parsed.count.tolist()) == ([1, 0], [3, 1])
    assert len(parsed.invalid_s) == 0


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, -1.0, 0.5, 1e12])
def test_what_is_no_count_is_invalid(wrong: float) -> None:
    parsed = parse(counts("a b"), [[wrong, 3.0], [1.0, 0.0]], "float64")
    assert (len(parsed.invalid_s), parsed.count.tolist()) == (1, [3, 1])


def test_a_bin_of_nothing_but_nonsense_is_no_sign_of_life() -> None:
    parsed = parse(counts("a b"), [[np.nan, -1.0], [0.0, 0.0]], "float32")
    assert parsed.keep_alive_s.tolist() == [seconds(2)[1]]


@pytest.mark.parametrize("stamp", [np.nan, np.inf, 0.0])
def test_counts_without_a_proper_stamp_are_invalid(stamp: float) -> None:
    parsed = counts("a b").parse(np.array([[1, 0], [2, 0]]), np.array([stamp, 100.0]))
    assert (len(parsed.invalid_s), parsed.count.tolist()) == (2, [2])
    assert parsed.keep_alive_s.tolist() == [100.0]


# --- what is refused


@pytest.mark.parametrize(
    ("unfit", "labels", "told"),
    [
        (stream(1, form="string"), (), "format string"),
        (stream(2, kind="Position", form="double64"), ("x", "y"), "its channels are x, y"),
        (stream(96, form="float32"), (), "96 channels at no regular rate carry no labels"),
        (stream(3, rate_hz=20.0), (), "a distinct label on every channel"),
        (stream(3, rate_hz=20.0), ("a", "", "c"), "a distinct label on every channel"),
        (stream(3, rate_hz=20.0), ("a", "b", "a"), "a distinct label on every channel"),
    ],
)
def test_a_stream_of_another_layout_is_refused_saying_why_and_what_is_read(
    unfit: StreamDescription, labels: tuple[str, ...], told: str
) -> None:
    with pytest.raises(StreamUnfitError, match=told) as refusal:
        layout_of(unfit, labels)
    assert "'amp'" in str(refusal.value)
    assert "Read are:" in str(refusal.value)


def test_the_sequence_goes_on_after_it_wraps() -> None:
    check = SequenceCheck()
    last = 2**31 - 1
    fresh, n_lost = check.fresh(np.array([last - 1, last]), np.array([1.0, 1.001]))
    assert fresh.all()
    assert n_lost == 0
    fresh, n_lost = check.fresh(np.array([0, 1, 4]), np.array([1.002, 1.003, 1.004]))
    assert fresh.all()
    assert n_lost == 2
    fresh, n_lost = check.fresh(np.array([1, 5]), np.array([1.003, 1.005]))
    assert fresh.tolist() == [False, True]
    assert n_lost == 0
