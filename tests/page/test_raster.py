"""The raster holds what came, whatever the order, and folds no spike away."""

from __future__ import annotations

import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.page.panels.raster import (
    CHANGED,
    COLUMN_S,
    LATEST_COLUMNS,
    N_COLUMNS,
    ROWS_AT_MOST,
    SILENT,
    UNKNOWN,
    Raster,
    Rows,
    by_channel,
    by_direction,
    marks_of,
)

T0_S = 1000.0


class Screen:
    """What a browser makes of the columns that it is sent."""

    def __init__(self) -> None:
        self.columns: dict[int, np.ndarray] = {}

    def take(self, message: bytes) -> None:
        kind, first, n_columns, n_rows = struct.unpack_from("<IIII", message)
        assert kind == 1
        held = np.frombuffer(message, np.uint8, offset=16).reshape(n_columns, n_rows)
        for i, column in enumerate(held):
            self.columns[first + i] = column


spikes = st.lists(
    st.tuples(st.integers(0, 6), st.floats(0.0, 0.25), st.floats(0.0, 2.0)), max_size=60
)


@given(spikes, st.lists(st.floats(0.02, 0.3), min_size=8, max_size=20))
def test_a_browser_that_is_sent_what_changed_shows_every_spike(found, steps):
    """(unit, delay, stamp after T0) of each spike; it is added once its delay is over."""
    raster, screen, rows = Raster(T0_S), Screen(), Rows(np.arange(7)[::-1])
    raster.add(np.zeros(0, int), np.zeros(0), np.zeros(0, int), 7)
    waiting = sorted(found, key=lambda spike: spike[2] + spike[1])
    now_s, expected = T0_S, {}
    for step in steps:
        now_s += step
        raster.advance(now_s)
        while waiting and T0_S + waiting[0][2] + waiting[0][1] <= now_s:
            unit, _, after = waiting.pop(0)
            t_s = T0_S + after
            raster.add(np.array([unit]), np.array([t_s]), np.array([1]), 7)
            column = int(np.floor(t_s / COLUMN_S))
            # One that comes after its column was sent and left alone is not shown.
            if column >= raster.head - LATEST_COLUMNS:
                expected[column, unit] = expected.get((column, unit), 0) + 1
        screen.take(raster.columns(raster.touched(), rows))
    for (column, unit), n in expected.items():
        if column > raster.head - N_COLUMNS:
            assert screen.columns[column][6 - unit] >= n


@given(st.integers(1, 2000), st.integers(0, 2**32 - 1))
def test_rows_hold_every_unit_once_and_sum_their_counts(n_units, seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, (n_units, 3)).astype(np.uint8)
    order = rng.permutation(n_units)
    rows = Rows(order)
    folded = rows.fold(counts)
    assert len(folded) == min(n_units, ROWS_AT_MOST)
    assert folded.sum() == counts.sum()
    marks = rng.integers(0, 4, n_units)
    worst = rows.worst(marks)
    ends = [*rows.starts, n_units][1:]
    for row, (begin, end) in enumerate(zip(rows.starts, ends, strict=True)):
        assert worst[row] == marks[order[begin:end]].max()
        assert (folded[row] == counts[order[begin:end]].sum(axis=0)).all()


def test_columns_that_were_left_long_ago_are_empty():
    raster, rows = Raster(T0_S), Rows(np.arange(1))
    raster.advance(T0_S + 0.05)
    raster.add(np.array([0]), np.array([T0_S + 0.03]), np.array([1]), 1)
    raster.advance(T0_S + 0.03 + (N_COLUMNS + 3) * COLUMN_S)
    screen = Screen()
    screen.take(raster.columns(0, rows))
    assert len(screen.columns) == N_COLUMNS
    assert not sum(column.sum() for column in screen.columns.values())


def test_units_are_ordered_by_the_numbers_in_their_keys():
    keys = ["ch10/u0", "ch2/u1", "ch2/u0", "pmd:ch1/u0", "u3"]
    assert [keys[i] for i in by_channel(keys)] == [
        "ch2/u0", "ch2/u1", "ch10/u0", "pmd:ch1/u0", "u3",
    ]  # fmt: skip


def test_units_without_a_direction_come_first():
    angle = np.array([0.5, -1.0, 2.0, 0.0])
    order = by_direction(angle, np.array([True, True, False, True]))
    assert order.tolist() == [2, 1, 3, 0]


def test_marks_say_the_worst_of_a_unit():
    marks = marks_of(["a", "b", "c", "d"], ["a", "c"], ["b"], {"a", "b", "d"})
    assert marks.tolist() == [SILENT, CHANGED, UNKNOWN, 0]


def test_a_row_is_named_by_its_unit_or_by_its_ends():
    keys = [f"u{i}" for i in range(2 * ROWS_AT_MOST)]
    assert Rows(np.arange(3)).labels(keys) == ["u0", "u1", "u2"]
    assert Rows(np.arange(2 * ROWS_AT_MOST)).labels(keys)[1] == "u2 to u3"
    assert Rows(np.arange(0)).labels([]) == []
