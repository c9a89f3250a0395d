"""The stream is looked for while the decoder is opened: what is found early, late, or never."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from service.config import InputConfig
from service.daemon.compose import search_stream
from service.daemon.stream_search import FRESH_S, StreamSearch
from service.loop.intake.source import OpenInlet
from streams.clock import ManualClock, MonotonicClock
from streams.errors import StreamAbsentError, StreamAmbiguousError, StreamsError
from streams.lsl.outlets import SpikeOutlet
from tests.system.running import unique

WAIT_S = 5.0


class Finder:
    """Looks for `taken_s` of the clock's time, then answers."""

    def __init__(self, clock: ManualClock, answer: str | StreamsError, taken_s: float) -> None:
        self.clock, self.answer, self.taken_s = clock, answer, taken_s
        self.asked_s: list[float] = []

    def __call__(self, timeout_s: float) -> OpenInlet:
        self.asked_s.append(timeout_s)
        self.clock.t_s += self.taken_s
        if isinstance(self.answer, StreamsError):
            raise self.answer
        return cast(Any, self.answer)


def searching(clock: ManualClock, early: Finder, late: Finder) -> StreamSearch:
    search = StreamSearch(early, late, clock, WAIT_S)
    search.join()
    return search


def test_what_was_found_meanwhile_is_taken_once() -> None:
    clock = ManualClock()
    early, late = Finder(clock, "early", 0.6), Finder(clock, "late", 0.6)
    search = searching(clock, early, late)
    clock.t_s += FRESH_S / 2
    assert search.find(WAIT_S) == "early"
    assert (early.asked_s, late.asked_s) == ([WAIT_S], [])
    assert search.find(3.0) == "late"  # after an outage
    assert late.asked_s == [pytest.approx(3.0)]


def test_what_was_found_long_ago_is_looked_for_again() -> None:
    clock = ManualClock()
    early, late = Finder(clock, "early", 0.6), Finder(clock, "late", 0.6)
    search = searching(clock, early, late)
    clock.t_s += 2 * FRESH_S
    assert search.find(WAIT_S) == "late"


def test_a_stream_that_came_while_the_decoder_was_opened_is_found() -> None:
    clock = ManualClock()
    early, late = Finder(clock, StreamAbsentError("none"), WAIT_S), Finder(clock, "late", 0.1)
    assert searching(clock, early, late).find(WAIT_S) == "late"
    assert late.asked_s == [pytest.approx(WAIT_S)]


def test_of_several_streams_none_is_taken() -> None:
    clock = ManualClock()
    early, late = Finder(clock, StreamAmbiguousError("two"), 0.6), Finder(clock, "late", 0.1)
    with pytest.raises(StreamAmbiguousError, match="two"):
        searching(clock, early, late).find(WAIT_S)


def test_a_search_that_nobody_waits_for_ends() -> None:
    """As where the backend is refused: `serve` says so at once, however long streams may take."""
    config = InputConfig(name=unique("no-such"), wait_s=3600.0)
    with pytest.raises(ValueError, match="refused"), search_stream(config, MonotonicClock()):
        raise ValueError("refused")
    assert "stream search" not in [thread.name for thread in threading.enumerate()]


def test_a_living_stream_is_found_and_found_again() -> None:
    name, clock = unique("spikes"), MonotonicClock()
    outlet = SpikeOutlet(name, name, ["u1"], 1000.0)
    try:
        with search_stream(InputConfig(name=name), clock) as find:
            first = find(WAIT_S)
        assert first.description.name == name
        assert find(WAIT_S).description.name == name  # the search itself has ended
    finally:
        outlet.close()
