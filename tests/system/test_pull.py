"""Pulling over LSL: what was pushed comes once each, in order, and stays what it was."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from streams.clock import MonotonicClock
from streams.lsl.inlets import Inlet, find_inlet
from streams.lsl.outlets import CountsOutlet, MarkerOutlet, SpikeOutlet, ValuesOutlet
from tests.system.running import unique

WAIT_S = 5.0
MOST_AT_ONCE = 1024
"""The least that an inlet has room for."""
KEYS = [f"ch{i}/u0" for i in range(40)]


@pytest.fixture
def spikes() -> Iterator[tuple[SpikeOutlet, Inlet]]:
    name = unique("pull")
    outlet = SpikeOutlet(name, name, KEYS)
    inlet = find_inlet("Spikes", name=name, budget_per_s=MOST_AT_ONCE)
    inlet.open()
    assert outlet.wait_for_consumers(WAIT_S)
    yield outlet, inlet
    inlet.close()
    outlet.close()


def pulled(inlet: Inlet, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pulls until so many samples came."""
    clock, parts = MonotonicClock(), []
    t_end = clock.now() + WAIT_S
    while sum(len(stamps) for _, stamps in parts) < n and clock.now() < t_end:
        parts.append(inlet.pull(0.2))
    return parts


def test_more_than_there_is_room_for_comes_in_several_pulls(
    spikes: tuple[SpikeOutlet, Inlet],
) -> None:
    outlet, inlet = spikes
    t_s = 10.0 + np.arange(3000) * 1e-3
    unit = (np.arange(3000) % len(KEYS)).astype(np.int32)
    outlet.push(t_s, unit)
    parts = pulled(inlet, 3000)
    assert all(len(values) == len(stamps) <= MOST_AT_ONCE for values, stamps in parts)
    values, stamps = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert np.array_equal(stamps, t_s)
    assert values.dtype == np.int32
    assert np.array_equal(values, np.column_stack((unit, np.zeros(3000), np.arange(3000))))


def test_what_was_pulled_does_not_change_with_the_next_pull(
    spikes: tuple[SpikeOutlet, Inlet],
) -> None:
    outlet, inlet = spikes
    outlet.push(np.array([1.0, 2.0]), np.array([3, 4], np.int32))
    first = pulled(inlet, 2)
    outlet.push(np.array([5.0, 6.0]), np.array([7, 8], np.int32))
    pulled(inlet, 2)
    values, stamps = (np.concatenate(part) for part in zip(*first, strict=True))
    assert stamps.tolist() == [1.0, 2.0]
    assert values[:, 0].tolist() == [3, 4]


def test_nothing_there_is_an_empty_pull(spikes: tuple[SpikeOutlet, Inlet]) -> None:
    values, stamps = spikes[1].pull(0.0)
    assert values.shape == (0, 3)
    assert stamps.shape == (0,)


def test_every_format_is_pulled() -> None:
    """Doubles, counts at a rate, and the strings of markers."""
    names = [unique("pull") for _ in range(3)]
    doubles = ValuesOutlet(names[0], "Position", names[0], ("x", "y"))
    counts = CountsOutlet(names[1], names[1], ("a", "b", "c"), 50.0)
    markers = MarkerOutlet(names[2], names[2])
    kinds = ("Position", "Spikes", "Markers")
    inlets = [find_inlet(kind, name=name) for kind, name in zip(kinds, names, strict=True)]
    for inlet in inlets:
        inlet.open()
    for outlet in (doubles, counts, markers):
        assert outlet.wait_for_consumers(WAIT_S)
    doubles.push(np.array([0.25, -1.5]), 1.0)
    counts.push(np.array([1, 0, 7], np.int32), 2.0)
    markers.push("go", 3.0)
    found = [next(part for part in pulled(inlet, 1) if len(part[1])) for inlet in inlets]
    assert [stamps.tolist() for _, stamps in found] == [[1.0], [2.0], [3.0]]
    assert found[0][0].tolist() == [[0.25, -1.5]]
    assert found[1][0].tolist() == [[1, 0, 7]]
    assert found[2][0].tolist() == [[b"go"]]
    for inlet in inlets:
        inlet.close()
