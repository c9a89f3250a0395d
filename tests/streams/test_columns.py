"""Columns are told by labels that are known or named in the config, never by their number."""

from __future__ import annotations

import numpy as np
import pytest

from streams.errors import StreamUnfitError
from streams.lsl.description import StreamDescription
from streams.spikes.layouts.columns import columns_of
from streams.spikes.layouts.counts import CountsLayout
from streams.spikes.layouts.events import EventLayout
from streams.spikes.layouts.layout import IgnoredUnits, LayoutOptions, Parsed
from streams.spikes.layouts.table import layout_of


def stream(
    n: int, kind: str = "Spikes", form: str = "int32", rate: float = 0.0
) -> StreamDescription:
    return StreamDescription("amp", kind, "amp-1", "host", n, rate, form, "uid")


def columns(labels: tuple[str, ...], named: tuple[str, ...] = (), kind: str = "Spikes") -> tuple:
    return tuple(columns_of(stream(len(labels), kind), labels, named))


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (("channel", "unit"), (0, 1, None)),
        (("unit_id", "channel_id"), (1, 0, None)),
        (("Electrode", "Sort Code"), (0, 1, None)),
        (("SEQ", "Cluster-ID", "chan"), (2, 1, 0)),
        (("neuron",), (None, 0, None)),
        (("sequence number", "unit"), (None, 1, 0)),
    ],
)
def test_known_labels_in_any_order_and_spelling(
    labels: tuple[str, ...], found: tuple[int | None, ...]
) -> None:
    assert columns(labels) == found


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (("channel", "unit", "amplitude"), 'columns = ["channel", "unit", "amplitude"]'),
        (("time", "channel", "unit"), 'columns = ["time", "channel", "unit"]'),
        (("a", "b", "c"), 'columns = ["channel", "unit", "other"]'),
        (("", ""), 'columns = ["channel", "unit"]'),
        (("",), 'columns = ["unit"]'),
        (("electrode",), 'columns = ["unit"]'),
        (("unit", "unit"), "at most once"),
    ],
)
def test_others_are_refused_with_the_line_that_would_read_them(
    labels: tuple[str, ...], line: str
) -> None:
    with pytest.raises(StreamUnfitError) as refusal:
        columns(labels)
    assert line in str(refusal.value)


@pytest.mark.parametrize(
    ("labels", "named", "found"),
    [
        (("channel", "unit", "amplitude"), ("channel", "unit", "amplitude"), (0, 1, None)),
        (("", "", ""), ("time", "unit", "channel"), (2, 1, None)),
        (("a", "b"), ("seq", "Unit ID"), (None, 1, 0)),
        # What the config names is true, whatever the labels say.
        (("channel", "unit"), ("unit", "channel"), (1, 0, None)),
    ],
)
def test_the_config_names_what_labels_do_not(
    labels: tuple[str, ...], named: tuple[str, ...], found: tuple[int | None, ...]
) -> None:
    assert columns(labels, named) == found


@pytest.mark.parametrize(
    ("named", "told"),
    [
        (("channel", "unit"), "names 2 columns, and it has 3 channels"),
        (("channel", "x", "y"), "must name `unit` once"),
        (("unit", "unit", "seq"), "must name `unit` once"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(named: tuple[str, ...], told: str) -> None:
    with pytest.raises(StreamUnfitError, match=told):
        columns(("a", "b", "c"), named)


def test_spike_events_are_read_by_their_labels_where_they_have_any() -> None:
    waveform = tuple(str(i) for i in range(48))
    assert columns(("channels", "units", *waveform), kind="SpikeEvents") == (0, 1, None)
    assert columns(("units", "channels", *waveform), kind="SpikeEvents") == (1, 0, None)
    assert columns(("",) * 50, kind="SpikeEvents") == (0, 1, None)


def parsed(ignore: tuple[int | str, ...], rows: list[list[int]]) -> tuple[EventLayout, Parsed]:
    layout = layout_of(stream(2), ("channel", "unit"), LayoutOptions(ignore_units=ignore))
    assert isinstance(layout, EventLayout)
    return layout, layout.parse(np.array(rows, np.int32), 100.0 + 0.01 * np.arange(len(rows)))


def test_units_that_are_left_out_are_no_spikes_and_no_keys() -> None:
    rows = [[3, 0], [3, 1], [4, 255], [4, 1], [5, 1], [-1, -1], [6, -1]]
    layout, found = parsed((0, 255, "ch5/u1", -1), rows)
    assert [layout.keys[i] for i in found.unit] == ["ch3/u1", "ch4/u1"]
    assert layout.keys == ["ch3/u1", "ch4/u1"]
    assert (found.n_ignored, len(found.invalid_s), len(found.keep_alive_s)) == (4, 0, 1)


def test_a_negative_unit_on_a_channel_is_noise_and_no_keep_alive() -> None:
    _, found = parsed((), [[6, -1], [-1, -1], [6, 1]])
    assert (len(found.invalid_s), len(found.keep_alive_s), len(found.t_s)) == (1, 1, 1)


def test_labels_of_counts_are_left_out() -> None:
    labels = ("a", "b", "c")
    options = LayoutOptions(array="m1", ignore_units=("b", "m1:c"))
    layout = layout_of(stream(3, rate=50.0), labels, options)
    assert isinstance(layout, CountsLayout)
    found = layout.parse(np.array([[1, 7, 9]]), np.array([100.0]))
    assert (layout.keys, found.count.tolist()) == (["m1:a"], [1])


def test_nothing_is_left_out_by_default() -> None:
    assert IgnoredUnits(()).is_empty
    assert not IgnoredUnits((0,)).is_empty


def test_counts_that_come_back_in_another_order_keep_their_indices() -> None:
    before = CountsLayout(("a", "b", "c"), 50.0)
    after = CountsLayout(("c", "d", "a", "b"), 50.0)
    after.resume(before, ())
    assert before.keys == ["a", "b", "c", "d"]
    found = after.parse(np.array([[30, 40, 10, 20]]), np.array([100.0]))
    assert {before.keys[i]: int(n) for i, n in zip(found.unit, found.count, strict=True)} == {
        "a": 10, "b": 20, "c": 30, "d": 40,
    }  # fmt: skip
